"""How long something took, each time: an overflow until the handler that owns it runs, a vcpu_load, a vcpu_put."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Latencies:
    """Of an interrupt: from the cycle at which the line rose to the first instruction of its owner's handler."""

    cycles: list[int] = field(default_factory=list)

    def add(self, began: int, ended: int) -> None:
        self.cycles.append(ended - began)

    def summary(self) -> dict[str, int]:
        """How many (`times`), and if any, in cycles: `p50`, `p99` (nearest rank) and `max`."""
        ordered = sorted(self.cycles)
        count = len(ordered)
        if not count:
            return {"times": 0}
        return {
            "times": count,
            "p50": ordered[(50 * count + 99) // 100 - 1],
            "p99": ordered[(99 * count + 99) // 100 - 1],
            "max": ordered[-1],
        }
