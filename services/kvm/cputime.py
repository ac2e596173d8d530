"""Whose time it is, as the host kernel's own bookkeeping has it (Linux kernel/sched/cputime.c)."""

from __future__ import annotations

from dataclasses import dataclass, field

GUEST, HOST_KERNEL, HOST_USER, IDLE = range(4)
NAMES = ("guest", "host_kernel", "host_user", "idle")


@dataclass(slots=True)
class CpuTime:
    """Of one pCPU, in cycles."""

    spent: list[int] = field(default_factory=lambda: [0] * len(NAMES))
    whose: int = IDLE
    since: int = 0

    def switch(self, whose: int, now: int) -> None:
        """From `now` on the time is `whose`."""
        self.spent[self.whose] += now - self.since
        self.whose, self.since = whose, now
