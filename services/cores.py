"""The catalogue of cores: how many counters each has, and which PMU features. The numbers are TOML beside this file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from services import costs
from services.experiment import CpuSpec
from services.tables import Table, is_path, near

SHIPPED: Final = Path(__file__).with_suffix(".toml")

# ID_AA64DFR0_EL1.PMUVer to the name of the extension.
PMUVER: Final = {1: "PMUv3", 4: "PMUv3p1", 5: "PMUv3p4", 6: "PMUv3p5", 7: "PMUv3p7", 8: "PMUv3p8", 9: "PMUv3p9"}


@dataclass(frozen=True, slots=True)
class Core:
    """A core of the catalogue: its features as a pCPU has them, and where they are from.

    `assumed` says, for each key that no source was found for, what was taken instead.
    """

    name: str
    title: str
    spec: CpuSpec
    nv2: bool
    vhe: bool
    costs: str
    source: str
    assumed: Mapping[str, str]


def names() -> list[str]:
    """The cores that are shipped."""
    return list(_shipped().data)


def load(name: str) -> Core:
    """A shipped core by its name, or a user's own by its path (one core, its keys at the top level).

    Raises `services.tables.TableError` for a core that cannot be used, OSError for a file that cannot be read, and
    ValueError with the near matches for a name that is not shipped.
    """
    if is_path(name):
        own = Table.read(Path(name))
        return _parse(own, (), own.data, Path(name).stem)
    shipped = _shipped()
    if name not in shipped.data:
        raise ValueError(f"no core {name!r}: {near(name, shipped.data)}")
    return _parse(shipped, (name,), shipped.data[name], name)


@cache
def _shipped() -> Table:
    return Table.read(SHIPPED)


_KEYS: Final = ("title", "counters", "pmuver", "fgt", "hpmn0", "icntr", "nv2", "vhe", "costs", "source", "assumed")


def _parse(table: Table, path: tuple[str, ...], data: object, name: str) -> Core:
    keys = table.only(path, data, _KEYS)
    for wanted in ("counters", "pmuver", "source"):
        if wanted not in keys:
            raise table.error((*path, wanted), "is missing", "every core has counters, pmuver and a source")
    pmuver = keys["pmuver"]
    if pmuver not in PMUVER or isinstance(pmuver, bool):
        known = ", ".join(f"{value} ({extension})" for value, extension in PMUVER.items())
        raise table.error((*path, "pmuver"), f"{pmuver!r} is not a PMUv3 version", f"write one of {known}")
    flags = {key: table.boolean((*path, key), keys.get(key, False)) for key in ("hpmn0", "icntr", "nv2")}
    cost_table = table.string((*path, "costs"), keys.get("costs", costs.DEFAULT))
    if not is_path(cost_table) and cost_table not in costs.names():
        raise table.error((*path, "costs"), f"no cost table {cost_table!r}", near(cost_table, costs.names()))
    assumed = table.only((*path, "assumed"), keys.get("assumed", {}), _KEYS)
    return Core(
        name=name,
        title=table.string((*path, "title"), keys.get("title", name)),
        spec=CpuSpec(
            model=name,
            counters=table.integer((*path, "counters"), keys["counters"], 0, 31),
            pmuver=pmuver,
            fgt=table.integer((*path, "fgt"), keys.get("fgt", 0), 0, 2),
            hpmn0=flags["hpmn0"],
            icntr=flags["icntr"],
        ),
        nv2=flags["nv2"],
        vhe=table.boolean((*path, "vhe"), keys.get("vhe", True)),
        costs=cost_table,
        source=table.string((*path, "source"), keys["source"]),
        assumed={key: table.string((*path, "assumed", key), reason) for key, reason in assumed.items()},
    )
