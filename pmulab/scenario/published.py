"""What others measured, and what is assumed or fitted here: printed beside the results."""

from __future__ import annotations

from decimal import Decimal

from pmulab import designs
from pmulab.scenario import keys
from services.kvm.vpmu import DesignError
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
    fitted = table.strings("fitted")
    for index, kind in enumerate(fitted):
        if kind not in keys.PUBLISHED_TIMES or kind not in table:
            given = [time for time in keys.PUBLISHED_TIMES if time in table]
            table.refuse("fitted", f"{kind!r} is not published here", near(kind, given), index=index)
    times: dict[str, dict[str, float]] = {}
    for kind in keys.PUBLISHED_TIMES:
        for design, seconds in _by_design(table, kind).items():
            times.setdefault(design, {})[kind] = seconds
    return {
        design: Published(table.text("source"), fitted=tuple(kind for kind in fitted if kind in of_design), **of_design)
        for design, of_design in times.items()
    }


def _by_design(table: Table, kind: str) -> dict[str, float]:
    inner = table.table(kind, None)
    found = {}
    for text in inner.data:
        try:
            name = designs.label(designs.parse_design(text))
        except DesignError as error:
            raise error.within(inner.where(text)) from None
        found[name] = float(inner.duration(text, "s", Decimal("1.0"), 0, 10**9))
    return found


def read_notes(scenario: Table, section: str) -> dict[str, str]:
    """`[assumed]` or `[fitted]`: what, and in words what is assumed of it or how it was fitted."""
    table = scenario.table(section, None)
    return {what: table.text(what) for what in table.data}
