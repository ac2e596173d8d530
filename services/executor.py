"""The loop that runs a burst of software to its end on a CPU of the core."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from services._pmu import Burst, Machine, Stop
from services.cpu import Eventual, TookException
from services.state import derived

TRAP, EXCEPTION, OPERATION, INTERRUPT = Stop.TRAP, Stop.EXCEPTION, Stop.OPERATION, Stop.INTERRUPT

Work = Coroutine[Any, Any, None]
Due = Coroutine[Any, Any, int | None]  # what a stop waits for; the value of a trapped access


class BurstCpu(Protocol):
    """A CPU says what becomes of each thing at which the core stops.

    What it does not execute, and a stop that it cannot have, it refuses with a `services.cpu.BurstError`.
    """

    def trapped(self, register: int, write: bool, value: int) -> Eventual[int]:
        """An access trapped to EL2 and is to be emulated; the value read. The core calls it."""
        ...

    def operation(self, stop: Stop) -> Work | None:
        """Perform an operation that the core has left alone: at once, or when what is returned is awaited."""
        ...

    def interrupted(self, stop: Stop) -> Work:
        """An interrupt is pending before the operation, which is executed when this has been awaited."""
        ...


@dataclass(slots=True, eq=False)
class BurstExecutor:
    """Executes bursts on the CPU `cpu` of a machine (`services.cpu.EntryExecutor`)."""

    owner: BurstCpu = derived()
    machine: Machine = derived()
    cpu: int = derived()
    interruptible: bool = derived()  # the core stops where an interrupt is pending, between two operations
    bursts: int = 0  # executed: round trips, were the software in a process of its own

    trapped: Callable[[int, bool, int], Eventual[int]] = derived(init=False)

    def __post_init__(self) -> None:
        self.trapped = self.owner.trapped

    def execute(self, burst: Burst) -> Eventual[int]:
        """As `services.cpu.EntryExecutor`."""
        self.bursts += 1
        stop = self.machine.execute(self.cpu, burst, 0, self.interruptible, self.trapped)
        return stop if isinstance(stop, int) else self._go_on(burst, stop)

    def finish(self, burst: Burst, answer: bytes) -> Eventual[int]:
        """As `services.cpu.EntryExecutor`; the `answer` is for executors on a stream."""
        self.bursts += 1
        stop = self.machine.finish(self.cpu, burst, self.interruptible, self.trapped)
        if isinstance(stop, int):
            return stop
        time = self._go_on(burst, stop)
        if isinstance(time, int):
            burst.clear()
        return time

    def _go_on(self, burst: Burst, at: Stop) -> Eventual[int]:
        """From the first stop on."""
        stop: int | Stop = at
        while isinstance(stop, Stop):  # else it is the time
            due = self.owner.operation(stop) if stop.reason == OPERATION else self._attend(stop)
            if due is not None:
                return self._execute_on(burst, stop, due)
            stop = self.machine.resume(self.cpu, burst, stop, None, self.interruptible, self.trapped)
        return stop

    async def _execute_on(self, burst: Burst, stop: int | Stop, due: Due | None) -> int:
        """From the first stop on that has to be awaited."""
        while isinstance(stop, Stop):
            value = None if due is None else await due
            stop = self.machine.resume(self.cpu, burst, stop, value, self.interruptible, self.trapped)
            due = self._attend(stop) if isinstance(stop, Stop) else None
        return stop

    def _attend(self, stop: Stop) -> Due | None:
        """Do that for which the core has stopped, now or when it is awaited; a trapped access then gives its value."""
        reason = stop.reason
        if reason == OPERATION:
            return self.owner.operation(stop)
        if reason == TRAP:
            return stop.due
        if reason == INTERRUPT:
            return self.owner.interrupted(stop)
        if reason == EXCEPTION:
            raise TookException(stop.esr)
        raise ValueError(f"the core stopped for reason {reason}, which is not known here")
