"""Accesses of every register of the PMU that a guest has, at EL1 and EL0, with values that matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from services import _pmu

Step = Mapping[str, Any]  # as a scenario has it

_COUNTERS = ("0", "1", "2", "30")  # each edge of a range of two, one beyond, and the last that there can be
_VALUES = (0, 0x1, 0x46, 0x8000_0003, 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FF00)
_TYPES = (0x00, 0x08, 0x11, 0x1E, 0x0800_0008, 0xC000_0011)  # SW_INCR, CHAIN; NSH; neither EL1 nor EL0
_SELECTIONS = (0, 1, 2, 31)


def accesses(vcpu: str) -> Iterator[Step]:
    """Those of one vCPU."""
    for register in _registers():
        for el in (1, 0):
            yield {"party": vcpu, "action": "mrs", "register": register, "el": el}
        for value in _values(register):
            yield {"party": vcpu, "action": "msr", "register": register, "value": value}
        yield {"party": vcpu, "action": "msr", "register": register, "value": 1, "el": 0}


def _registers() -> Iterator[str]:
    for name in _pmu.register_names():
        stem, _, level = name.partition("_EL")
        if name.startswith("PM") and level in ("0", "1"):
            numbered = stem.removeprefix("PMEVCNTR").removeprefix("PMEVTYPER")
            if not numbered.isdecimal() or numbered in _COUNTERS:
                yield name


def _values(register: str) -> tuple[int, ...]:
    if "TYPER" in register or "FILTR" in register:
        return _TYPES
    return _SELECTIONS if register == "PMSELR_EL0" else _VALUES
