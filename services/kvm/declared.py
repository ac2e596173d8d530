"""What a design gives up by its nature: said by itself, for whoever prints or counts what the judge has found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from services.experiment import Experiment
from services.judge.invariants import INVARIANTS
from services.judge.text import KINDS
from services.result import Victim

__all__ = ["Condition", "Declared", "Victim", "always", "given_up", "reasons"]

Condition = Callable[[Experiment], bool]


def always(_: Experiment) -> bool:
    """On every machine, whatever runs there."""
    return True


@dataclass(frozen=True, slots=True)
class Declared:
    """An invariant that is given up towards a victim, whole or in some of the ways in which it can be broken. Raises
    ValueError for one that there is not."""

    invariant: str  # "I4"
    victim: Victim
    reason: str  # what of the design's nature it is, and when, in words that stand behind "declared: "
    met: Condition = always  # can it come to that in this experiment? Elsewhere it is not given up
    kinds: tuple[str, ...] = ()  # of violations that it comes to; (): all

    def __post_init__(self) -> None:
        if self.invariant not in INVARIANTS:
            raise ValueError(f"no invariant {self.invariant!r}, there are {', '.join(INVARIANTS)}")
        for kind in self.kinds:
            if kind not in KINDS:
                raise ValueError(f"no kind {kind!r} of violation, there are {', '.join(KINDS)}")


def given_up(
    victim: Victim,
    reason: str,
    invariants: Iterable[str] = INVARIANTS,
    met: Condition = always,
    kinds: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> tuple[Declared, ...]:
    """Several invariants for one reason, all by default, and whole but for those with `kinds`."""
    return tuple(Declared(one, victim, reason, met, kinds.get(one, ())) for one in invariants)


def reasons(declared: Iterable[Declared], experiment: Experiment) -> dict[tuple[str, Victim, str], str]:
    """What is given up in an experiment, by invariant, victim and kind: all reasons of which the condition is met."""
    found: dict[tuple[str, Victim, str], str] = {}
    for one in declared:
        if one.met(experiment):
            for kind in one.kinds or KINDS:
                key = one.invariant, one.victim, kind
                found[key] = f"{found[key]}; {one.reason}" if key in found else one.reason
    return found
