"""The catalogue of cores: how many counters each has, and which PMU features. The numbers are TOML beside this file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Final

from services import costs
from services.experiment import CpuSpec
from services.registers import MASK64
from services.tables import Document, Table, entry, is_path, near

SHIPPED: Final = Path(__file__).with_suffix(".toml")

# ID_AA64DFR0_EL1.PMUVer to the name of the extension.
PMUVER: Final = {1: "PMUv3", 4: "PMUv3p1", 5: "PMUv3p4", 6: "PMUv3p5", 7: "PMUv3p7", 8: "PMUv3p8", 9: "PMUv3p9"}

MAX_PMI_DELAY: Final = 10**9  # ns


@dataclass(frozen=True, slots=True)
class Core:
    """A core of the catalogue: its features as a pCPU has them, and where they are from.

    `assumed` says, for each key that no source was found for, what was taken instead.
    """

    name: str
    title: str
    spec: CpuSpec
    vhe: bool
    pmi_delay: Decimal  # ns
    costs: str
    source: str
    assumed: Mapping[str, str]


_KEYS: Final = (
    "title",
    "counters",
    "pmuver",
    "fgt",
    "hpmn0",
    "icntr",
    "pmceid0",
    "pmceid1",
    "pmi_delay",
    "vhe",
    "costs",
    "source",
    "assumed",
)


def names() -> list[str]:
    """The cores that are shipped."""
    return list(_shipped().data)


def load(name: str) -> Core:
    """A shipped core by its name, or a user's own by its path (one core, its keys at the top level).

    Raises UserError for one that there is not, or that cannot be used.
    """
    table = entry(_shipped(), (), name, "core", _KEYS)
    for key, example in (("counters", "6"), ("pmuver", "4"), ("source", '"my board"')):
        table.require(key, example)
    pmuver = table.integer("pmuver", 1, min(PMUVER), max(PMUVER))
    if pmuver not in PMUVER:
        known = ", ".join(f"{value} ({extension})" for value, extension in PMUVER.items())
        table.refuse("pmuver", f"{pmuver} is not a PMUv3 version", f"ID_AA64DFR0_EL1.PMUVer is one of {known}")
    cost_table = table.text("costs", costs.DEFAULT)
    if not is_path(cost_table) and cost_table not in costs.names():
        table.refuse("costs", f"no cost table {cost_table!r}", near(cost_table, costs.names()))
    assumed = table.table("assumed", _KEYS)
    model = Path(name).stem if is_path(name) else name
    return Core(
        name=model,
        title=table.text("title", model),
        spec=CpuSpec(
            model=model,
            counters=table.integer("counters", 0, 0, 31),
            pmuver=pmuver,
            fgt=table.integer("fgt", 0, 0, 2),
            hpmn0=table.boolean("hpmn0", False),
            icntr=table.boolean("icntr", False),
            pmceid0=_events(table, "pmceid0"),
            pmceid1=_events(table, "pmceid1"),
        ),
        vhe=table.boolean("vhe", True),
        pmi_delay=table.duration("pmi_delay", "ns", 0, 0, MAX_PMI_DELAY),
        costs=cost_table,
        source=table.text("source"),
        assumed={key: assumed.text(key) for key in assumed.data},
    )


def _events(table: Table, key: str) -> int | None:
    return table.integer(key, 0, 0, MASK64) if key in table else None


@cache
def _shipped() -> Document:
    return Document.read(str(SHIPPED))
