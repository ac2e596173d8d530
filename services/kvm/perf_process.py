"""`perf stat -I` of the host: the process that wakes at each interval to read its events, and prints what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import orjson

from services import state
from services._pmu import CPUTIME_HOST_KERNEL
from services.cpu import EntryKind
from services.kvm.bill import Account
from services.kvm.board import Board
from services.kvm.host_task import HostTask
from services.kvm.pcpu import PCpu
from services.kvm.thread import HostThread


@dataclass(slots=True, eq=False)
class PerfProcessState:
    """What the process has to keep between two interactions."""

    id: int
    cpu: int
    interval: int  # cycles
    blocked: bool = True  # in poll, or on its way to the next pCPU
    finished: bool = False
    goes_to: tuple[int, int] | None = None  # as soon as it is off this pCPU: which, and when in cycles


class PerfProcess(PerfProcessState, HostThread):
    """It takes the CPUs of its events each time, one after the other (affinity__set), and polls when it is through.

    There it reads without an IPI. Of a thread that it takes the CPU from no counter is read: its events are off.
    """

    DERIVED = ("pcpus", "child", "machine")
    __slots__ = DERIVED

    floats: ClassVar[bool] = False
    what: ClassVar[str] = "a process of the host"

    def __init__(
        self, board: Board, thread_id: int, pcpus: Sequence[PCpu], interval: int, child: HostTask | None
    ) -> None:
        """`pcpus`: those of its events, in the order in which it reads."""
        first = pcpus[0]
        super().__init__(thread_id, first.cpu, interval)
        self.pcpus = {pcpu.cpu: pcpu for pcpu in pcpus}
        self.child = child  # the program under it, if it has started one
        self.machine = board.machine
        first.rq.sleepers.append((first.now + interval, thread_id))

    @property
    def pcpu(self) -> PCpu:
        return self.pcpus[self.cpu]

    def runnable(self) -> bool:
        return not (self.finished or self.blocked)

    def unblock(self) -> None:
        self.blocked = False

    def set_task_cpu(self, cpu: int) -> None:
        raise ValueError(f"the perf process {self.id} reads on pCPU {self.cpu}")

    def next_interaction(self) -> int:
        return self.pcpu.now

    async def switched_in(self) -> None:
        self.machine.set_account(self.cpu, Account.KERNEL)

    async def switched_out(self) -> None:
        """Its time is the kernel's throughout: what it does at EL0 is not modelled."""
        self.machine.set_cputime(self.cpu, CPUTIME_HOST_KERNEL)
        if self.goes_to is not None:
            (self.cpu, when), self.goes_to = self.goes_to, None
            self.pcpu.rq.sleep(when, self.id)

    async def step(self) -> None:
        """process_interval, and poll again; at the end of the program under it for the last time (dispatch_events)."""
        pcpu, last = self.pcpu, self.child is not None and self.child.finished
        pcpu.enter_kernel()
        await pcpu.enter_host(EntryKind.REQUEST, el=2, payload=orjson.dumps({"interval": self.id, "last": last}))
        pcpu.rq.stay_asleep(self.id)
        if last:
            self.finished = True
        else:
            self.blocked = True
            self._go_on()
        await pcpu.serve_interrupts(2)

    def _go_on(self) -> None:
        """To the next pCPU or, from the last, to sleep on the first."""
        pcpu, cpus = self.pcpu, [*self.pcpus]
        following = cpus.index(self.cpu) + 1
        if following < len(cpus):
            self.goes_to = cpus[following], pcpu.now
        elif following > 1:
            self.goes_to = cpus[0], pcpu.now + self.interval
        else:
            pcpu.rq.sleep(pcpu.now + self.interval, self.id)

    def comes_to(self, cpu: int) -> bool:
        return cpu in self.pcpus

    def kill(self) -> None:
        """It ends: it could not open its events."""
        self.finished = True
        self.pcpu.rq.stay_asleep(self.id)

    def save(self) -> state.Saved:
        return state.save(self)

    def restore(self, saved: state.Saved) -> None:
        """Take up what `save` gave."""
        state.restore(self, saved)
