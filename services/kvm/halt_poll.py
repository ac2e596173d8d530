"""How long a halted vCPU polls before it blocks: `vcpu->halt_poll_ns` (virt/kvm/kvm_main.c, Linux 6.12)."""

from __future__ import annotations

from dataclasses import dataclass

from services.state import derived

GROW_START_NS = 10_000  # halt_poll_ns_grow_start
FACTOR = 2  # halt_poll_ns_grow and halt_poll_ns_shrink


@dataclass(slots=True, eq=False)
class HaltPoll:
    """Times in cycles. A vCPU is halted from `begin` to `end`, and polls while `until` is set."""

    limit: int = derived()  # halt_poll_ns, the module's parameter
    grow_start: int = derived()
    length: int = 0
    began: int = -1  # -1: not halted
    until: int = -1  # -1: it does not poll
    polled: int = 0  # in all, in the host's kernel

    @classmethod
    def of(cls, limit: int, frequency_hz: int) -> HaltPoll:
        return cls(limit, GROW_START_NS * frequency_hz // 10**9)

    def begin(self, now: int, alone: bool = True) -> None:
        """kvm_vcpu_halt up to its loop, which is over at once if the vCPU is not `alone` on its CPU."""
        self.began = now
        self.length = min(self.length, self.limit)
        if self.length and alone:
            self.until = now + self.length

    def end(self, now: int) -> None:
        """The rest of kvm_vcpu_halt: the vCPU runs again, and what it has waited decides how long it polls next."""
        if self.began < 0:
            return
        halted = now - self.began
        self.began = self.until = -1
        if halted <= self.length:
            return
        if self.length and halted > self.limit:
            self.length //= FACTOR  # shrink_halt_poll_ns
            if self.length < self.grow_start:
                self.length = 0
        elif self.length < self.limit and halted < self.limit:
            self.length = max(FACTOR * self.length, self.grow_start)  # grow_halt_poll_ns
