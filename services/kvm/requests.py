"""What live clients ask of a running simulation: checked when it arrives, taken up between interactions, logged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from services import experiment as ex
from services import state, typed_json, workload
from services.boot import CpuSession
from services.core_pmus import core_pmus
from services.errors import UserError
from services.events import UNMAPPED, Software
from services.kvm import parameter
from services.kvm.board import Board
from services.kvm.pcpu import PCpu
from services.kvm.vcpu import VCpu
from services.kvm.vpmu import Design

HOST = "host"  # as the target of a request
MARK = 64  # in the ordered log; entries are marked with their kind

MAX_EVENT = 1 << 16
MAX_CYCLES = 1 << 62  # of all phases and repetitions of a task, and of a sleep


@dataclass(frozen=True, slots=True)
class Request:
    """A task or a perf session, on one CPU of the host or of a guest; or of the host, what an operator writes."""

    target: str  # "host" or a guest's name
    cpu: int
    profiles: tuple[tuple[tuple[int, int], ...], ...] = ()  # what the task's phases index into
    task: ex.TaskSpec | None = None
    session: ex.SessionSpec | None = None
    parameter: ex.ReservedHostCounters | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """A request, and where it took effect."""

    entry: int  # the number of the interaction
    virtual_cycles: int
    request: Request


@dataclass(slots=True)
class RequestsState:
    """Requests in the order in which they came."""

    waiting: list[Request] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)


class Requests(RequestsState):
    """The requests of one simulation."""

    DERIVED = ("board", "design", "pcpus", "vcpus", "perf_process")
    __slots__ = DERIVED

    def __init__(
        self,
        board: Board,
        design: Design,
        pcpus: Sequence[PCpu],
        vcpus: Sequence[VCpu],
        perf_process: Callable[[Sequence[PCpu], ex.SessionSpec], int],
    ) -> None:
        """`perf_process` gives the thread of the host's perf that is to print a session's counts at intervals."""
        super().__init__()
        self.board = board
        self.design = design
        self.pcpus = pcpus
        self.vcpus = vcpus
        self.perf_process = perf_process

    def add(self, request: Request) -> int:
        """It takes effect at the next entry of the CPU concerned. Its number, from 1.

        Raises KeyError for an unknown target or CPU, ValueError for what cannot be simulated.
        """
        self._check(request)
        self.waiting.append(request)
        return len(self.taken) + len(self.waiting)

    def tasks(self, vcpu: VCpu) -> Iterator[ex.TaskSpec]:
        """The tasks that live clients have brought to a guest's vCPU."""
        for taken in self.taken:
            request = taken.request
            if request.task is not None and (request.target, request.cpu) == (vcpu.name, vcpu.index):
                yield request.task

    def parameters(self) -> Iterator[tuple[int, ...]]:
        """What live clients have written to `reserved_host_counters`, of each pCPU."""
        for taken in self.taken:
            if taken.request.parameter is not None:
                yield taken.request.parameter.values

    def take(self) -> None:
        """Take up what is waiting."""
        board = self.board
        for request in self.waiting:
            base = board.profiles
            for rates in request.profiles:
                board.machine.add_profile(rates)
            board.profiles += len(request.profiles)
            if request.parameter is not None:
                pcpu = self.pcpus[request.cpu]
                for one, reserved in zip(self.pcpus, request.parameter.values, strict=True):
                    one.write_parameter(reserved)
            elif request.target == HOST:
                pcpu = self.pcpus[request.cpu]
                pcpu.requests.append(self._host_work(pcpu, request))
                for one in self.pcpus if request.session is not None and request.session.bpf else (pcpu,):
                    one.host_has_events = True
            else:
                vcpu = self._vcpu(request.target, request.cpu)
                pcpu = vcpu.pcpu
                vcpu.requests.append(typed_json.dumps(_work(request, base)))
                vcpu.working = True
                if vcpu.blocked:
                    pcpu.rq.arrive(pcpu.now, vcpu.id)
            pcpu.rearm()
            board.machine.mark(pcpu.cpu, MARK, board.interactions, request.cpu)
            self.taken.append(Taken(board.interactions, pcpu.now, request))
        self.waiting = []

    def _host_work(self, pcpu: PCpu, request: Request) -> bytes:
        assert request.session is not None
        return typed_json.dumps(CpuSession(request.session, self.perf_process([pcpu], request.session), (request.cpu,)))

    def _vcpu(self, name: str, index: int) -> VCpu:
        for vcpu in self.vcpus:
            if vcpu.name == name and vcpu.index == index:
                return vcpu
        raise KeyError(f"no vCPU {index} of a guest {name!r}")

    def _check(self, request: Request) -> None:
        if self.board.experiment.steps:
            raise ValueError("work: the scenario has steps, in whose place nobody does anything")
        for index, profile in enumerate(request.profiles):
            _check_profile(profile, f"profiles[{index}]")
        if [request.task, request.session, request.parameter].count(None) != 2:
            raise ValueError("work: give a task, a session or a parameter, and one of them")
        session, where = request.session, "session"
        if request.task is not None:
            _check_task(request.task, len(request.profiles))
            session, where = request.task.session, "task.session"
        if session is not None:
            experiment = self.board.experiment
            pmus = len(core_pmus(experiment.cpus)) if request.target == HOST else 1
            _check_session(session, where, experiment.events, pmus)
        if request.target != HOST:
            self._vcpu(request.target, request.cpu)
            if request.parameter is not None:
                raise ValueError("parameter: reserved_host_counters is the host's")
        elif not 0 <= request.cpu < len(self.pcpus):
            raise KeyError(f"the host has {len(self.pcpus)} pCPUs, there is no {request.cpu}")
        elif request.parameter is not None:
            self._check_parameter(request.parameter)
        elif self.pcpus[request.cpu].offline:
            raise ValueError(f"cpu: pCPU {request.cpu} is offline (ENODEV)")
        elif session is not None and session.interval and self.board.experiment.host.cpus[request.cpu].offline:
            raise ValueError(f"{where}.interval: pCPU {request.cpu} goes offline, perf could not read there")
        elif request.task is not None:
            raise ValueError("task: the host takes perf sessions only; its tasks are the scenario's")

    def _check_parameter(self, written: ex.ReservedHostCounters) -> None:
        experiment = self.board.experiment
        if len(written.values) != len(self.pcpus):
            raise ValueError(f"parameter.values: {len(written.values)} of them, for {len(self.pcpus)} pCPUs")
        if min(written.values) < ex.NO_PARTITION:
            raise ValueError(f"parameter.values: {min(written.values)}, where -1 is no partition")
        why = parameter.refused(self.design, experiment, written.values)
        if why:
            raise ValueError(f"parameter.values: {why}")

    def save(self) -> state.Saved:
        return state.save(self)

    def restore(self, saved: state.Saved) -> None:
        """Take up what `save` gave."""
        state.restore(self, saved)


