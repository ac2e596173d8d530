"""Where within KVM's own steps something comes that a scenario's step has said: before operation i of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from services._pmu import OP_WINDOW, Burst
from services.cpu import OPERATION_SHIFT

MARK = OP_WINDOW << OPERATION_SHIFT  # what KVM has not in bursts of its own: the core stops there


Coming = tuple[int, Callable[[], None]]  # before which operation, and what then happens


@dataclass(slots=True)
class Interruptions:
    """What is to come amid the operations that KVM has executed next, and how many those have been.

    They are told apart by whose they are: a vCPU's, by its number, or anybody's on a pCPU (`on_pcpu`). An operation is
    an access, a barrier or a stretch of software time of KVM's own; those of the host's perf are none.
    """

    due: dict[int, list[Coming]] = field(default_factory=dict)  # in order
    operations: dict[int, int] = field(default_factory=dict)

    def take(self, vcpu: int, cpu: int, operations: int) -> list[Coming]:
        """Those that come amid the next `operations`, each with its place among them, in order."""
        if not self.due:
            return []
        found: list[Coming] = []
        for whose in (vcpu, on_pcpu(cpu)):
            first = self.operations.get(whose, 0)
            last = self.operations[whose] = first + operations
            due = self.due.get(whose, [])
            coming = [(at - first, come) for at, come in due if at < last]
            del due[: len(coming)]
            found += coming
        return sorted(found, key=lambda one: one[0])


def on_pcpu(cpu: int) -> int:
    """Whose operations those on a pCPU are."""
    return ~cpu


def marked(burst: Burst, places: list[int]) -> Burst:
    """The burst with a mark before the operations at `places`, in order."""
    codes, operands = burst.arrays()
    for place in reversed(places):
        codes.insert(place, MARK)
    return Burst.from_arrays(codes, operands)
