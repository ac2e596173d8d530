"""The loop that runs a burst of software to its end on a CPU of the core."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

from services._pmu import Burst, Machine, Stop
from services.cpu import Eventual, TookException

TRAP, EXCEPTION, OPERATION, INTERRUPT = Stop.TRAP, Stop.EXCEPTION, Stop.OPERATION, Stop.INTERRUPT

Work = Coroutine[Any, Any, None]
Due = Coroutine[Any, Any, int | None]  # what a stop waits for; the value of a trapped access


class BurstCpu(Protocol):
    """A CPU says what becomes of each thing at which the core stops.

    What it does not execute, and a stop that it cannot have, it refuses with a `services.cpu.BurstError`.
    """

    bursts: int  # that it has executed: round trips, were the software in a process of its own

    @property
    def machine(self) -> Machine: ...

    @property
    def cpu(self) -> int:
        """Of the machine."""
        ...

    @property
    def interruptible(self) -> bool:
        """Does the core stop where an interrupt is pending, between two operations?"""
        ...

    def trapped(self, register: int, write: bool, value: int) -> Eventual[int]:
        """An access trapped to EL2 and is to be emulated; the value read. The core calls it."""
        ...

    def operation(self, stop: Stop) -> Work | None:
        """Perform an operation that the core has left alone: at once, or when what is returned is awaited."""
        ...

    def interrupted(self, stop: Stop) -> Work:
        """An interrupt is pending before the operation, which is executed when this has been awaited."""
        ...


def execute(self: BurstCpu, burst: Burst, answer: bytes) -> Eventual[int]:
    """Execute `burst` to its end; the time in cycles after it. Raises TookException.

    A method of each `BurstCpu`, which makes it a `services.cpu.Executor`. `answer` is for executors on a stream.
    """
    self.bursts += 1
    stop = self.machine.execute(self.cpu, burst, 0, self.interruptible, self.trapped)
    while isinstance(stop, Stop):  # else it is the time
        due = _attend(self, stop)
        if due is not None:
            return _execute_on(self, burst, stop, due)
        stop = self.machine.resume(self.cpu, burst, stop, None, self.interruptible, self.trapped)
    return stop


async def _execute_on(self: BurstCpu, burst: Burst, at: Stop, due: Due) -> int:
    """From the first stop on that has to be awaited."""
    stop = self.machine.resume(self.cpu, burst, at, await due, self.interruptible, self.trapped)
    while isinstance(stop, Stop):
        due_next = _attend(self, stop)
        value = None if due_next is None else await due_next
        stop = self.machine.resume(self.cpu, burst, stop, value, self.interruptible, self.trapped)
    return stop


def _attend(self: BurstCpu, stop: Stop) -> Due | None:
    """Do that for which the core has stopped, at once or when it is awaited; then a trapped access gives its value."""
    reason = stop.reason
    if reason == OPERATION:
        return self.operation(stop)
    if reason == TRAP:
        return stop.due
    if reason == INTERRUPT:
        return self.interrupted(stop)
    if reason == EXCEPTION:
        raise TookException(stop.esr)
    raise ValueError(f"the core stopped for reason {reason}, which is not known here")
