"""`perf stat -I` of the host: the process that wakes at each interval to read its events, and prints what they say."""

from __future__ import annotations

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
    blocked: bool = True  # in poll
    finished: bool = False


class PerfProcess(PerfProcessState, HostThread):
    """It takes the CPU of its events each time: affinity__set does that for `-a`, a CPU after the other.

    There it reads without an IPI. Of a thread that it takes the CPU from no counter is read: its events are off.
    """

    DERIVED = ("pcpu", "child", "machine")
    __slots__ = DERIVED

    floats: ClassVar[bool] = False
    what: ClassVar[str] = "a process of the host"

    def __init__(self, board: Board, thread_id: int, pcpu: PCpu, interval: int, child: HostTask | None) -> None:
        super().__init__(thread_id, pcpu.cpu, interval)
        self.pcpu = pcpu
        self.child = child  # the program under it, if it has started one
        self.machine = board.machine
        pcpu.rq.sleepers.append((pcpu.now + interval, thread_id))

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
            pcpu.rq.sleep(pcpu.now + self.interval, self.id)
        await pcpu.serve_interrupts(2)

    def kill(self) -> None:
        """It ends: it could not open its events."""
        self.finished = True
        self.pcpu.rq.stay_asleep(self.id)

    def save(self) -> state.Saved:
        return state.save(self)

    def restore(self, saved: state.Saved) -> None:
        """Take up what `save` gave."""
        state.restore(self, saved)
