"""A task of the host: user work that competes with the vCPUs for a pCPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import orjson

from services import state
from services._pmu import CPUTIME_HOST_KERNEL, CPUTIME_HOST_USER
from services.boot import NO_PROCESS
from services.cpu import EntryKind
from services.experiment import PhaseSpec, TaskSpec
from services.kvm.bill import Account
from services.kvm.board import Board
from services.kvm.pcpu import PCpu
from services.kvm.thread import HostThread


@dataclass(slots=True, eq=False)
class HostTaskState:
    """What a task has to keep between two interactions."""

    phase: int = 0  # counts over all turns and repetitions
    left: int = 0  # cycles of the phase
    unread: int = 0  # at EL0 since it has last read its counters there
    blocked: bool = False  # asleep
    computed: int = 0  # cycles of work done
    in_kernel: int = 0  # of these, at EL2
    undefined: int = 0  # ESR_EL2 of its read that it was killed for by SIGILL; 0: it was not


class HostTask(HostTaskState, HostThread):
    """Runs its phases `repeat` times over, asleep in between if it is to, then exits."""

    DERIVED = ("id", "pcpu", "spec", "perf", "machine", "context")
    __slots__ = DERIVED

    floats: ClassVar[bool] = False
    what: ClassVar[str] = "a task of the host"

    def __init__(self, board: Board, thread_id: int, pcpu: PCpu, spec: TaskSpec) -> None:
        super().__init__(left=spec.part(0, 0) if spec.phases else 0)
        self.id = thread_id
        self.pcpu = pcpu
        self.spec = spec
        self.perf = NO_PROCESS  # the thread of the perf that has started it, if that prints at intervals
        self.machine = board.machine
        self.context = pcpu.context

    @property
    def cpu(self) -> int:
        return self.pcpu.cpu

    @property
    def finished(self) -> bool:
        return self.phase >= self._of_a_run() * self.spec.repeat

    def runnable(self) -> bool:
        return not (self.finished or self.blocked)

    def unblock(self) -> None:
        self.blocked = False

    def set_task_cpu(self, cpu: int) -> None:
        raise ValueError(f"task {self.spec.name} of the host is pinned to pCPU {self.cpu}")

    def next_interaction(self) -> int:
        """The end of the phase, or the interrupt before it; at once, if it is to be taken off the CPU."""
        if not self.runnable():
            return self.pcpu.now
        phase = self._current()
        self.machine.set_running(self.cpu, self.context, phase.el, phase.profile)
        return self.machine.next_stop(self.cpu, self._stretch(phase))

    async def switched_in(self) -> None:
        self.machine.set_account(self.cpu, Account.KERNEL)
        self._own_time()

    async def switched_out(self) -> None:
        self.machine.set_cputime(self.cpu, CPUTIME_HOST_KERNEL)

    async def step(self) -> None:
        """Work up to the end of the phase or an interrupt."""
        pcpu, phase = self.pcpu, self._current()
        if self.unread == self.spec.read_every and self.unread and not phase.el:
            self.unread = 0
            self.machine.set_running(pcpu.cpu, self.context, 0, phase.profile)
            await pcpu.enter_host(EntryKind.USER, self.id, el=0)
            if self.undefined:
                self._exited()
                return
        stretch = self._stretch(phase)
        done, now, pending = self.machine.work(pcpu.cpu, self.context, phase.el, phase.profile, stretch)
        self.left -= done
        if self.spec.read_every and not phase.el:
            self.unread += done
        self.computed += done
        if phase.el == 2:
            self.in_kernel += done
        if not self.left:
            self.phase += 1
            if not self.finished:
                turn, of_turn = divmod(self.phase, len(self.spec.phases))
                self.left = self.spec.part(of_turn, turn % self.spec.turns)
                self._sleep(now)
            else:
                self._exited()
        if pending:
            self.machine.interrupt_cputime(pcpu.cpu)
            pcpu.enter_kernel()
            await pcpu.serve_interrupts(phase.el)
        self._own_time()

    def comes_to(self, cpu: int) -> bool:
        return cpu == self.cpu

    def kill(self) -> None:
        """By a signal: what is left of its work is not done."""
        self.phase, self.left = self._of_a_run() * self.spec.repeat, 0

    def sigill(self, esr: int) -> None:
        """force_signal_inject."""
        self.undefined = esr
        self.kill()

    def _exited(self) -> None:
        if self.perf != NO_PROCESS:
            self.pcpu.rq.arrive(self.pcpu.now, self.perf)  # SIGCHLD
        elif self.spec.session is not None and self.spec.session.bpf:  # perf's end is felt on every CPU
            self.pcpu.requests.append(orjson.dumps({"exited": self.id}))
            self.pcpu.rearm()

    def _own_time(self) -> None:
        """The time is the task's own, from now on."""
        if self.runnable():
            self.machine.set_cputime(self.cpu, CPUTIME_HOST_KERNEL if self._current().el else CPUTIME_HOST_USER)

    def _sleep(self, now: int) -> None:
        """Between two repetitions."""
        if self.spec.sleep and self.phase % self._of_a_run() == 0:
            self.blocked = True
            self.pcpu.rq.sleep(now + self.spec.sleep, self.id)

    def _stretch(self, phase: PhaseSpec) -> int:
        """The cycles that it works now: up to the end of the phase, or to where it reads its counters."""
        every = self.spec.read_every
        return min(self.left, every - self.unread) if every and not phase.el else self.left

    def _of_a_run(self) -> int:
        """Phases of one repetition."""
        return len(self.spec.phases) * self.spec.turns

    def _current(self) -> PhaseSpec:
        return self.spec.phases[self.phase % len(self.spec.phases)]

    def save(self) -> state.Saved:
        return state.save(self)

    def restore(self, saved: state.Saved) -> None:
        """Take up what `save` gave."""
        state.restore(self, saved)
