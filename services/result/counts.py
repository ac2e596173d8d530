"""Perf events of a run: counts beside their truth, summed over CPUs, and the events that were refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from services.experiment import Experiment
from services.linux_perf.attr import State
from services.registers import MASK64, S64_MIN
from services.result.types import CountError, Event, Interval, RefusedEvent, RefusedSession, SessionWarning, scaled

_ERROR = int(State.ERROR)
_SUMMED = ("count", "truth", "held", "enabled", "running", "samples")
_LOSSES = ("lost", "lost_count", "missed", "throttles", "throttled")  # 0 where they are not there
_WRAP = 1 << 32  # what a counter loses with an overflow that nobody sees
_NOT_EXCLUDED = "it does not exclude guests (:H)"


def events(cpus: Iterable[Mapping[str, Any]], vms: Sequence[str] = ()) -> tuple[Event, ...]:
    """The events of all sessions. The same event on several CPUs is one, summed, as `perf stat -a` prints it.

    `vms`: of the host's events, the name of the VM whose vCPU each thread is.
    """
    summed: dict[tuple[Any, int, str], dict[str, Any]] = {}
    names: dict[tuple[Any, int, str], str] = {}
    unsupported: dict[tuple[Any, int, str], str] = {}
    sampled: dict[tuple[Any, int, str], int] = {}
    starved: dict[tuple[Any, int, str], dict[str, None]] = {}
    for number, cpu in enumerate(cpus):
        for session, of_session in enumerate(cpu.get("sessions", [])):
            one = of_session["name"] or (number, session)
            for index, event in enumerate(of_session["events"]):
                key = (one, index, event["name"])
                names[key] = of_session["name"]
                row = summed.setdefault(key, dict.fromkeys((*_SUMMED, *_LOSSES, "in_error"), 0))
                for field in _SUMMED:
                    row[field] = row[field] + event[field] & MASK64  # a u64, as perf adds them up
                for field in _LOSSES:
                    row[field] = row[field] + event.get(field, 0) & MASK64
                row["in_error"] += event["state"] == _ERROR
                if "sampled" in event:
                    sampled[key] = sampled.get(key, 0) + event["sampled"] & MASK64
                if event.get("unsupported"):
                    unsupported.setdefault(key, event["unsupported"])
                if event.get("starved") is not None:
                    starved.setdefault(key, {}).update(dict.fromkeys(event["starved"]))
    return tuple(
        replace(
            _event(names[key], key[2], row),
            unsupported=unsupported.get(key, ""),
            sampled=sampled.get(key),
            starved=_owners(starved.get(key), row, vms),
        )
        for key, row in summed.items()
    )


def _owners(of: Iterable[str] | None, row: Mapping[str, int], vms: Sequence[str]) -> str:
    """Who had the counters (`CpuContext.starved`), in words, if the event never had one."""
    if of is None or row["running"] or row["count"]:  # a weak group may have counted in a time of context that stood
        return ""
    said: dict[str, None] = {}
    for owner in of:
        kind, _, which = owner.partition(":")
        if kind == "range":
            withheld, every = which.split("/")
            said[f"{withheld} of {every} are the guests' range"] = None
        elif kind == "thread":
            thread = int(which)
            said[f"KVM counts for {vms[thread] if thread < len(vms) else owner} with some"] = None
        else:
            said[f"{which} has one"] = None
    return "; ".join(said) or "nobody has them: the group needs more than there are"


def _event(session: str, name: str, row: Mapping[str, int]) -> Event:
    # __perf_read returns end of file for an event in ERROR, and perf stat then takes none of its CPUs' counts.
    readable = not row["in_error"]
    counted = readable and bool(row["running"])
    return Event(
        session=session,
        event=name,
        count=row["count"] if readable else None,
        scaled=_scaled(row["count"], row) if counted else None,
        truth=row["truth"],
        enabled_ns=row["enabled"],
        running_ns=row["running"],
        samples=row["samples"],
        in_error=row["in_error"],
        error=_error(row) if counted else None,
        lost=row["lost"],
        throttles=row["throttles"],
        missed=row["missed"],
    )


def _scaled(count: int, row: Mapping[str, int]) -> int:
    return scaled(count, row["enabled"], row["running"])


def _error(row: Mapping[str, int]) -> CountError:
    """`scaled` less what lost records stood for and `truth`, split by cause."""
    count, held, truth = row["count"], row["held"], row["truth"]
    # Whole overflows that are missing, to the nearest; what is too much nobody has missed.
    wraps = max((2 * (held - count) + _WRAP) // (2 * _WRAP), 0)
    printed, seen, ideal = _scaled(count, row), _scaled(count + wraps * _WRAP, row), _scaled(held, row)
    unthrottled = _scaled(count + wraps * _WRAP + row["throttled"], row)
    return CountError(
        multiplexing=max(ideal - truth, S64_MIN),
        stopped=max(min(unthrottled - ideal, 0), S64_MIN),
        throttled=max(seen - unthrottled, S64_MIN),
        surplus=max(unthrottled - ideal, 0),
        overflow=max(printed - seen, S64_MIN),
        lost=max(-_scaled(row["lost_count"], row), S64_MIN),
    )


def intervals(cpus: Iterable[Mapping[str, Any]]) -> tuple[Interval, ...]:
    """The rows of every `perf stat -I`. The reads of a session on several CPUs are summed, the first with the first."""
    summed: dict[Any, list[tuple[int, list[list[int]]]]] = {}
    names: dict[Any, tuple[str, list[str]]] = {}
    for number, cpu in enumerate(cpus):
        for session, of_session in enumerate(cpu.get("sessions", [])):
            key = of_session["name"] or (number, session)
            if not of_session["events"]:  # it ended before it had begun
                continue
            names.setdefault(key, (of_session["name"], [event["name"] for event in of_session["events"]]))
            rows = summed.setdefault(key, [])
            for index, row in enumerate(of_session.get("intervals", [])):
                if index == len(rows):
                    rows.append((row["time"], row["events"]))
                else:
                    so_far = rows[index][1]
                    rows[index] = (rows[index][0], list(map(_added, so_far, row["events"])))
    return tuple(
        _interval(names[key][0], names[key][1], index, time, values)
        for key, rows in summed.items()
        for time, events in rows
        for index, values in enumerate(events)
    )


def _added(some: Sequence[int], more: Sequence[int]) -> list[int]:
    return [a + b & MASK64 for a, b in zip(some, more, strict=True)]


def _interval(session: str, events: Sequence[str], index: int, time: int, values: Sequence[int]) -> Interval:
    count, truth, enabled, running, in_error = values
    nth = events[:index].count(events[index])
    return Interval(session, events[index], nth, time, None if in_error else count, truth, enabled, running)


def refused_sessions(cpus: Iterable[Mapping[str, Any]]) -> tuple[RefusedSession, ...]:
    """The sessions that ended before they had begun, on whichever CPU that was found out."""
    found = {
        (session["name"], session["refused"]): RefusedSession(
            session["name"], session.get("verb", ""), session["refused"]
        )
        for cpu in cpus
        for session in cpu.get("sessions", [])
        if session.get("refused")
    }
    return tuple(found.values())


def refused(experiment: Experiment, hosts: Iterable[Mapping[str, Any]]) -> tuple[RefusedEvent, ...]:
    """The events of the host that were asked for and refused, in the scenario's order, then those of clients."""
    names = dict.fromkeys(name for host in hosts for name in host.get("refused", []))
    found = []
    for session in {session.name: session for session in experiment.host_sessions()}.values():
        admitted, seen = session.excluding_guests(), Counter[str]()
        for index, event in enumerate(session.events):
            if event.name in names and index not in admitted:
                found.append(RefusedEvent(session.name, event.name, _NOT_EXCLUDED, seen[event.name]))
            seen[event.name] += 1
    asked = {one.event for one in found}
    of_clients = (RefusedEvent("", name, _NOT_EXCLUDED) for name in names if name not in asked)
    return (*found, *of_clients)


def warnings(experiment: Experiment) -> tuple[SessionWarning, ...]:
    """Of what the host's perf warns, session by session."""
    sessions = {session.name: session for session in experiment.host_sessions()}
    return tuple(SessionWarning(one.name, one.verb, text) for one in sessions.values() for text in one.warned)
