"""The result of a run as tools read it: the JSON object `pmulab.result/2` (docs/result.md has every field).

The simulation reports in cycles; here they become seconds. What is in the digest comes from the
simulation alone; wall time, round trips and published numbers stand beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from services.experiment import Experiment
from services.linux_perf.attr import State

SCHEMA = "pmulab.result/2"

Json = dict[str, Any]

LATENCIES = ("p50", "p99", "max")
_ERROR = int(State.ERROR)
_SUMMED = ("count", "truth", "held", "enabled", "running", "samples")
_WRAP = 1 << 32  # what a counter loses with an overflow that nobody sees


def begin(scenario: str, seed: int, topology: str) -> Json:
    """A result without runs; `topology` is "embedded" or "processes"."""
    return {
        "schema": SCHEMA,
        "version": version("pmulab"),
        "scenario": scenario,
        "seed": seed,
        "topology": topology,
        "runs": [],
    }


def run(experiment: Experiment, plain: Mapping[str, Any]) -> Json:
    """One element of `runs`, from what `services.embedded.run` returns. `published` is for who knows of any."""
    hz = experiment.frequency_hz
    traps = plain["traps"]
    return {
        "design": {
            "name": experiment.design.name,
            "axes": dict(experiment.design.axes),
            "fallbacks": list(plain["fallbacks"]),
        },
        "choices": plain["choices"],
        "digest": plain["digest"],
        "virtual_seconds": plain["virtual_cycles"] / hz,
        "wall_seconds": plain["wall_seconds"],
        "time": _seconds(plain["time"], hz),
        "accounted": _seconds(plain["accounted"], hz),
        "bill": {part: _seconds(causes, hz) for part, causes in plain["bill"].items()},
        "kvm": {
            "traps": {"total": sum(traps.values()), "by_register": dict(traps)},
            "swaps": dict(plain["swaps"]),
            "interrupts_injected": plain["interrupts_injected"],
        },
        "guests": [_guest(guest, hz) for guest in plain["guests"]],
        "host": {
            "events": events(plain["hosts"]),
            "refused": sorted({name for host in plain["hosts"] for name in host.get("refused", [])}),
            "interrupt_latency": _latencies(plain["hosts"], "interrupt_latency", "interrupts", hz),
        },
        "round_trips": _round_trips(plain),
        "published": None,
    }


def _seconds(cycles: Mapping[str, int], hz: int) -> Json:
    return {what: count / hz for what, count in cycles.items()}


def _guest(guest: Mapping[str, Any], hz: int) -> Json:
    """A VM: times summed over its vCPUs, except that what elapses elapses on all at once."""
    vcpus = guest["vcpus"]
    return {
        "name": guest["name"],
        "elapsed_seconds": max(vcpu["elapsed"] for vcpu in vcpus) / hz,
        "user_seconds": sum(vcpu["user"] for vcpu in vcpus) / hz,
        "system_seconds": sum(vcpu["system"] for vcpu in vcpus) / hz,
        "true_user_seconds": sum(vcpu["true_el0_cycles"] for vcpu in vcpus) / hz,
        "true_system_seconds": sum(vcpu["true_el1_cycles"] for vcpu in vcpus) / hz,
        "events": events(vcpus),
        "interrupt_latency": _latencies(vcpus, "interrupt_latency", "interrupts", hz),
        "vcpu_load": _latencies(vcpus, "vcpu_load", "times", hz),
        "vcpu_put": _latencies(vcpus, "vcpu_put", "times", hz),
    }


def _latencies(cpus: Iterable[Mapping[str, Any]], key: str, count: str, hz: int) -> list[Json]:
    """One element for each CPU, in order: how many as `count`, and how long; null where there were none."""
    found = []
    for cpu in cpus:
        summary = cpu[key]
        times = {f"{name}_ns": summary[name] * 10**9 // hz if name in summary else None for name in LATENCIES}
        found.append({count: summary["times"], **times})
    return found


def events(cpus: Iterable[Mapping[str, Any]]) -> list[Json]:
    """The events of all sessions. The same event on several CPUs is one, summed, as `perf stat -a` prints it."""
    summed: dict[tuple[Any, int, str], dict[str, Any]] = {}
    for number, cpu in enumerate(cpus):
        for session, of_session in enumerate(cpu.get("sessions", [])):
            one = of_session["name"] or (number, session)
            for index, event in enumerate(of_session["events"]):
                row = summed.setdefault((one, index, event["name"]), dict.fromkeys((*_SUMMED, "in_error"), 0))
                for key in _SUMMED:
                    row[key] += event[key]
                row["in_error"] += event["state"] == _ERROR
    return [_event(name, row) for (_, _, name), row in summed.items()]


def _event(name: str, row: Mapping[str, int]) -> Json:
    """One event of a session; `scaled` is null if it never ran."""
    ran = bool(row["running"])
    return {
        "event": name,
        "count": row["count"],
        "scaled": _scaled(row["count"], row) if ran else None,
        "truth": row["truth"],
        "enabled_ns": row["enabled"],
        "running_ns": row["running"],
        "samples": row["samples"],
        "in_error": row["in_error"],
        "error": _error(row) if ran else None,
    }


def _scaled(count: int, row: Mapping[str, int]) -> int:
    """As perf computes it: count * enabled / running, to the nearest."""
    enabled, running = row["enabled"], row["running"]
    return (2 * count * enabled + running) // (2 * running)


def _error(row: Mapping[str, int]) -> Json:
    """`scaled` less `truth`, split by cause; the parts add up."""
    count, held, truth = row["count"], row["held"], row["truth"]
    wraps = (2 * (held - count) + _WRAP) // (2 * _WRAP)  # whole overflows that are missing, to the nearest
    scaled, seen, ideal = _scaled(count, row), _scaled(count + wraps * _WRAP, row), _scaled(held, row)
    rest = ideal - truth
    return {
        "multiplexing": 0 if row["in_error"] else rest,
        "frozen": rest if row["in_error"] else 0,
        "stopped": min(seen - ideal, 0),
        "surplus": max(seen - ideal, 0),
        "overflow": scaled - seen,
    }


def _round_trips(plain: Mapping[str, Any]) -> Json:
    trips, traps = plain["round_trips"], sum(plain["traps"].values())
    injected = plain["interrupts_injected"]
    return {
        "total": trips["total"],
        "per_trap": trips["traps"] / traps if traps else None,
        "per_interrupt": trips["interrupts"] / injected if injected else None,
    }
