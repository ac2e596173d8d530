"""`[known]`: which invariants a design is known to break, so that the scenario can show something else of it."""

from __future__ import annotations

from pmulab.scenario.by_design import by_design
from services.judge.invariants import INVARIANTS
from services.tables import Table, near


def read_known(scenario: Table) -> dict[str, tuple[str, ...]]:
    """The invariants, by the label of the design. Raises UserError."""
    table = scenario.table("known", None)
    found: dict[str, tuple[str, ...]] = {}
    for text, label in by_design(table):
        if label in found:
            table.refuse(text, f"design {label!r} is listed twice", "put its invariants into one list")
        invariants = table.strings(text)
        for index, name in enumerate(invariants):
            if name not in INVARIANTS:
                table.refuse(text, f"no invariant {name!r}", near(name, INVARIANTS), index=index)
            if name in invariants[:index]:
                table.refuse(text, f"{name} is listed twice", "leave one out", index=index)
        if not invariants:
            table.refuse(text, f"nothing is known of {text!r}", f'write for example {text} = ["I1"], or leave it out')
        found[label] = tuple(invariants)
    return found
