"""Who executes the bursts of software: the core, which leaves what it stops for to the CPU that they run on."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

from services._pmu import OP_USER_MRS, OP_USER_MSR, Burst, Executor, Machine, Stop
from services.cpu import OPERATION_SHIFT, TookException

TRAP, EXCEPTION, OPERATION, INTERRUPT = Stop.TRAP, Stop.EXCEPTION, Stop.OPERATION, Stop.INTERRUPT

Work = Coroutine[Any, Any, None]
Due = Coroutine[Any, Any, int | None]  # what a stop waits for; the value of a trapped access, or None to retry it


class BurstCpu(Protocol):
    """A CPU says what becomes of each thing at which the core stops.

    What it does not execute, and a stop that it cannot have, it refuses with a `services.cpu.BurstError`.
    """

    def trapped(self, register: int, write: bool, value: int, program: bool) -> int | Due:
        """An access trapped to EL2, perhaps of the software's `program` at EL0, and is to be emulated; the value read.
        None, of what is awaited: the access is executed again."""
        ...

    def operation(self, index: int, code: int, argument: int, operand: int) -> Work | None:
        """Perform an operation that the core has left alone: at once, or when what is returned is awaited."""
        ...

    def interrupted(self, stop: Stop) -> Work:
        """An interrupt is pending before the operation, which is executed when this has been awaited."""
        ...

    def program_undefined(self, esr: int) -> None:
        """An access of the software's program, at EL0, took an exception that is its kernel's: the burst ends there."""
        ...


def executor_of(owner: BurstCpu, machine: Machine, context: int, cpu: int, *, interruptible: bool) -> Executor:
    """Executes the bursts of `owner`'s software (`services.cpu.EntryExecutor`), which is `context`, on CPU `cpu`.

    With `interruptible` the core stops where an interrupt is pending, between two operations.
    """

    def wait(executor: Executor, burst: Burst, stop: Stop) -> Coroutine[Any, Any, int]:
        return _execute_on(owner, machine, executor, burst, stop)

    return Executor(
        machine,
        context,
        cpu,
        interruptible=interruptible,
        trapped=owner.trapped,
        operation=owner.operation,
        wait=wait,
    )


async def _execute_on(owner: BurstCpu, machine: Machine, executor: Executor, burst: Burst, stop: Stop) -> int:
    """From a stop on that has to be awaited: the time at the burst's end."""
    while True:
        try:
            value = await _due(owner, stop)
        except TookException as exc:
            if burst.arrays()[0][stop.index] >> OPERATION_SHIFT not in (OP_USER_MRS, OP_USER_MSR):
                raise
            owner.program_undefined(exc.esr)
            return machine.now(executor.cpu)
        at = executor.resume(burst, stop, value)
        if not isinstance(at, Stop):
            return at
        stop = at


def _due(owner: BurstCpu, stop: Stop) -> Due:
    """What is to be awaited before the core goes on."""
    reason = stop.reason
    if reason in (TRAP, OPERATION):
        assert stop.due is not None
        return stop.due
    if reason == INTERRUPT:
        return owner.interrupted(stop)
    if reason == EXCEPTION:
        raise TookException(stop.esr)
    raise ValueError(f"the core stopped for reason {reason}, which is not known here")
