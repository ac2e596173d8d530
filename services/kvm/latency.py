"""How long an overflow waits for the handler that owns it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Latencies:
    """From the cycle at which the PMU interrupt line rose to the first instruction of its owner's handler."""

    cycles: list[int] = field(default_factory=list)

    def add(self, raised: int, entered: int) -> None:
        self.cycles.append(entered - raised)

    def summary(self) -> dict[str, int]:
        """`interrupts`, and in cycles `p50`, `p99` (nearest rank) and `max`; only the first where there were none."""
        ordered = sorted(self.cycles)
        count = len(ordered)
        if not count:
            return {"interrupts": 0}
        return {
            "interrupts": count,
            "p50": ordered[(50 * count + 99) // 100 - 1],
            "p99": ordered[(99 * count + 99) // 100 - 1],
            "max": ordered[-1],
        }
