"""The events that a PMUv3 counts, and the names by which Linux perf knows them (`events.toml`)."""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from importlib.resources import files

import tomli

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
    return _by_name()[name.lower()]


@cache
def _generic() -> frozenset[str]:
    return frozenset(name.lower() for name in (*hardware(), *cache_events(), *aliases()))


def is_generic(name: str) -> bool:
    """Is it one of perf's own names, which a PMU looks up among the events that it has?"""
    return name.lower() in _generic()


def names() -> list[str]:
    """Every name that `number` knows, as perf and the architecture write them (the latter in lower case)."""
    return [*hardware(), *aliases(), *cache_events(), *(name.lower() for name in pmuv3())]


def architectural_name(event: int) -> str:
    """The Arm ARM's name of an event number, or `r<hex>` (perf's raw form) for one that it does not name."""
    for name, number_ in pmuv3().items():
        if number_ == event:
            return name
    return f"r{event:x}"
