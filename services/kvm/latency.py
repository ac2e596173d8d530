"""How long something took, each time: an overflow until the handler that owns it runs, a vcpu_load, a vcpu_put."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Latencies:
    """Of an interrupt: from the cycle at which the line rose to the first instruction of its owner's handler."""

    times: dict[int, int] = field(default_factory=dict)  # how often, by length in cycles

    def add(self, began: int, ended: int) -> None:
        length, times = ended - began, self.times
        times[length] = times.get(length, 0) + 1

    def summary(self) -> dict[str, int]:
        """How many (`times`), and if any, in cycles: `p50`, `p99` (nearest rank) and `max`."""
        count = sum(self.times.values())
        if not count:
            return {"times": 0}
        return {"times": count, "p50": self._percentile(50), "p99": self._percentile(99), "max": max(self.times)}

    def _percentile(self, percent: int) -> int:
        rank = (percent * sum(self.times.values()) + 99) // 100
        for length in sorted(self.times):
            rank -= self.times[length]
            if rank <= 0:
                break
        return length
