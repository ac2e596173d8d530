"""What the steps of a scenario gave, as typed data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from services._pmu import register_name
from services.experiment import Experiment
from services.result.types import Step, StepEvent

_FLAGS = ("trapped", "interrupted", "blocked", "taken", "armed", "reached")
_NUMBERS = ("value", "esr", "cycles", "operations")
_STATES = {-2: "error", -1: "off", 0: "inactive", 1: "active"}  # enum perf_event_state


def steps(experiment: Experiment, outcomes: Iterable[Mapping[str, Any]]) -> tuple[Step, ...]:
    """One for each outcome, in order."""
    return tuple(_step(experiment, outcome) for outcome in outcomes)


def _step(experiment: Experiment, outcome: Mapping[str, Any]) -> Step:
    spec = experiment.steps[outcome["step"] - 1]
    cycle = outcome.get("cycle")
    return Step(
        step=outcome["step"],
        party=spec.party,
        action=spec.action,
        register=register_name(spec.register) if spec.register else "",
        virtual_ns=None if cycle is None else cycle * 10**9 // experiment.frequency_hz,
        error=outcome.get("error", ""),
        events=tuple(_event(event) for event in outcome.get("events") or ()),
        **{name: bool(outcome[name]) for name in _FLAGS if name in outcome},
        **{name: outcome[name] for name in _NUMBERS if name in outcome},
    )


def _event(event: Mapping[str, Any]) -> StepEvent:
    state = _STATES[event["state"]]
    count = None if state == "error" else event["count"]
    return StepEvent(event["name"], count, event["enabled"], event["running"], state)
