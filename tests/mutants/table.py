"""Every mutant by its name, and how the search comes to have them.

`pmulab` finds them as anybody's designs, by the entry points beside this file:

    PYTHONPATH=.:tests/mutants/offered pmulab check B46
    python -m tests.mutants B3 --deck squeeze       # the same, and with a mutant's own driver of the host
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import invalidate_caches
from pathlib import Path
from types import ModuleType

from services.kvm import designs
from services.kvm.designs.partitioned import Partitioned
from tests.mutants import accesses, driver, event_types, interrupts, reservation, swap, traps
from tests.mutants.drawn import MUTANTS

OFFERED = Path(__file__).with_name("offered")
ENTRY_POINTS = OFFERED / "mutants-1.dist-info" / "entry_points.txt"

MODULES = (swap, event_types, accesses, traps, interrupts, reservation, driver)


def _in(module: ModuleType) -> Iterator[type[Partitioned]]:
    for one in vars(module).values():
        if isinstance(one, type) and issubclass(one, Partitioned) and "name" in vars(one) and one is not Partitioned:
            yield one


_FOUND = {one.name: one for module in MODULES for one in _in(module)}

TABLE: dict[str, type[Partitioned]] = {name: _FOUND[name] for name in MUTANTS if name in _FOUND}


def entry_points() -> str:
    """What the file is to have."""
    lines = [f"{name} = {one.__module__}:{one.__name__}" for name, one in TABLE.items()]
    return "\n".join(["[pmulab.designs]", *lines]) + "\n"


@contextmanager
def offered() -> Iterator[None]:
    """Meanwhile they are among the designs of this process."""
    sys.path.append(str(OFFERED))
    invalidate_caches()
    designs.offered.cache_clear()
    try:
        yield
    finally:
        sys.path.remove(str(OFFERED))
        designs.offered.cache_clear()


if __name__ == "__main__":
    ENTRY_POINTS.write_text(entry_points())
