"""A vCPU's virtual interrupts: its PMU's, SGIs, and those of its timers (Linux vgic, arch_timer)."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.cpu import NEVER
from services.kvm.latency import Latencies
from services.state import derived


@dataclass(slots=True, eq=False)
class Vgic:
    """What is pending for the guest."""

    line: bool = False  # level of the PMU interrupt as of the last entry
    injected: int = 0  # how often it rose
    overflowed: int = -1  # when the host's line rose for an overflow that the guest's handler has not been entered for
    latencies: Latencies = field(default_factory=Latencies)  # from there to the handler
    sgis: int = 0  # one bit each
    expired: int = 0  # timers, one bit each
    timers: dict[int, int] = field(default_factory=dict)  # deadlines
    timer_deadline: int = derived(default=NEVER)  # the earliest of them

    def derive(self) -> None:
        """Make anew what follows from the timers: after a restore, too."""
        self.timer_deadline = min(self.timers.values(), default=NEVER)

    @property
    def pending(self) -> bool:
        return self.line or bool(self.sgis or self.expired)

    def overflow(self, raised: int) -> None:
        """The host has found an overflow of the guest's, for which its line rose at `raised`."""
        if self.overflowed < 0:
            self.overflowed = raised

    def handler_entered(self, now: int) -> None:
        """The guest's PMU interrupt handler begins."""
        if self.overflowed >= 0:
            self.latencies.add(self.overflowed, now)
            self.overflowed = -1

    def take_sgi(self) -> int:
        """The lowest SGI that is pending, which is no longer."""
        sgi = (self.sgis & -self.sgis).bit_length() - 1
        self.sgis &= self.sgis - 1
        return sgi

    def take_timers(self) -> int:
        """The timers that have expired, which are no longer pending."""
        expired, self.expired = self.expired, 0
        return expired

    def set_timer(self, timer: int, deadline: int) -> None:
        """The guest sets a timer. It is a level: what has not been delivered is taken back."""
        self.timers[timer] = deadline
        self.expired &= ~(1 << timer)
        self.derive()

    def expire(self, now: int) -> None:
        """The interrupt of every timer whose time has come is pending from now on."""
        for timer, deadline in self.timers.items():
            if deadline <= now:
                self.timers[timer] = NEVER
                self.expired |= 1 << timer
        self.derive()
