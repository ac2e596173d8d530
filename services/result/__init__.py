"""What came of a scenario's runs: `Result` and all that is in it, and the one place that makes them.

The simulation reports in cycles; here they become seconds. What is in the digest comes from the simulation alone;
wall time, round trips and published numbers stand beside it. As JSON a result is `pmulab.result/2`, whose fields are
those of the classes here; docs/result.md describes each.
"""

from services.judge.types import Window
from services.result.judged import INJECTED, Counted, Injection, Owner, Seen, Victim, Violation
from services.result.make import join, of
from services.result.types import (
    SCHEMA,
    Bill,
    CountError,
    CpuTime,
    Design,
    Event,
    Failure,
    Guest,
    Host,
    Interval,
    KilledTask,
    Kvm,
    Latency,
    Parts,
    Published,
    RefusedEvent,
    RefusedSession,
    Result,
    RoundTrips,
    Run,
    SessionWarning,
    Step,
    StepEvent,
    Swaps,
    Traps,
    read,
)

__all__ = [
    "INJECTED",
    "SCHEMA",
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
    "Victim",
    "Violation",
    "Window",
    "join",
    "of",
    "read",
]
