"""How perf's tools open a session's events: in which order, on which CPUs, and what becomes of one that fails.

A session is one process: what fails on one CPU is missing, or ends it, on all. tools/perf/builtin-stat.c,
builtin-record.c and util/evlist.c (Linux 6.12).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from services.events import Software
from services.experiment import ANY_PMU, EventSpec, SessionSpec
from services.linux_perf.pmu import OpenError
from services.registers import CPU_CYCLES


@dataclass(frozen=True, slots=True)
class Call:
    """perf_event_open of an event, by its place in the session, or close."""

    index: int
    event: EventSpec
    closes: bool = False
    alone: bool = True  # it leads its group, or has none
    grouped: bool = False  # it has one
    enabled: bool = False  # though it is alone: as a member of a group is opened


Group = Sequence[Call]  # the calls that have opened the group that an event is to join, its leader's first


@dataclass(frozen=True, slots=True)
class Opening:
    """What the tool does on one CPU, and what has become of the session."""

    events: tuple[EventSpec, ...]  # of the session, as it has opened them or has last tried to
    calls: tuple[Call, ...]
    unsupported: dict[int, str]  # why it goes on without an event, by the event's place
    refused: str  # why it ends


def without_guests(event: EventSpec) -> EventSpec | None:
    """What perf's tools try instead of an event that is refused with EOPNOTSUPP: evsel__fallback, 6.12.117 and 6.13.

    None: it excludes guests, or its modifiers say which side it counts.
    """
    if event.exclude_guest or event.names_side:
        return None
    name = f"{event.name}H" if set(event.name) & set("/:") else f"{event.name}:H"
    return replace(event, name=name, exclude_guest=True)


class Tool:
    """perf stat or perf record, on the CPUs that its session is on."""

    def __init__(
        self,
        spec: SessionSpec,
        cpus: Iterable[int],
        here: int,
        covers: Callable[[int], int],
        check: Callable[[Call, int, Group], None],
        *,
        of_task: bool,
    ) -> None:
        """`here` is the CPU whose calls are wanted.

        `covers` gives a CPU's PMU; `check` raises OpenError where perf_event_open on a PMU does. `of_task`: events are
        of a task, which perf stat opens on no CPU, so each whatever PMU it is bound to.
        """
        pmus = {covers(cpu): cpu for cpu in reversed([*cpus])}
        # A PMU's CPUs all answer alike, and what the first has refused is not tried on others: it stands for them.
        self.cpus = sorted({*pmus.values(), here})
        self.spec = spec
        self.here = here
        self.covers = covers
        self.check = check
        self.of_task = of_task
        self.events = [*spec.events]  # as they are opened
        self.alone = [event.leader == index for index, event in enumerate(spec.events)]
        self.opened: dict[int, dict[int, Call]] = {cpu: {} for cpu in self.cpus}
        self.calls: list[Call] = []
        self.unsupported: dict[int, str] = {}

    def run(self) -> Opening:
        refused = ""
        try:
            if self.spec.verb == "record":
                self._record()
            else:
                self._stat()
        except OpenError as error:
            refused = str(error)
        return Opening(tuple(self.events), tuple(self.calls), self.unsupported, refused)

    def _stat(self) -> None:
        """__run_perf_stat: on one CPU after the other. Weak groups that do not fit are opened again at the end."""
        weak: dict[int, None] = {}  # their leaders
        everything = [index for index, event in enumerate(self.spec.events) if not event.bpf]
        for cpu in self.cpus:
            for index in everything:
                if self.spec.events[index].leader not in weak:
                    self._try(index, cpu, weak)
        for leader in weak:
            members = self._members(leader)
            self._close(members)
            for index in members:
                self.alone[index] = True
                self.unsupported.pop(index, None)
        for cpu in self.cpus:
            for leader in weak:
                for index in self._members(leader):
                    self._try(index, cpu, {})

    def _try(self, index: int, cpu: int, weak: dict[int, None]) -> None:
        """An event that has failed on one CPU is not tried on the next (stat_handle_error: errored)."""
        spec = self.spec.events[index]
        if index in self.unsupported:
            return
        try:
            self._open(index, cpu)
        except OpenError as error:
            if self._excludes_guests(index, error):
                self._try(index, cpu, weak)
                return
            if self._breaks_up(index, error):
                weak[spec.leader] = None
                self._close_on(cpu, self._members(spec.leader))
                return
            self.unsupported[index] = str(error)
            if len(self._members(index)) > 1:
                raise self._ends(index, error) from None

    def _record(self) -> None:
        """record__open: one event after the other, each on all CPUs. A weak group is opened again where it stands."""
        index = 0
        while index < len(self.spec.events):
            try:
                for cpu in self.cpus:
                    self._open(index, cpu)
            except OpenError as error:
                if self._falls_back(index, error) or self._excludes_guests(index, error):
                    self._close([index])
                    continue
                if not self._breaks_up(index, error):
                    self.unsupported[index] = str(error)
                    raise self._ends(index, error) from None
                index = self.spec.events[index].leader
                members = self._members(index)
                self._close(members)
                for member in members:
                    self.alone[member] = True
                continue
            index += 1

    def _excludes_guests(self, index: int, error: OpenError) -> bool:
        """evsel__fallback, of an event that is not supported: perhaps it is if it excludes guests."""
        other = without_guests(self.events[index]) if error.number == errno.EOPNOTSUPP else None
        if other is not None:
            self.events[index] = other
        return other is not None

    def _falls_back(self, index: int, error: OpenError) -> bool:
        """evsel__fallback: of cycles that there are not, to a clock.

        perf stat never gets there: it takes ENOENT for <not supported> first (stat_handle_error).
        """
        event = self.events[index]
        if error.number != errno.ENOENT or not event.generic or event.event != CPU_CYCLES or event.pmu != ANY_PMU:
            return False
        clock = Software.TASK_CLOCK if self.of_task else Software.CPU_CLOCK
        _, separator, modifiers = event.name.rpartition("/" if "/" in event.name else ":")
        name = f"{clock.name.lower().replace('_', '-')}:{modifiers.removeprefix(':') if separator else ''}"
        self.events[index] = replace(event, name=name.removesuffix(":"), event=clock, software=True, generic=False)
        return True

    def _breaks_up(self, index: int, error: OpenError) -> bool:
        return not self.alone[index] and self.spec.events[index].weak and error.number == errno.EINVAL

    def _ends(self, index: int, error: OpenError) -> OpenError:
        """All that it has opened is closed when the tool exits."""
        return OpenError(error.number, error.reason, f"{self.spec.events[index].name}: ")

    def _members(self, leader: int) -> list[int]:
        return [index for index, event in enumerate(self.spec.events) if event.leader == leader]

    def _open(self, index: int, cpu: int) -> None:
        """On a CPU that its PMU covers (perf_evlist__propagate_maps)."""
        event = self.events[index]
        pmu = self.covers(cpu) if event.software or event.pmu == ANY_PMU else event.pmu
        anywhere = self.of_task and self.spec.verb == "stat"
        if not (anywhere or pmu == self.covers(cpu)):
            return
        opened = self.opened[cpu]
        grouped = not all(self.alone[one] for one in self._members(event.leader))
        call = Call(index, event, alone=self.alone[index], grouped=grouped)
        group: list[Call] = []
        if event.software and self.spec.verb == "record" and event.leader not in opened:
            # get_group_fd has none on a CPU that the leader's PMU does not cover; evsel__config takes it for a member.
            call = replace(call, alone=True, enabled=not call.alone)
        if not call.alone:
            if event.leader not in opened:
                raise OpenError(errno.EINVAL, "the group's leader is on another PMU")
            group = [one for place, one in opened.items() if self.spec.events[place].leader == event.leader]
        self.check(call, pmu, group)
        opened[index] = call
        if cpu == self.here:
            self.calls.append(call)

    def _close(self, members: Sequence[int]) -> None:
        for cpu in self.cpus:
            self._close_on(cpu, members)

    def _close_on(self, cpu: int, members: Sequence[int]) -> None:
        for index in members:
            call = self.opened[cpu].pop(index, None)
            if call is not None and cpu == self.here:
                self.calls.append(Call(index, call.event, closes=True))
