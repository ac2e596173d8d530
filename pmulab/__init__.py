"""pmulab: a laboratory for virtualising the Arm PMU.

    import pmulab

    result = pmulab.run("gzip-record", designs=["emulated", "partitioned"], overrides={"guest.hz": 250})

docs/python.md shows what can be done with a `Result`. Importing pmulab imports neither gRPC nor the simulation.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pmulab.batch import run
    from services.errors import UserError
    from services.result import (
        Bill,
        Counted,
        CountError,
        CpuTime,
        Design,
        Event,
        Failure,
        Guest,
        Host,
        Injection,
        Interval,
        KilledTask,
        Kvm,
        Latency,
        Owner,
        Parts,
        Published,
        RefusedEvent,
        RefusedSession,
        Result,
        RoundTrips,
        Run,
        Seen,
        SessionWarning,
        Step,
        StepEvent,
        Swaps,
        Traps,
        Victim,
        Violation,
        Window,
    )

__version__ = version("pmulab")

__all__ = [
    "Bill",
    "CountError",
    "Counted",
    "CpuTime",
    "Design",
    "Event",
    "Failure",
    "Guest",
    "Host",
    "Injection",
    "Interval",
    "KilledTask",
    "Kvm",
    "Latency",
    "Owner",
    "Parts",
    "Published",
    "RefusedEvent",
    "RefusedSession",
    "Result",
    "RoundTrips",
    "Run",
    "Seen",
    "SessionWarning",
    "Step",
    "StepEvent",
    "Swaps",
    "Traps",
    "UserError",
    "Victim",
    "Violation",
    "Window",
    "run",
]

_ELSEWHERE = {"run": "pmulab.batch", "UserError": "services.errors"}  # the others are in services.result


def __getattr__(name: str) -> Any:
    """Each public name, imported when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_ELSEWHERE.get(name, "services.result")), name)
    globals()[name] = value
    return value
