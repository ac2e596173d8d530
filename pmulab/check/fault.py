"""What goes wrong in a search, whoever is to blame, in one line."""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from pmulab.designs import parse_design
from pmulab.errors import SearchError
from services.errors import one_line
from services.kvm.designs import named
from services.kvm.errors import SimulationError

_OURS = ("pmulab", "services")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why something could not be carried out."""

    what: str  # in one line
    traceback: str = ""  # where the fault is ours, and nobody has foreseen it

    @classmethod
    def of(cls, error: Exception, design: str) -> Fault:
        """An exception under that design. One of somebody else's design is said with the line that raised it."""
        if isinstance(error, (SearchError, SimulationError)):
            return cls(one_line(str(error)))
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        theirs = _root(named(parse_design(design).name).__module__) not in _OURS
        frames = [*traceback.walk_tb(error.__traceback__)]
        foreign = [(frame, line) for frame, line in frames if theirs and _is_foreign(frame)]
        frame, line = (foreign or frames)[-1]
        what = one_line(f"{what} ({Path(frame.f_code.co_filename).name}:{line})")
        return cls(what, "" if theirs else "".join(traceback.format_exception(error)))


def _is_foreign(frame: FrameType) -> bool:
    """Neither ours, nor Python's own, nor what carries coroutines out?"""
    root = _root(frame.f_globals.get("__name__", ""))
    return root not in (*_OURS, "trio", "outcome") and root not in sys.stdlib_module_names


def _root(module: str) -> str:
    return module.partition(".")[0]
