"""What others measured, and what is assumed or fitted here: printed beside the results."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from pmulab import designs
from pmulab.scenario import keys
from services.kvm.vpmu import DesignError
from services.tables import Table


@dataclass(frozen=True, slots=True)
class Published:
    """Published times in seconds of the first guest's run, by design label, by kind (`elapsed_seconds`, …)."""

    source: str
    times: dict[str, dict[str, float]] = field(default_factory=dict)


def read_published(scenario: Table) -> Published | None:
    if "published" not in scenario:
        return None
    table = scenario.table("published", keys.PUBLISHED)
    table.require("source", '"where the numbers are from"')
    times: dict[str, dict[str, float]] = {}
    for kind in keys.PUBLISHED_TIMES:
        if kind in table:
            times[kind] = _by_design(table, kind)
    return Published(table.text("source"), times)


def _by_design(table: Table, kind: str) -> dict[str, float]:
    inner = table.table(kind, None)
    found = {}
    for text in inner.data:
        try:
            name = designs.label(designs.parse_design(text))
        except DesignError as error:
            raise error.within(inner.where(text)) from None
        found[name] = float(inner.number(text, Decimal("1.0"), 0, 10**9))
    return found


def read_notes(scenario: Table, section: str) -> dict[str, str]:
    """`[assumed]` or `[fitted]`: what, and in words what is assumed of it or how it was fitted."""
    table = scenario.table(section, None)
    return {what: table.text(what) for what in table.data}
