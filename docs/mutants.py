"""Search for the mutants of tests/mutants, and bring the tables of `docs/mutants.md` up to date.

python -m docs.mutants                    # all, for twenty minutes of one core
python -m docs.mutants --kept             # none: the page alone, by what was found before
python -m docs.mutants B46 N10            # these, and their rows are printed
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from docs.invariants import filled
from tests.mutants.drawn import BLIND, MUTANTS, SKIPPED
from tests.mutants.explained import NOT_A_MUTANT, NOT_FOUND
from tests.mutants.hunt import Hunted, hunt, keep, kept
from tests.mutants.table import TABLE

PAGE = Path(__file__).with_suffix(".md")
HEADER = ("", "Defect", "Found", "Invariants", "Steps", "Deck, world", "By", "s", "Blind")


def row(name: str, hunted: Hunted) -> tuple[str, ...]:
    """Of the table."""
    shortest, blind = hunted.counterexample, "blind" if name in BLIND else ""
    why = TABLE[name].why
    if shortest is None:
        return name, why, "no", "", "", "", "", f"{hunted.seconds:.1f}", blind
    where = f"{shortest.deck}, {shortest.world}"
    steps, invariants = str(len(shortest.steps)), ", ".join(hunted.invariants)
    return name, why, "yes", invariants, steps, where, hunted.effort, f"{hunted.seconds:.1f}", blind


def score(hunted: dict[str, Hunted]) -> list[tuple[str, ...]]:
    """Open and blind apart."""
    rows: list[tuple[str, ...]] = []
    for what, names in (
        ("the open two thirds", set(MUTANTS) - BLIND),
        ("the blind third", BLIND),
        ("all", set(MUTANTS)),
    ):
        rows.append((what, *(_score(hunted, names, letter) for letter in ("B", "N", ""))))
    return rows


def _score(hunted: dict[str, Hunted], names: Collection[str], letter: str) -> str:
    here = [name for name in TABLE if name in names and name.startswith(letter)]
    found = [name for name in here if name in hunted and hunted[name].counterexample is not None]
    return f"{len(found)} of {len(here)}"


def page(hunted: dict[str, Hunted]) -> str:
    """The page with its tables as they are to be."""
    text = PAGE.read_text()
    rows: Sequence[Sequence[str]] = [row(name, one) for name, one in hunted.items()]
    text = filled(PAGE, text, "mutants", HEADER, rows)
    text = filled(PAGE, text, "score", ("", "reported (B)", "hypotheses (N)", "both"), score(hunted))
    missed = [(name, _of(NOT_FOUND, name)) for name, one in hunted.items() if one.counterexample is None]
    text = filled(PAGE, text, "not-found", ("", "Why"), missed)
    none = [(name, NOT_A_MUTANT[name], "blind" if name in BLIND else "") for name in MUTANTS if name in NOT_A_MUTANT]
    text = filled(PAGE, text, "no-mutant", ("", "Why", "Blind"), none)
    return filled(PAGE, text, "skipped", ("", "Why"), list(SKIPPED.items()))


def _of(reasons: dict[str, str], name: str) -> str:
    return reasons.get(name, "not explained yet")


def main(names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in TABLE]
    if unknown:
        raise SystemExit(f"no mutant {', '.join(unknown)}: there are {', '.join(TABLE)}")
    hunted = kept()
    for name in names or TABLE:
        hunted[name] = hunt(name)
        keep(hunted)
        print(" | ".join(row(name, hunted[name])), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] != ["--kept"]:
        main(sys.argv[1:])
    if sys.argv[1:] in ([], ["--kept"]):
        PAGE.write_text(page(kept()))
