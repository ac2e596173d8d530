"""`perf record`'s own process on the host: asleep until a ring buffer of its session wakes it, then it writes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from services import state
from services._pmu import CPUTIME_HOST_KERNEL
from services.costs import Cost
from services.kvm.bill import Account
from services.kvm.board import Board
from services.kvm.errors import ProtocolError
from services.kvm.pcpu import PCpu
from services.kvm.thread import HostThread, Thread
from services.linux_perf import RECORDS_PAGE

MOST = 4096  # processes: a host that names more is not ours


@dataclass(slots=True, eq=False)
class PerfReaderState:
    """What such a process has to keep between two interactions."""

    id: int
    cpu: int
    number: int  # as the host's perf counts them
    ran: bool = False
    blocked: bool = True
    pages: int = 0  # that it has found and not yet written


class PerfReader(PerfReaderState, HostThread):
    """One session's, on whichever pCPU the scheduler has it.

    record__mmap_read_all, again and again until there is nothing new, then poll: all of it in system calls. An
    interrupt is taken after each page.
    """

    DERIVED = ("pcpus", "machine")
    __slots__ = DERIVED

    floats: ClassVar[bool] = True
    what: ClassVar[str] = "a process of perf"

    def __init__(self, board: Board, thread_id: int, cpu: int, number: int, pcpus: Sequence[PCpu]) -> None:
        super().__init__(thread_id, cpu, number)
        self.pcpus = pcpus
        self.machine = board.machine

    def runnable(self) -> bool:
        return not self.blocked

    def unblock(self) -> None:
        self.blocked = False

    def set_task_cpu(self, cpu: int) -> None:
        self.cpu = cpu

    def next_interaction(self) -> int:
        return self.machine.now(self.cpu)

    async def switched_in(self) -> None:
        self.ran = True
        self.machine.set_account(self.cpu, Account.KERNEL)

    async def switched_out(self) -> None:
        """Nothing of it is on the CPU."""

    async def step(self) -> None:
        """A page, or a look at the buffers, whose records of the look before are through."""
        pcpu = self.pcpus[self.cpu]
        pcpu.enter_kernel()
        if self.pages:
            self.pages -= 1
            pcpu.charge(Cost.PERF_READER_PAGE)
        else:
            found = await pcpu.read_buffers(self.number)
            self.pages = -(-found // RECORDS_PAGE)
            self.blocked = not found
            pcpu.charge(Cost.PERF_READER)
        if pcpu.interrupt_pending():
            self.machine.interrupt_cputime(self.cpu)
            await pcpu.serve_interrupts(2)
            self.machine.set_cputime(self.cpu, CPUTIME_HOST_KERNEL)

    def comes_to(self, cpu: int) -> bool:
        return cpu == self.cpu

    def kill(self) -> None:
        raise ProtocolError(f"thread {self.id} is a process of perf, not a task that it starts")

    def save(self) -> state.Saved:
        return state.save(self)

    def restore(self, saved: state.Saved) -> None:
        """Take up what `save` gave."""
        state.restore(self, saved)


class PerfReaders:
    """Those of the scenario's sessions, and of clients' from their first wake-up on: they have slept until then."""

    DERIVED = ("board", "pcpus", "threads", "known")
    __slots__ = DERIVED

    def __init__(self, board: Board, pcpus: Sequence[PCpu], threads: list[Thread], sessions: int) -> None:
        """`sessions`: that record on the host, as the scenario has them. The host's perf counts these first."""
        self.board = board
        self.pcpus = pcpus
        self.threads = threads
        self.known: list[PerfReader] = []
        for number in range(sessions):
            self.add(0, number)

    def wake(self, number: int, cpu: int) -> None:
        """perf_event_wakeup on pCPU `cpu` for the process `number`. Raises ProtocolError."""
        if not 0 <= number < MOST:
            raise ProtocolError(f"there is no perf process {number}, only 0 to {MOST - 1}")
        reader = next((one for one in self.known if one.number == number), None) or self.add(cpu, number)
        pcpu = self.pcpus[cpu]
        if not reader.ran and reader.blocked:
            reader.cpu = cpu
        if pcpu.rq.current is reader:
            reader.unblock()
        elif reader.cpu == cpu:
            pcpu.rq.wake(reader)
        else:
            self.pcpus[reader.cpu].rq.arrive(pcpu.now, reader.id)

    def add(self, cpu: int, number: int) -> PerfReader:
        """The process `number`, as the host's last thread so far."""
        reader = PerfReader(self.board, len(self.threads), cpu, number, self.pcpus)
        self.known.append(reader)
        self.threads.append(reader)
        return reader