def _work(request: Request, base: int) -> dict[str, Any]:
    """What the software is asked for, its profiles numbered as the machine has them from `base` on."""
    if request.task is None:
        return {"session": request.session}
    phases = tuple(replace(phase, profile=phase.profile + base) for phase in request.task.phases)
    return {"task": replace(request.task, phases=phases)}


def _check_profile(profile: tuple[tuple[int, int], ...], where: str) -> None:
    for event, rate in profile:
        if not 0 <= event < MAX_EVENT:
            raise ValueError(f"{where}.events: event numbers have 16 bits, {event:#x} has more")
        if rate < 0:
            raise ValueError(f"{where}.rates: {rate / workload.ONE:g} occurrences per cycle")
        try:
            workload.check(event, rate)
        except UserError as exc:
            raise ValueError(f"{where}.rates: {exc}") from None


def _check_task(task: ex.TaskSpec, profiles: int) -> None:
    for index, phase in enumerate(task.phases):
        if not 0 <= phase.profile < profiles:
            raise ValueError(f"task.phases[{index}].profile: {phase.profile} is not among the request's profiles")
        if phase.cycles < 1 or phase.el not in (0, 1):
            raise ValueError(f"task.phases[{index}]: a phase takes at least 1 cycle, at exception level 0 or 1")
    if task.repeat < 1 or task.sleep < 0:
        raise ValueError("task.repeat, task.sleep: at least 1 repetition, and no negative time")
    if not 1 <= task.turns <= min((phase.cycles for phase in task.phases), default=1):
        raise ValueError(f"task.turns: at least 1, and a cycle of each phase in each, not {task.turns}")
    if not 1 <= task.threads <= ex.MAX_THREADS:
        raise ValueError(f"task.threads: 1 to {ex.MAX_THREADS}, not {task.threads}")
    if task.repeat * (task.sleep + sum(phase.cycles for phase in task.phases)) > MAX_CYCLES:
        raise ValueError(f"task: it would take more than {MAX_CYCLES} cycles in all")


def _check_session(session: ex.SessionSpec, where: str, tallied: tuple[int, ...], pmus: int) -> None:
    if session.interval and (session.verb != "stat" or not 0 < session.interval < 1 << 63):
        raise ValueError(f"{where}.interval: it is perf stat's, and at least 1 cycle")
    if session.verb not in ("stat", "record"):
        raise ValueError(f"{where}.verb: it should be stat or record, not {session.verb!r}")
    for index, event in enumerate(session.events):
        if event.software:
            if event.event not in [*Software]:
                raise ValueError(f"{where}.events[{index}].event: there is no software event {event.event}")
        elif event.event not in tallied and not (event.generic and event.event == UNMAPPED):
            raise ValueError(f"{where}.events[{index}].event: {event.event:#x} is not simulated here")
        if not ex.ANY_PMU <= event.pmu < pmus:
            raise ValueError(f"{where}.events[{index}].pmu: there are {pmus}, from 0, and no {event.pmu}")
        if not 0 <= event.leader <= index:
            raise ValueError(f"{where}.events[{index}].leader: {event.leader} is not an event before it or itself")
        if not (0 <= event.frequency < 1 << 63 and 0 <= event.period < 1 << 63):
            raise ValueError(f"{where}.events[{index}]: frequency and period are 0 to 2**63 - 1")
