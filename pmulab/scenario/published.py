"""What others measured, and what is assumed or fitted here: printed beside the results."""

from __future__ import annotations

from decimal import Decimal

from pmulab.scenario import keys
from pmulab.scenario.by_design import by_design
from services.result import Published
from services.tables import Table, near


def read_published(scenario: Table) -> dict[str, Published]:
    """The published times of the first guest's run, by the label of the design."""
    if "published" not in scenario:
        return {}
    table = scenario.table("published", keys.PUBLISHED)
    if not scenario.tables("guest", keys.GUEST):
        scenario.refuse("published", "it has the times of the first guest's run, and there is none", "add a [[guest]]")
    table.require("source", '"where the numbers are from"')
    times: dict[str, dict[str, float]] = {}
    for kind in (*keys.PUBLISHED_TIMES, *keys.PUBLISHED_SHARES):
        for design, number in _by_design(table, kind).items():
            times.setdefault(design, {})[kind] = number
    relative_to = table.text("relative_to", "")
    if relative_to and "elapsed_seconds" not in times.get(relative_to, {}):
        problem = f"no elapsed_seconds of {relative_to!r} are published here"
        table.refuse("relative_to", problem, near(relative_to, times))
    fitted = table.strings("fitted")
    given = [name for kind in keys.PUBLISHED_TIMES if kind in table for name in _names(kind, times)]
    for index, name in enumerate(fitted):
        if name not in given:
            table.refuse("fitted", f"{name!r} is not published here", near(name, given), index=index)
    return {
        design: Published(
            table.text("source"),
            fitted=tuple(kind for kind in of_design if kind in fitted or f"{kind}.{design}" in fitted),
            relative_to=relative_to,
            changed=tuple(dict.fromkeys(scenario.document.changed)),
            **of_design,
        )
        for design, of_design in times.items()
    }


def _names(kind: str, times: dict[str, dict[str, float]]) -> list[str]:
    """A kind of published times, of all designs and of one."""
    return [kind, *(f"{kind}.{design}" for design, of_design in times.items() if kind in of_design)]


def _by_design(table: Table, kind: str) -> dict[str, float]:
    inner = table.table(kind, None)
    return {label: float(inner.duration(text, "s", Decimal("1.0"), 0, 10**9)) for text, label in by_design(inner)}


def read_notes(scenario: Table, section: str) -> dict[str, str]:
    """`[assumed]` or `[fitted]`: what, and in words what is assumed of it or how it was fitted."""
    table = scenario.table(section, None)
    return {what: table.text(what) for what in table.data}
