"""The loop that runs a burst of software to its end on a CPU of the core."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

from services._pmu import Burst, Machine, Stop
from services.cpu import Eventual, TookException

TRAP, EXCEPTION, OPERATION, INTERRUPT = Stop.TRAP, Stop.EXCEPTION, Stop.OPERATION, Stop.INTERRUPT

Work = Coroutine[Any, Any, None]


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
        """An access trapped to EL2 and is to be emulated; the value read."""
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
    machine, cpu, interruptible = self.machine, self.cpu, self.interruptible
    stop = machine.execute(cpu, burst, 0, interruptible)
    while isinstance(stop, Stop):  # else it is the time
        trap = stop.reason == TRAP  # as most are, by far
        value = self.trapped(stop.register, stop.write, stop.value) if trap else _attend(self, stop)
        if not (value is None or isinstance(value, int)):
            return _execute_on(self, burst, stop, value)
        stop = machine.resume(cpu, burst, stop, value, interruptible)
    return stop


async def _execute_on(self: BurstCpu, burst: Burst, at: Stop, due: Coroutine[Any, Any, int | None]) -> int:
    """From the first stop on that has to be awaited."""
    machine, cpu, interruptible = self.machine, self.cpu, self.interruptible
    stop = machine.resume(cpu, burst, at, await due, interruptible)
    while isinstance(stop, Stop):
        value = _attend(self, stop)
        if not (value is None or isinstance(value, int)):
            value = await value
        stop = machine.resume(cpu, burst, stop, value, interruptible)
    return stop


def _attend(self: BurstCpu, stop: Stop) -> Eventual[int | None]:
    """Do that for which the core has stopped; the value that a trapped access reads."""
    reason = stop.reason
    if reason == TRAP:
        return self.trapped(stop.register, stop.write, stop.value)
    if reason == OPERATION:
        return self.operation(stop)
    if reason == INTERRUPT:
        return self.interrupted(stop)
    if reason == EXCEPTION:
        raise TookException(stop.esr)
    raise ValueError(f"the core stopped for reason {reason}, which is not known here")
