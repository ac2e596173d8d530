"""What a design gives up by its nature: said by itself, for whoever prints or counts what the judge has found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from services.judge.invariants import INVARIANTS
from services.result import Victim

__all__ = ["Declared", "Victim", "given_up"]


@dataclass(frozen=True, slots=True)
class Declared:
    """An invariant that is given up towards a victim. Raises ValueError for one that there is not."""

    invariant: str  # "I4"
    victim: Victim
    reason: str  # what of the design's nature it is, in words that stand behind "declared: "

    def __post_init__(self) -> None:
        if self.invariant not in INVARIANTS:
            raise ValueError(f"no invariant {self.invariant!r}, there are {', '.join(INVARIANTS)}")


def given_up(victim: Victim, reason: str, invariants: Iterable[str] = INVARIANTS) -> tuple[Declared, ...]:
    """Several invariants for one reason, all by default."""
    return tuple(Declared(invariant, victim, reason) for invariant in invariants)
