"""Lengths of time as people write them: a number and its unit, "250 us"."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

NS_PER_S: Final = 1_000_000_000

# The micro sign, and the Greek letter that looks like it.
NANOSECONDS: Final = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9}
UNITS: Final = "ns, us, µs, ms or s"

_TEXT = re.compile(r"\s*([+-]?(?:\d[\d_]*)?\.?\d+(?:[eE][+-]?\d{1,3})?)\s*([^\W\d_]+)\s*")


def measure(text: str) -> tuple[Decimal, str] | None:
    """The number and the unit in `text`, with or without a space between them; None if it is not of that form."""
    match = _TEXT.fullmatch(text)
    return (Decimal(match[1]), match[2]) if match else None


def nanoseconds(text: str) -> Decimal | None:
    """The length of time that `text` says; None if it says none."""
    found = measure(text)
    if found is None or found[1] not in NANOSECONDS:
        return None
    number, unit = found
    return number * NANOSECONDS[unit]
