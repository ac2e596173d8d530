"""What software reports, checked when it arrives: later it is summed up by whoever makes a result of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from reprlib import repr as shortened
from typing import Any

import orjson

from services.linux_perf.attr import State

TIMES = ("elapsed", "user", "system")  # of a guest, in cycles
_NAMES = {int: "an integer", str: "a string", list: "a list"}
EVENT = ("count", "truth", "held", "enabled", "running", "samples")
KILLED = ("task", "session", "reason")  # of a task
LOSSES = ("lost", "lost_count", "missed", "throttles", "throttled")  # 0 if they are not there
# Counts and times are a u64 each, as perf has them: a count may be any, where somebody else has written the counter.
NUMBERS = range(2**64)
STATES = range(min(State), max(State) + 1)
OWNER = re.compile(r"range:\d{1,2}/\d{1,2}|thread:\d{1,6}|event:.*", re.DOTALL)  # of counters: `CpuContext.starved`
_GROWN = 5  # numbers of an event at an interval: count, truth, enabled, running, and whether it is in ERROR
DEEPEST = 16  # levels of objects and lists within each other


def of_guest(answer: bytes) -> dict[str, Any]:
    """A guest's report on one vCPU. Raises ValueError naming what is wrong with it."""
    report = _object(answer)
    for name in TIMES:
        _field(report, name, int, "report")
    _sessions(report)
    for index, task in enumerate(_optional(report, "killed")):
        for name in KILLED:
            _field(task, name, str, f"report.killed[{index}]")
    return report


def of_host(answer: bytes) -> dict[str, Any]:
    """The report of the host's perf on one pCPU. Raises ValueError naming what is wrong with it."""
    report = _object(answer)
    for name in _optional(report, "refused"):
        if not isinstance(name, str):
            raise ValueError(f"report.refused: {shortened(name)} is not a name")
    _sessions(report)
    return report


def of_perf_call(answer: bytes) -> dict[str, Any]:
    """What a call of a session gave: counts, or why it failed. Raises ValueError naming what is wrong with it."""
    told = _object(answer)
    _text(told, "error", "report")
    for index, event in enumerate(_optional(told, "events")):
        where = f"report.events[{index}]"
        _field(event, "name", str, where)
        for name in ("count", "enabled", "running"):
            _field(event, name, int, where)
        _field(event, "state", int, where, STATES)
    return {name: told[name] for name in ("error", "events") if name in told}


def _object(answer: bytes) -> dict[str, Any]:
    try:
        report = orjson.loads(answer)
    except orjson.JSONDecodeError as exc:
        raise ValueError(f"report: it is not JSON: {exc}") from None
    if not isinstance(report, dict):
        raise ValueError("report: it is not a JSON object")
    level: list[Any] = [report]
    for _ in range(DEEPEST):
        level = [inner for value in level for inner in _within(value)]
        if not level:
            return report
    raise ValueError(f"report: it is nested more than {DEEPEST} levels deep")


def _within(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _sessions(report: dict[str, Any]) -> None:
    for index, session in enumerate(_optional(report, "sessions")):
        where = f"report.sessions[{index}]"
        _field(session, "name", str, where)
        for number, event in enumerate(_field(session, "events", list, where)):
            of_event = f"{where}.events[{number}]"
            _field(event, "name", str, of_event)
            for name in (*EVENT, *(name for name in (*LOSSES, "sampled") if name in event)):
                _field(event, name, int, of_event)
            _field(event, "state", int, of_event, STATES)
            _text(event, "unsupported", of_event)
            for owner in _optional(event, "starved", of_event):
                if not isinstance(owner, str) or not OWNER.fullmatch(owner):
                    raise ValueError(f"{of_event}.starved: {shortened(owner)} is nobody who can have counters")
        for number, row in enumerate(_optional(session, "intervals", where)):
            _interval(row, len(session["events"]), f"{where}.intervals[{number}]")
        _text(session, "verb", where)
        _text(session, "refused", where)


def _interval(row: Any, events: int, where: str) -> None:
    """What one read of perf stat -I has found: a time, and five numbers of each event."""
    _field(row, "time", int, where)
    found = _field(row, "events", list, where)
    if len(found) != events:
        raise ValueError(f"{where}.events: they should be {events}, not {len(found)}")
    for number, values in enumerate(found):
        if not isinstance(values, list) or len(values) != _GROWN or any(type(one) is not int for one in values):
            raise ValueError(f"{where}.events[{number}]: it should be {_GROWN} integers, not {shortened(values)}")
        if any(one not in NUMBERS for one in values):
            raise ValueError(f"{where}.events[{number}]: {shortened(values)} has a number that is out of range")


def _text(value: dict[str, Any], name: str, where: str) -> None:
    """A string, which may be left out if it is empty."""
    if name in value:
        _field(value, name, str, where)


def _optional(value: dict[str, Any], name: str, where: str = "report") -> list[Any]:
    """A list, which may be left out or None if it is empty."""
    found: list[Any] = _field(value, name, list, where) if value.get(name) is not None else []
    return found


def _field(value: Any, name: str, kind: type, where: str, numbers: range = NUMBERS) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: it should be an object, not {shortened(value)}")
    if name not in value:
        raise ValueError(f"{where}.{name}: it is missing")
    found = value[name]
    if not isinstance(found, kind) or isinstance(found, bool):
        raise ValueError(f"{where}.{name}: it should be {_NAMES[kind]}, not {shortened(found)}")
    if kind is int and found not in numbers:
        raise ValueError(f"{where}.{name}: it should be from {numbers[0]} to {numbers[-1]}, not {found}")
    return found
