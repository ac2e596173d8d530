"""One experiment under one design: builds what takes part, and says whose turn it is in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import trio

from services import experiment as ex
from services import typed_json
from services.boot import NO_PROCESS, ArmPmu, CpuSession, GuestBoot, HostBoot, ThreadSession
from services.core_pmus import core_pmus
from services.kvm import designs, outcome, parameter, without_pmu
from services.kvm.attendant import Attendant
from services.kvm.board import Board
from services.kvm.errors import Livelock
from services.kvm.host_task import HostTask
from services.kvm.interruption import Interruptions
from services.kvm.judging import Judging
from services.kvm.pcpu import PCpu
from services.kvm.perf_process import PerfProcess
from services.kvm.perf_reader import PerfReaders
from services.kvm.preemption import rest
from services.kvm.requests import Requests
from services.kvm.runqueue import RunQueue
from services.kvm.script import Script
from services.kvm.stepped import SteppedPCpu, SteppedVCpu
from services.kvm.thread import Thread
from services.kvm.vcpu import VCpu
from services.registers import PMCEID0_EL0, PMCEID1_EL0
from services.state import Objects, Saved

CHECKPOINT_EVERY = 256  # interactions between two trio checkpoints: some milliseconds


class Simulation:
    """All pCPUs in virtual-time order, and the threads on them."""

    DERIVED = (
        "board",
        "design",
        "pmus",
        "fallbacks",
        "threads",
        "pcpus",
        "alone",
        "vcpus",
        "tasks",
        "readers",
        "processes",
        "shared_processes",
        "at_boot",
        "requests",
        "script",
        "judging",
        "hung",
        "entered",
    )
    __slots__ = DERIVED

    def __init__(self, experiment: ex.Experiment) -> None:
        self.pmus = core_pmus(experiment.cpus)
        self.design = designs.make(experiment.design, experiment.guests)
        self.fallbacks = designs.fallbacks(self.design, experiment)
        self.board = board = Board.of(experiment)
        self.threads: list[Thread] = []
        self.pcpus: list[PCpu] = []
        queues: list[RunQueue] = []
        interruptions = Interruptions()
        stepped = bool(experiment.steps)
        new_pcpu = SteppedPCpu if stepped else PCpu
        shared = not experiment.guests or any(guest.pmuver for guest in experiment.guests)
        host_policy = self.design.host_policy if shared else without_pmu.host_policy
        for cpu in range(len(experiment.cpus)):
            context = board.machine.add_context(False)
            arm_pmu = self._arm_pmu(cpu)
            self.pcpus.append(new_pcpu(board, cpu, context, host_policy, self.threads, queues, arm_pmu, self.pcpus))
            queues.append(self.pcpus[cpu].rq)
        for time, reserved in parameter.effective(self.design, experiment):
            for pcpu in self.pcpus:
                pcpu.parameter_writes.append((time, reserved[pcpu.cpu]))
        self.alone = self.pcpus[0] if len(self.pcpus) == 1 else None  # the pCPU whose turn it always is
        self.vcpus: list[VCpu] = []
        new_vcpu = partial(SteppedVCpu, interruptions) if stepped else VCpu
        for vm in range(len(experiment.guests)):
            self._add_guest(vm, new_vcpu)
        self.tasks: list[HostTask] = []
        for pcpu in self.pcpus:
            self._add_tasks(pcpu)
            pcpu.host_has_events |= any(session.bpf for session in experiment.host_sessions())
        self.processes: list[PerfProcess] = []
        self.shared_processes: dict[str, int] = {}  # those of sessions on several pCPUs, by the session's name
        for pcpu in self.pcpus:
            pcpu.boot = typed_json.dumps(self._host_boot(pcpu))
        self.readers = PerfReaders(board, self.pcpus, self.threads, len(experiment.host_recording()))
        for pcpu in self.pcpus:
            pcpu.wake_reader = self.readers.wake
        self.requests = Requests(board, self.design, self.pcpus, self.vcpus, self._perf_process)
        self.script = Script.of(board, self.design, self.pcpus, self.vcpus, interruptions) if stepped else None
        self.at_boot = len(self.threads), len(self.readers.known), len(self.processes)
        self.judging = Judging(board, self.design, self.vcpus)
        self.hung = ""  # why nobody gets anywhere any more, which is a violation of I12; there is no state then
        self.entered = False  # a handler is running, or a vCPU preempted in one of KVM's, so not all state is data

    def _add_guest(self, vm: int, new_vcpu: Callable[..., VCpu]) -> None:
        siblings: list[VCpu] = []
        for index, spec in enumerate(self.board.experiment.guests[vm].vcpus):
            vcpu = new_vcpu(
                self.board,
                self.design,
                len(self.threads),
                vm,
                index,
                self.board.experiment.first_pcpu(spec, len(self.vcpus)),
                pcpus=self.pcpus,
                siblings=siblings,
                boot=typed_json.dumps(self._guest_boot(vm, index)),
            )
            siblings.append(vcpu)
            self.vcpus.append(vcpu)
            self._add(vcpu, vcpu.pcpu, has_events=bool(spec.host_sessions))

    def _add_tasks(self, pcpu: PCpu) -> None:
        host = self.board.experiment.host.cpus[pcpu.cpu]
        pcpu.host_has_events |= bool(host.sessions)
        for spec in host.tasks:
            task = HostTask(self.board, len(self.threads), pcpu, spec)
            self.tasks.append(task)
            self._add(task, pcpu, has_events=spec.session is not None)

    def _add(self, thread: Thread, pcpu: PCpu, *, has_events: bool) -> None:
        self.threads.append(thread)
        pcpu.rq.waiting.append(thread)
        pcpu.host_has_events |= has_events

    # What actors are booted with.

    def _host_boot(self, pcpu: PCpu) -> HostBoot:
        """For the host's perf on one pCPU."""
        experiment, cpu = self.board.experiment, pcpu.cpu
        host = experiment.host
        of_tasks = [
            self._thread_session(task.id, task.spec.session, self._perf_process([pcpu], task.spec.session, task))
            for task in self.tasks
            if task.cpu == cpu and task.spec.session is not None
        ]
        of_vcpus = [
            self._thread_session(vcpu.id, session, self._shared_process(session))
            for vcpu in self.vcpus
            if vcpu.cpu == cpu
            for session in experiment.guests[vcpu.vm].vcpus[vcpu.index].host_sessions
        ]
        return HostBoot(
            cpu=cpu,
            frequency_hz=experiment.frequency_hz,
            costs=experiment.costs,
            hz=host.hz,
            mux_interval=host.mux_interval,
            sysctls=host.sysctls,
            group_throttle=host.group_throttle,
            observed=experiment.judged,
            features=pcpu.spec,
            arm_pmu=pcpu.arm_pmu,
            pmus=tuple(self._probed(pmu.cpus) for pmu in self.pmus),
            policy=pcpu.policy,
            sessions=tuple(
                CpuSession(session, self._shared_process(session), self._cpus_of(session))
                for session in host.cpus[cpu].sessions
            ),
            threads=(*of_tasks, *of_vcpus),
            vcpu_threads=tuple(vcpu.id for vcpu in self.vcpus),
            vcpu_pmus=tuple(
                ex.ANY_PMU if self.design.any_pmu else self._arm_pmu(vcpu.siblings[0].cpu) for vcpu in self.vcpus
            ),
        )

    def _probed(self, cpus: tuple[int, ...]) -> ArmPmu:
        first, machine = cpus[0], self.board.machine
        pmceid0, pmceid1 = (machine.peek(first, register) for register in (PMCEID0_EL0, PMCEID1_EL0))
        return ArmPmu(cpus, self.pcpus[first].spec, pmceid0, pmceid1, self.pcpus[first].policy.counters)

    def _cpus_of(self, session: ex.SessionSpec) -> tuple[int, ...]:
        """The CPUs of a session on whole ones."""
        cpus = self.board.experiment.host.cpus
        return tuple(cpu for cpu, of in enumerate(cpus) if any(one.name == session.name for one in of.sessions))

    def _thread_session(self, thread: int, session: ex.SessionSpec, process: int) -> ThreadSession:
        """perf record opens a thread's events on all CPUs, perf stat on none in particular (target__uses_dummy_map)."""
        cpus = range(len(self.pcpus)) if session.verb == "record" else ()
        return ThreadSession(thread, session, process, tuple(cpus))

    def _shared_process(self, session: ex.SessionSpec) -> int:
        """That of the scenario's session, on all pCPUs that it is on or its vCPUs are pinned to."""
        process = self.shared_processes.get(session.name)
        if process is None:
            guests = self.board.experiment.guests
            of_vcpus = {
                vcpu.cpu
                for vcpu in self.vcpus
                if any(one.name == session.name for one in guests[vcpu.vm].vcpus[vcpu.index].host_sessions)
            }
            cpus = sorted({*self._cpus_of(session), *of_vcpus})
            process = self._perf_process([self.pcpus[cpu] for cpu in cpus], session)
            self.shared_processes[session.name] = process
        return process

    def _perf_process(self, pcpus: Sequence[PCpu], session: ex.SessionSpec, child: HostTask | None = None) -> int:
        """The thread of the perf that prints a session's counts at intervals, if one does."""
        if not session.interval:
            return NO_PROCESS
        process = self._add_perf_process(pcpus, session.interval, child)
        if child is not None:
            child.perf = process.id
        return process.id

    def _add_perf_process(self, pcpus: Sequence[PCpu], interval: int, child: HostTask | None = None) -> PerfProcess:
        process = PerfProcess(self.board, len(self.threads), pcpus, interval, child)
        self.threads.append(process)
        self.processes.append(process)
        return process

    def _arm_pmu(self, cpu: int) -> int:
        """The host's PMU that covers a CPU; a VM's is that of the CPU on which its first vCPU is made
        (kvm_arm_set_default_pmu)."""
        return next(number for number, pmu in enumerate(self.pmus) if cpu in pmu.cpus)

    def _guest_boot(self, vm: int, index: int) -> GuestBoot:
        """For a guest's kernel on one vCPU."""
        experiment = self.board.experiment
        guest = experiment.guests[vm]
        return GuestBoot(
            vcpu=index,
            frequency_hz=experiment.frequency_hz,
            costs=experiment.costs,
            guest=guest,
            observed=experiment.judged,
            pmuver=guest.pmuver,
        )

    # Who attends.

    def attend_host(self, cpu: int, software: Attendant) -> None:
        """`software` is the host's perf on pCPU `cpu`."""
        self.pcpus[cpu].host = software

    def attend_guest(self, name: str, index: int, software: Attendant) -> None:
        """`software` is the kernel of VM `name` on its vCPU `index`."""
        for vcpu in self.vcpus:
            if vcpu.name == name and vcpu.index == index:
                vcpu.guest = software

    # Virtual time.

    @property
    def working(self) -> bool:
        """Is there work left: a workload or a perf session of a guest, a task of the host? None is once a violation has
        stopped the run, or it has hung. Raises JudgeFault."""
        if self.hung or self.judging.stopped:
            return False
        if self.script is not None:
            return self.script.working
        for vcpu in self.vcpus:
            if vcpu.working:
                return True
        return bool(self.requests.waiting) or not all(task.finished for task in self.tasks)

    @property
    def now(self) -> int:
        """The time, in cycles, up to which every pCPU has got."""
        return min(pcpu.now for pcpu in self.pcpus)

    async def run(self, progress: Callable[[], None] | None = None, *, every: int = CHECKPOINT_EVERY) -> None:
        """Run until no work is left, or `progress` raises, which is called between two interactions.

        It is called, after a trio checkpoint, before the first interaction and then after `every` of them.
        """
        while self.working:
            await trio.lowlevel.checkpoint()
            if progress is not None:
                progress()
            await self._steps(every)

    async def step(self) -> None:
        """The next interaction: on the pCPU whose own is earliest, ties by number."""
        await self._steps(1)

    async def _steps(self, most: int) -> None:
        """So many interactions, as long as there is work. Where one comes to nothing for good, and that is a violation,
        the run has hung. Raises SimulationError."""
        try:
            for _ in range(most):
                work = self._step()
                if work is not None:
                    await work
                self.entered = self.board.preempted > 0
                if not self.working:
                    return
        except Livelock as exc:
            self._hang(exc)

    def _hang(self, exc: Livelock) -> None:
        if not exc.violated:
            raise exc
        self.hung = str(exc)

    def _step(self) -> Coroutine[Any, Any, object] | None:
        if self.requests.waiting:
            self.requests.take()
        self.board.interactions += 1
        self.entered = True
        work = (self.script or self.alone or min(self.pcpus, key=PCpu.next_interaction)).step()
        if work is None:
            return None
        try:
            trap = work.send(None)
        except StopIteration:  # at once, as nearly always in one process
            return None
        return rest(work, trap)

    def progress(self) -> tuple[int, int]:
        """Cycles of work that tasks have done or will do, and how many of them are left; of a script, steps."""
        if self.script is not None:
            return len(self.script.steps), len(self.script.steps) - self.script.next
        total, left = 0, 0
        for vcpu in self.vcpus:
            tasks = (*self.board.experiment.guests[vcpu.vm].vcpus[vcpu.index].tasks, *self.requests.tasks(vcpu))
            given = sum(map(_cycles, tasks)) - vcpu.undone
            total += given
            left += max(given - vcpu.computed, 0)
        for task in self.tasks:
            rest = 0 if task.finished else _cycles(task.spec) - task.computed
            total += task.computed + rest
            left += rest
        return total, left

    async def result(self) -> dict[str, Any]:
        """Have everybody report; all that is in the digest (`services.kvm.outcome`). Of a run that has hung nobody
        reports: perf never ends."""
        for vcpu in self.vcpus:
            vcpu.want_report()
        while any(vcpu.report_due for vcpu in self.vcpus) and not self.hung:
            await self.step()
        hosts = await self._host_reports()
        if self.hung:
            for vcpu in self.vcpus:
                vcpu.without_report()
        return outcome.result(
            self.board,
            self.pcpus,
            self.vcpus,
            self.tasks,
            hosts=hosts,
            fallbacks=self.fallbacks,
            injected=self.requests.taken,
            steps=None if self.script is None else self.script.told(),
        )

    async def _host_reports(self) -> list[dict[str, Any]]:
        """Of each pCPU."""
        reports: list[dict[str, Any]] = []
        try:
            while len(reports) < len(self.pcpus) and not self.hung:
                self.entered = True
                reports.append(await self.pcpus[len(reports)].report())
                self.entered = False
        except Livelock as exc:
            self._hang(exc)
        return [{} for _ in self.pcpus] if self.hung else reports

    def measured(self, result: dict[str, Any], wall_seconds: float) -> dict[str, Any]:
        """What `result` gave, with its digest and what is outside of that. Raises JudgeFault."""
        written = self.requests.parameters()
        return outcome.measured(
            result,
            wall_seconds,
            self.design,
            self.board.experiment,
            self.pcpus,
            self.vcpus,
            written,
            {**self.judging.found(), "hung": self.hung},
        )

    # State.

    def state(self) -> dict[str, Any]:
        """Everything of kvm, as JSON-able data; the experiment is not in it. Not while `entered`: not all is data."""
        return {
            "board": self.board.save(),
            "pcpus": [pcpu.save() for pcpu in self.pcpus],
            "vcpus": [vcpu.save() for vcpu in self.vcpus],
            "tasks": [task.save() for task in self.tasks],
            "readers": [reader.save() for reader in self.readers.known],
            "processes": [process.save() for process in self.processes],
            "requests": self.requests.save(),
            "script": None if self.script is None else self.script.save(),
        }

    def _restore_perf(self, readers: list[Saved], processes: list[Saved]) -> None:
        """The processes of perf. Those that began with wake-ups and clients' sessions are made again, in order."""
        if not (readers or processes or self.readers.known or self.processes):
            return
        threads, of_readers, of_processes = self.at_boot
        del self.threads[threads:]
        del self.readers.known[of_readers:]
        del self.processes[of_processes:]
        late = {one["id"]: one for one in (*readers[of_readers:], *processes[of_processes:])}
        for _, one in sorted(late.items()):
            if "interval" in one:
                self._add_perf_process([self.pcpus[one["cpu"]]], one["interval"])
            else:
                self.readers.add(one["cpu"], one["number"])
        for reader, of_reader in zip(self.readers.known, readers, strict=True):
            reader.restore(of_reader)
        for process, of_process in zip(self.processes, processes, strict=True):
            process.restore(of_process)

    def restore(self, saved: dict[str, Any]) -> None:
        """Become what `state` gave, of a simulation of the same experiment. Its software is restored by itself."""
        for vcpu in self.vcpus:
            vcpu.preempted.forget()
        self.board.restore(saved["board"])
        self.judging.restored()
        self.hung = ""
        for vcpu, of_vcpu in zip(self.vcpus, saved["vcpus"], strict=True):
            vcpu.restore(of_vcpu)
        for task, of_task in zip(self.tasks, saved["tasks"], strict=True):
            task.restore(of_task)
        self._restore_perf(saved["readers"], saved["processes"])
        objects: Objects = {Thread: dict(enumerate(self.threads))}  # by id
        for pcpu, of_pcpu in zip(self.pcpus, saved["pcpus"], strict=True):
            pcpu.restore(of_pcpu, objects)
        self.requests.restore(saved["requests"])
        if self.script is not None:
            self.script.restore(saved["script"])
        self.entered = False


def _cycles(task: ex.TaskSpec) -> int:
    return task.repeat * task.threads * sum(phase.cycles for phase in task.phases)
