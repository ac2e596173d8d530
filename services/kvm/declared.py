"""What a design gives up by its nature: said by itself, for whoever prints or counts what the judge has found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from services.experiment import Experiment
from services.judge.invariants import INVARIANTS
from services.result import Victim

__all__ = ["Condition", "Declared", "Victim", "always", "given_up", "reasons"]

Condition = Callable[[Experiment], bool]


def always(_: Experiment) -> bool:
    """On every machine, whatever runs there."""
    return True


@dataclass(frozen=True, slots=True)
class Declared:
    """An invariant that is given up towards a victim. Raises ValueError for one that there is not."""

    invariant: str  # "I4"
    victim: Victim
    reason: str  # what of the design's nature it is, and when, in words that stand behind "declared: "
    met: Condition = always  # can it come to that in this experiment? Elsewhere it is not given up

    def __post_init__(self) -> None:
        if self.invariant not in INVARIANTS:
            raise ValueError(f"no invariant {self.invariant!r}, there are {', '.join(INVARIANTS)}")


def given_up(
    victim: Victim, reason: str, invariants: Iterable[str] = INVARIANTS, met: Condition = always
) -> tuple[Declared, ...]:
    """Several invariants for one reason, all by default."""
    return tuple(Declared(invariant, victim, reason, met) for invariant in invariants)


def reasons(declared: Iterable[Declared], experiment: Experiment) -> dict[tuple[str, Victim], str]:
    """What is given up in an experiment, by invariant and victim: all reasons of which the condition is met."""
    found: dict[tuple[str, Victim], str] = {}
    for one in declared:
        if one.met(experiment):
            key = one.invariant, one.victim
            found[key] = f"{found[key]}; {one.reason}" if key in found else one.reason
    return found
