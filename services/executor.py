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

    def trapped(self, register: int, write: bool, value: int) -> Coroutine[Any, Any, int]:
        """An access trapped to EL2 and is to be emulated; the value read."""
        ...

    def operation(self, stop: Stop) -> Work | None:
        """Perform an operation that the core has left alone, at once or by what is returned."""
        ...

    def interrupted(self, stop: Stop) -> Work:
        """An interrupt is pending before the operation, which is executed when this has been awaited."""
        ...


def execute(self: BurstCpu, burst: Burst, answer: bytes) -> Eventual[int]:
    """Execute `burst` to its end; the time in cycles after it, at once if the core does not stop. Raises TookException.

    A method of each `BurstCpu`, which makes it a `services.cpu.Executor`. `answer` is for executors on a stream.
    """
    self.bursts += 1
    stop = self.machine.execute(self.cpu, burst, 0, self.interruptible)
    return _on(self, burst, stop) if isinstance(stop, Stop) else stop


async def _on(self: BurstCpu, burst: Burst, stop: Stop | int) -> int:
    """On from a stop, to the end."""
    machine, cpu, interruptible = self.machine, self.cpu, self.interruptible
    while isinstance(stop, Stop):  # else it is the time
        reason, index = stop.reason, stop.index
        if reason == TRAP:
            value = await self.trapped(stop.register, stop.write, stop.value)
            stop = machine.resume(cpu, burst, index, value, interruptible)
            continue
        if reason == OPERATION:
            work = self.operation(stop)
            if work is not None:
                await work
            index += 1
        elif reason == INTERRUPT:
            await self.interrupted(stop)
        elif reason == EXCEPTION:
            raise TookException(stop.esr)
        else:
            raise ValueError(f"the core stopped for reason {reason}, which is not known here")
        stop = machine.execute(cpu, burst, index, interruptible)
    return stop
