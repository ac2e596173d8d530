"""The events that a PMUv3 counts, and the names by which Linux perf knows them (`events.toml`)."""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from importlib.resources import files

import tomli

from services import generic_cache
from services.registers import PMEVTYPER_EVTCOUNT


class Software(IntEnum):
    """`enum perf_sw_ids`: the events of PERF_TYPE_SOFTWARE that there are here."""

    CPU_CLOCK = 0
    TASK_CLOCK = 1
    PAGE_FAULTS = 2
    CONTEXT_SWITCHES = 3
    CPU_MIGRATIONS = 4


# By the names that perf has for them. No page is ever missing here: there are no page faults.
SOFTWARE = {
    "cpu-clock": Software.CPU_CLOCK,
    "task-clock": Software.TASK_CLOCK,
    "page-faults": Software.PAGE_FAULTS,
    "faults": Software.PAGE_FAULTS,
    "context-switches": Software.CONTEXT_SWITCHES,
    "cs": Software.CONTEXT_SWITCHES,
    "cpu-migrations": Software.CPU_MIGRATIONS,
    "migrations": Software.CPU_MIGRATIONS,
}

LAST_EVENT = PMEVTYPER_EVTCOUNT  # 16 bits with FEAT_PMUv3p1

UNMAPPED = -1  # HW_OP_UNSUPPORTED, CACHE_OP_UNSUPPORTED: of a generic event that Arm's driver knows no number for


@cache
def _tables() -> dict[str, dict[str, str | int]]:
    return tomli.loads(files("services").joinpath("events.toml").read_text(encoding="utf-8"))


@cache
def pmuv3() -> dict[str, int]:
    """Architectural name, upper case, to event number."""
    return {name: int(number) for name, number in _tables()["pmuv3"].items()}


@cache
def hardware() -> dict[str, int]:
    """perf's generic hardware events (`PERF_TYPE_HARDWARE`), as PMUv3 event numbers."""
    return {name: pmuv3()[str(target)] for name, target in _tables()["hardware"].items()}


@cache
def cache_events() -> dict[str, int]:
    """perf's generic cache events (`PERF_TYPE_HW_CACHE`), as PMUv3 event numbers."""
    return {name: pmuv3()[str(target)] for name, target in _tables()["cache"].items()}


@cache
def unmapped() -> tuple[str, ...]:
    """perf's generic events that armv8_pmuv3_perf_map and armv8_pmuv3_perf_cache_map have nothing for."""
    return (*_tables()["unmapped"], *(name for name in generic_cache.names() if name not in cache_events()))


@cache
def aliases() -> dict[str, str]:
    """Second names that perf accepts, and the first names."""
    return {name: str(target) for name, target in _tables()["alias"].items()}


@cache
def _by_name() -> dict[str, int]:
    names = {**hardware(), **cache_events(), **{name.lower(): number for name, number in pmuv3().items()}}
    names.update({name: names[target] for name, target in aliases().items()})
    return {name.lower(): number for name, number in names.items()}


def number(name: str) -> int:
    """The event number of a perf or architectural event name, in any case. Raises KeyError."""
    found = _by_name().get(name.lower())
    return _by_name()[generic_cache.decode(name).lower()] if found is None else found


def generic(name: str) -> int | None:
    """What Arm's driver maps one of perf's own names to, `UNMAPPED` if to nothing; None for any other name."""
    name = name.lower()
    if name not in _generic():
        name = generic_cache.decode(name).lower()
    return _generic().get(name)


@cache
def _generic() -> dict[str, int]:
    mapped = [*hardware(), *cache_events(), *aliases()]
    return {
        **dict.fromkeys((name.lower() for name in unmapped()), UNMAPPED),
        **{name.lower(): number(name) for name in mapped},
    }


def names() -> list[str]:
    """Every name of an event that takes a counter, as perf and the architecture write it (the latter in lower case)."""
    return [*hardware(), *aliases(), *cache_events(), *unmapped(), *(name.lower() for name in pmuv3())]


def architectural_name(event: int) -> str:
    """The Arm ARM's name of an event number, or `r<hex>` (perf's raw form) for one that it does not name."""
    for name, number_ in pmuv3().items():
        if number_ == event:
            return name
    return f"r{event:x}"
