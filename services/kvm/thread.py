"""What the host's scheduler switches: the thread of a vCPU, or a task of the host."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, ClassVar, Protocol

from services.cpu import NEVER
from services.kvm.errors import ProtocolError


class Thread(Protocol):
    """A thread on the pCPU `cpu`."""

    @property
    def id(self) -> int: ...

    @property
    def cpu(self) -> int: ...

    @property
    def at_entry(self) -> bool:
        """Is it a vCPU whose PMU changes hands at every VM entry and exit?"""
        ...

    @property
    def floats(self) -> bool:
        """May it run on any pCPU?"""
        ...

    def runnable(self) -> bool: ...

    @property
    def blocked(self) -> bool: ...

    @property
    def timer_deadline(self) -> int:
        """When a timer of its own interrupts or wakes it, NEVER if none does."""
        ...

    def unblock(self) -> None: ...

    def set_task_cpu(self, cpu: int) -> None:
        """Move it, while it does not run, to another pCPU."""
        ...

    def step(self) -> Coroutine[Any, Any, object] | None:
        """One interaction: a handler run to its end, or a stretch of work up to its end or an interrupt. It is over at
        once, or when what is returned has been awaited."""
        ...

    def next_interaction(self) -> int: ...
    async def switched_in(self) -> None:
        """It is the current thread from now on, and says what the host's cycles are charged to."""
        ...

    async def leave_guest(self) -> None:
        """It is to be switched out: before that, a vCPU leaves the guest if that has something to be done."""
        ...

    async def switched_out(self) -> None: ...
    async def picked_again(self) -> None:
        """schedule() has found nobody else to run."""
        ...

    def comes_to(self, cpu: int) -> bool:
        """Is it on that pCPU, or there from time to time?"""
        ...

    def kill(self) -> None:
        """It ends without having done anything more. Raises ProtocolError for what cannot."""
        ...

    def sigill(self, esr: int) -> None:
        """Its program's read of a counter at EL0 took an exception. Raises ProtocolError for what makes none."""
        ...

    def counter_overflow(self, counter: int, raised: int) -> None:
        """A kernel counter that backs counter `counter` of its guest overflowed, at `raised`. Raises ProtocolError."""
        ...

    def resync_el0(self) -> None:
        """The host's driver has started the PMU in interrupt context while it runs (kvm_vcpu_pmu_resync_el0)."""
        ...

    def guest_overflow(self, mask: int, raised: int) -> bool:
        """The host's handler found overflow flags in the guests' range while it runs. Are they its guest's?"""
        ...

    def pmu_interrupt(self, raised: int) -> None:
        """The PMU's interrupt, which the host does not have, has been acknowledged while it runs."""
        ...


class HostThread:
    """What KVM and the host's driver ask of the current thread, where that is no vCPU's."""

    __slots__ = ()

    id: int
    what: ClassVar[str]  # for errors
    timer_deadline: ClassVar[int] = NEVER  # the run queue wakes it
    at_entry: ClassVar[bool] = False

    async def leave_guest(self) -> None:
        """It is none's."""

    async def picked_again(self) -> None:
        """Nothing has waited for that."""

    def counter_overflow(self, counter: int, raised: int) -> None:
        raise ProtocolError(f"thread {self.id} is {self.what}: KVM has no kernel counters there")

    def sigill(self, esr: int) -> None:
        raise ProtocolError(f"thread {self.id} is {self.what}: it reads no counter at EL0")

    def resync_el0(self) -> None:
        """No vCPU runs, so there is none to ask."""

    def guest_overflow(self, mask: int, raised: int) -> bool:
        return False

    def pmu_interrupt(self, raised: int) -> None:
        """It was under way to a vCPU, whose put has had its line fall."""
