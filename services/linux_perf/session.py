"""One `perf stat` or `perf record`: the events that the tool opens, and what it reports."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from services.boot import NO_PROCESS
from services.cpu import NEVER, Cpu
from services.durations import NS_PER_S
from services.experiment import ANY_PMU, SessionSpec
from services.linux_perf.attr import EventAttr
from services.linux_perf.bpf_maps import Follower
from services.linux_perf.driver import REGISTERS, Driver
from services.linux_perf.event import ACTIVE, ERROR, INACTIVE, OFF, PerfEvent
from services.linux_perf.perf import PerfCpu
from services.linux_perf.pmu import Member, OpenError, admit, hidden, state_of
from services.linux_perf.reading import Reading
from services.linux_perf.ring_buffer import NOBODY, RingBuffer
from services.linux_perf.tool import Call, Group, Opening, Tool
from services.state import Objects, Saved, as_frozen, derived, link, restore

Result = dict[str, Any]

COUNTS = ("count", "truth", "held", "enabled", "running", "samples")
PRINTED = ("count", "truth", "enabled", "running")  # of an event at an interval

Printed = list[Any]  # ns since the session began, and of each event those, and whether it is in ERROR


@dataclass(slots=True, eq=False)
class Session:
    """The events of one session on one CPU: of a task, or with `task` None of the CPU (`-a`).

    As the tool does it, a frequency above the kernel's present perf_event_max_sample_rate is lowered to that
    (record_opts__config_freq), and group leaders are opened disabled and their siblings enabled. A task that is yet
    to exec (`on_exec`) enables them there; otherwise the tool enables each leader when all are open.
    """

    spec: SessionSpec
    task: int | None
    perf: PerfCpu = derived()
    cpus: tuple[int, ...] = ()  # all that it opens its events on, which are opened here for this one; (): here alone
    on_exec: bool = False
    delayed: bool = False  # perf stat -D -1: it leaves the leaders off
    reader: int = NOBODY  # of perf record: the number of its process, where the kernel counts them
    process: int = NO_PROCESS  # of perf stat -I on the host: its thread, which reads at intervals
    events: list[PerfEvent | None] = link(default_factory=list)  # None: not opened here
    followers: dict[int, Follower] = link(default_factory=dict)  # of events that BPF programs count, by their place
    unsupported: dict[int, str] = field(default_factory=dict)  # why perf_event_open failed, by the event's place
    refused: str = ""  # why the tool ended before it had begun
    buffer: RingBuffer | None = link(default=None)  # of all its events here: PERF_EVENT_IOC_SET_OUTPUT
    closed: list[Result] | None = None  # what was reported at the end
    began: int = 0  # when all were open, in cycles
    due: int = NEVER  # when perf stat -I prints next, where this kernel wakes it
    ended: bool = False  # it has printed its last
    intervals: list[Printed] = field(default_factory=list)  # what it has read, each time

    async def open(self, cpu: Cpu) -> None:
        """perf_event_open of every event and, unless an exec is to come, ioctl(ENABLE) of every leader.

        Where it fails, `services.linux_perf.tool` says what becomes of the session: if it ends, what was opened is
        closed, and the program under it does not run.
        """
        if self.spec.verb == "record":
            self.buffer = self.perf.new_buffer(self.spec.mmap_pages, self.reader)
        self.events = [None] * len(self.spec.events)
        opening = await self._load(cpu) or self._opening()
        self.unsupported, self.refused = opening.unsupported, opening.refused
        self.spec = replace(self.spec, events=opening.events)
        for call in opening.calls:
            if call.closes:
                event, self.events[call.index] = self.events[call.index], None
                assert event is not None
                await self.perf.release(cpu, event)
                continue
            spec = self.spec.events[call.index]
            event = self.perf.open(
                self._attr(call),
                None if call.alone else self.events[spec.leader],
                self.buffer,
                of_task=self.task is not None,
                pmu=self._pmu(spec.pmu),
            )
            self.events[call.index] = event
            await self.perf.install(cpu, event, self.task)
        if self.refused:
            await self._release(cpu)
            return
        for follower in self.followers.values():
            await self.perf.enable_follower(cpu, follower)
        if not (self.on_exec or self.delayed):
            await self.enable(cpu)
        await self.perf.settle(cpu)
        self.began = cpu.now
        if self.spec.interval:
            self.due = self.began + self.spec.interval

    async def _load(self, cpu: Cpu) -> Opening | None:
        """bpf_counter__load of each event with `b`, before any other is opened; how the tool ends, if one fails."""
        if not self.spec.bpf or self._syntax_error():
            return None
        tasks = None if self.task is None else [self.task]
        try:
            for index, spec in enumerate(self.spec.events):
                if spec.bpf:
                    self._check_target(index)
                    attr = self._attr(Call(index, spec))
                    self.followers[index] = await self.perf.follow(
                        cpu, attr, spec.pmu, tasks, triggers=self._calls_others()
                    )
        except OpenError as error:
            return Opening(self.spec.events, (), {}, str(error))
        return None

    def _check_target(self, index: int) -> None:
        """bperf_check_target. Raises OpenError."""
        spec = self.spec.events[index]
        if [one.leader for one in self.spec.events].count(spec.leader) > 1:
            why = "bpf managed perf events do not yet support groups"
            raise OpenError(errno.EINVAL, why, f"{spec.name}: ")

    def _calls_others(self) -> bool:
        """Is this the CPU on which its process does what it does once for all?"""
        return self.task is not None or self.perf.config.cpu == min(self.cpus or self.perf.shared.online)

    def _opening(self) -> Opening:
        error = self._syntax_error()
        if error:
            return Opening(self.spec.events, (), {}, error)
        here, covers = self.perf.config.cpu, self.perf.shared.covers
        of_task = self.task is not None
        return Tool(self.spec, self.cpus, here, covers.__getitem__, self._check, of_task=of_task).run()

    def _syntax_error(self) -> str:
        """What the tool says of a name that is none of the PMU's in sysfs, and ends; empty if all are there."""
        for spec in self.spec.events:
            if spec.sysfs and (why := hidden(self._pmu(spec.pmu), spec.event)):
                return f"event syntax error: {spec.name!r}: bad event name: {why}"
        return ""

    def _check(self, call: Call, number: int, group: Group) -> None:
        """perf_event_open on a PMU. Raises OpenError."""
        pmu, of_task = self._pmu(number), self.task is not None
        members: list[Member] = []
        for one in group:
            attr = admit(pmu, self._attr(one), members, of_task=of_task)
            members.append((pmu.hw_event(attr), state_of(attr), attr))
        admit(pmu, self._attr(call), members, of_task=of_task)

    def _pmu(self, number: int) -> Driver:
        config = self.perf.config
        return self.perf.pmu if number in (ANY_PMU, config.arm_pmu) else self.perf.shared.pmus[number]

    async def close(self, cpu: Cpu) -> None:
        """ioctl(DISABLE) of every leader, read, close."""
        if self.closed is not None:
            return
        printed = await self.print_interval(cpu) if self.spec.interval else None
        for event in self._leaders():
            self.perf.disable(cpu, event)
        if printed is None:
            await self._sync(cpu)
        results = await self._results(cpu)
        self.closed = results if printed is None else printed
        self.due, self.ended = NEVER, True
        await self._release(cpu)

    async def enable(self, cpu: Cpu) -> None:
        """ioctl(ENABLE) of every leader."""
        for event in self._leaders():
            await self.perf.enable(cpu, event)

    async def disable(self, cpu: Cpu) -> None:
        """ioctl(DISABLE) of every leader."""
        for event in self._leaders():
            self.perf.disable(cpu, event)
        await self.perf.settle(cpu)

    async def read(self, cpu: Cpu) -> list[Result]:
        """read(2) of every event, or what was read when it was closed."""
        if self.closed is not None:
            return self.closed
        await self._sync(cpu)
        return await self._results(cpu)

    async def print_interval(self, cpu: Cpu) -> list[Result]:
        """process_interval: read all there is to read. The next time is an interval after this is done."""
        results = await self.read(cpu)
        self._print(cpu, self.intervals, results)
        self.due = cpu.now + self.spec.interval
        return results

    async def _sync(self, cpu: Cpu) -> None:
        """Have the leaders of what it follows read on every CPU: on each of its own by itself."""
        if self.followers:
            online = self.perf.shared.online
            mine = (self.perf.config.cpu,) if self.task is not None else self.cpus or online
            others = [number for number in online if number not in mine] if self._calls_others() else []
            await self.perf.sync_followers(cpu, self.followers.values(), others)

    def _print(self, cpu: Cpu, intervals: list[Printed], results: list[Result]) -> None:
        time = (cpu.now - self.began) * NS_PER_S // self.perf.frequency_hz
        intervals.append([time, [[*(one[name] for name in PRINTED), int(one["state"] == ERROR)] for one in results]])

    def failures(self) -> list[str]:
        """Why perf_event_open has failed: of the event at which the tool ended, of each it goes on without, and of each
        that BPF programs would have read here."""
        here = self.perf.config.cpu if self.task is None else min(self.perf.shared.covers)
        leaders = (follower.leader for follower in self.followers.values())
        bpf = [leader.why for leader in leaders if leader.fails_on <= here]
        return [*filter(None, (self.refused,)), *self.unsupported.values(), *bpf]

    def user_readable(self) -> list[int]:
        """The counters that its task may read at EL0 now: armv8pmu_user_event_idx of each event."""
        if not self.perf.shared.user_access:
            return []
        found = (event for event in self.events if event is not None and event.state == ACTIVE and event.hw.user_read)
        return [REGISTERS[event.idx] for event in found]

    async def report(self, cpu: Cpu) -> Result:
        """Results so far: counts and truth in occurrences, times in ns. `intervals` has what each has grown by."""
        results = await self._results(cpu) if self.closed is None else self.closed
        report = {"name": self.spec.name, "verb": self.spec.verb, "refused": self.refused, "events": results}
        if self.spec.interval:
            report["intervals"] = self._grown(cpu, results)
        return report

    def _grown(self, cpu: Cpu, results: list[Result]) -> list[Result]:
        """The rows of perf stat -I (evsel__compute_deltas). One that runs prints the last when it is told to end."""
        intervals = [*self.intervals]
        if not self.ended and results:
            self._print(cpu, intervals, results)
        before = [[0] * (1 + len(PRINTED)) for _ in results]
        rows = []
        for time, events in intervals:
            grown = [
                [*(new - old for new, old in zip(now[:-1], then, strict=False)), now[-1]]
                for now, then in zip(events, before, strict=True)
            ]
            rows.append({"time": time, "events": grown})
            before = events
        return rows

    @classmethod
    def restored(cls, perf: PerfCpu, saved: Saved, objects: Objects) -> Session:
        """The session that was saved; `objects` has the events of its perf."""
        session = cls(as_frozen(SessionSpec, saved["spec"]), saved["task"], perf)
        restore(session, saved, objects)
        return session

    def _attr(self, call: Call) -> EventAttr:
        """What the tool opens for an event."""
        spec = call.event
        return EventAttr.of_spec(
            spec,
            min(spec.frequency, self.perf.shared.limits.max_sample_rate),
            disabled=call.alone and not call.enabled,
            enable_on_exec=call.alone and not call.enabled and self.on_exec,
            inherit=self.task is not None and not (spec.sample_read and call.grouped and self.spec.verb == "record"),
        )

    def _leaders(self) -> list[PerfEvent]:
        """Those that are enabled: not what is open on this CPU and has failed on another."""
        return [
            event
            for index, event in enumerate(self.events)
            if event is not None and event.leader is event and index not in self.unsupported
        ]

    async def _release(self, cpu: Cpu) -> None:
        for event in self.events:
            if event is not None:
                await self.perf.release(cpu, event)
        for follower in self.followers.values():
            await self.perf.leave(cpu, follower)
        self.events, self.followers = [], {}
        self.buffer = None

    async def _results(self, cpu: Cpu) -> list[Result]:
        readings = await self._read(cpu)
        for index, follower in self.followers.items():
            readings[index] = await self.perf.read_follower(cpu, follower)
        return [self._result(index, event, readings.get(index)) for index, event in enumerate(self.events)]

    async def _read(self, cpu: Cpu) -> dict[int, Reading]:
        """read(2) of every event, by its place.

        perf stat reads a group with one call, by its leader (evsel__read_group: PERF_FORMAT_GROUP); perf record, at its
        end, each by itself (record__read_lost_samples).
        """
        found: dict[int, Reading] = {}
        for index, event in enumerate(self.events):
            if event is None or index in found or index in self.unsupported:
                continue
            if event.siblings and self.spec.verb == "stat":
                group = await self.perf.read_group(cpu, event)
                found |= zip(map(self.events.index, (event, *event.siblings)), group, strict=True)
            else:
                found[index] = await self.perf.read(cpu, event)
        return found

    def _result(self, index: int, event: PerfEvent | None, reading: Reading | None) -> Result:
        if index in self.followers and reading is not None:
            return self._followed(index, self.followers[index], reading)
        if event is None or reading is None or index in self.unsupported:
            return {
                "name": self.spec.events[index].name,
                "unsupported": self.unsupported.get(index, ""),
                **dict.fromkeys(COUNTS, 0),
                "state": OFF,
            }
        family = (event, *event.children)
        read_group = any(one.attr.sample_read for one in (event.leader, *event.leader.siblings))
        carried = {"sampled": event.child_sampled + sum([one.sampled for one in family])} if read_group else {}
        unread = self.spec.verb == "stat" and event.leader.state == ERROR  # end of file, for all of the group
        return {
            "name": event.attr.name,
            "unsupported": "",
            "count": reading.count,
            "truth": reading.truth,
            "held": reading.held,
            "enabled": reading.enabled,
            "running": reading.running,
            "samples": event.child_samples + sum([one.samples for one in family]),
            "state": ERROR if unread else event.state,
            "starved": None if any(one.bits for one in family) else self.perf.starved.get(event.id),
            **carried,
            **self._losses(family, reading),
        }

    def _followed(self, index: int, follower: Follower, reading: Reading) -> Result:
        """Of an event that BPF programs count. If its leader's could be opened on no CPU, perf says that it is not
        supported, and no more."""
        leader, here = follower.leader, self.perf.config.cpu
        event = leader.events.get(here)
        return {
            "name": self.spec.events[index].name,
            "unsupported": leader.why if leader.fails_on <= min(self.perf.shared.covers) else "",
            **{name: getattr(reading, name) for name in COUNTS if name != "samples"},
            "samples": 0,
            "state": INACTIVE,
            "starved": None if event is None or event.bits else self.perf.starved.get(event.id),
        }

    def _losses(self, family: Sequence[PerfEvent], reading: Reading) -> Result:
        """What sampling has cost an event, with its children; those of which there was none are left out."""
        event = family[0]
        losses = {
            "lost": event.lost,
            "lost_count": event.lost_count,
            "missed": event.child_missed + sum([one.overflows_missed for one in family]),
            "throttles": event.child_throttles + sum([one.throttles for one in family]),
            "throttled": reading.withheld,
        }
        return {name: size for name, size in losses.items() if size}
