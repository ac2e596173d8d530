"""A fixed `pmulab.result/2`: two designs, one guest, a host event."""

from __future__ import annotations

from typing import Any

import pytest

TASK = "guest.0.task.0.perf"
NOT_EXERCISED = ("I10", "I11")
EXERCISED = {f"I{n}": 0 if f"I{n}" in NOT_EXERCISED else 100 * n for n in range(1, 13)}


def event(
    session: str, name: str, count: int, scaled: int | None, truth: int, running_ns: int, samples: int
) -> dict[str, Any]:
    return {
        "session": session,
        "event": name,
        "count": count,
        "scaled": scaled,
        "truth": truth,
        "enabled_ns": 4_000_000_000,
        "running_ns": running_ns,
        "samples": samples,
        "in_error": 0,
        "error": None
        if scaled is None
        else {"multiplexing": scaled - truth + 30_000, "stopped": -30_000, "surplus": 0, "overflow": 0},
    }


MIGRATED = {"what": "migration", "steps": [4]}


def violation(invariant: str, kind: str, **changed: Any) -> dict[str, Any]:
    return {
        "invariant": invariant,
        "kind": kind,
        "broken": "vm0/0 reads what it may not",
        "cpu": 0,
        "cycle": 1_234_567,
        "register": "PMEVCNTR1_EL0",
        "counter": 1,
        "victim": "vm0/0",
        "other": "host",
        "expected": 0,
        "actual": 412,
        "compared": "expected 0x0, actual 0x19c: 412 too many",
        "source": "Arm ARM (DDI 0487), PMEVCNTR<n>_EL0",
        "window": None,
        "since": 1_234_000,
        "owners": [],
        "counted": [],
        "times": 3,
        "before": [
            {"cpu": 0, "cycle": 1_233_900, "el": 2, "party": "host", "text": "MSR PMEVCNTR1_EL0, 0x19c"},
            {"cpu": 0, "cycle": 1_234_000, "el": 2, "party": "kvm", "text": "vcpu_load"},
            {"cpu": 0, "cycle": 1_234_567, "el": 1, "party": "vm0/0", "text": "MRS PMEVCNTR1_EL0 = 0x19c"},
        ],
        **changed,
    }


def run(name: str, axes: dict[str, str], published: dict[str, Any] | None, **changed: Any) -> dict[str, Any]:
    return {
        "design": {"name": name, "axes": axes, "fallbacks": []},
        "choices": {},
        "digest": "0123abcd" if name == "emulated" else "89ef4567",
        "virtual_seconds": 4.1,
        "wall_seconds": 9.87,
        "time": {"guest": 3.0, "host_kernel": 1.0, "host_user": 0.0, "idle": 0.1},
        "cputime": {"guest": 3.5, "host_kernel": 0.5, "host_user": 0.0, "idle": 0.1},
        "bill": {
            "host": {"trap": 0.6, "perf re-create": 0.25, "barrier": 0.15, "swap": 0.0},
            "host_by_cost": {"exit_full_sysreg": 0.6, "perf_release_create": 0.25, "isb": 0.15, "sgi": 0.0},
            "guests_by_cost": {"exit_full_sysreg": 0.0, "sample": 0.031, "isb": 0.001},
        },
        "kvm": {
            "traps": {
                "total": 1_234_567,
                "by_register": {
                    "PMCR_EL0:w": 500_000,
                    "PMCR_EL0:r": 400_000,
                    "PMEVCNTR0_EL0:w": 200_000,
                    "PMEVCNTR0_EL0:r": 100_000,
                    "PMOVSCLR_EL0:w": 30_000,
                    "PMOVSCLR_EL0:r": 4_000,
                    "PMINTENSET_EL1:w": 500,
                    "PMINTENCLR_EL1:w": 67,
                },
            },
            "swaps": {"loads": 0, "puts": 0, "register_writes": 0, "register_reads": 0},
            "interrupts_injected": 45_678,
        },
        "guests": [
            {
                "name": "vm0",
                "elapsed_seconds": 4.1,
                "user_seconds": 3.9,
                "system_seconds": 0.16,
                "true_user_seconds": 2.9,
                "true_system_seconds": 0.1,
                "events": [
                    event(TASK, "cycles", 9_000_000_000, 9_000_000_000, 9_090_000_000, 4_000_000_000, 4100),
                    event(TASK, "instructions:u", 5_000_000_000, 10_000_000_000, 10_100_000_000, 2_000_000_000, 2050),
                    event(TASK, "branch-misses", 0, None, 0, 0, 0),
                ],
                "interrupt_latency": [{"times": 4150, "p50_ns": 1466, "p99_ns": 2300, "max_ns": 90_500}],
                "vcpu_load": [{"times": 12, "p50_ns": 400, "p99_ns": 500, "max_ns": 500}],
                "vcpu_put": [{"times": 11, "p50_ns": 200, "p99_ns": 300, "max_ns": 300}],
            }
        ],
        "host": {
            "events": [event("host.perf.0", "cycles:H", 3_000_000, 3_000_000, 3_000_000, 4_000_000_000, 0)],
            "refused": [],
            "interrupt_latency": [{"times": 0, "p50_ns": None, "p99_ns": None, "max_ns": None}],
        },
        "round_trips": {"total": 0, "per_trap": 0.0, "per_interrupt": 0.0},
        "assumed_costs": {"exit_full_sysreg": "400 ns: between two that were measured"},
        "published": published,
        "judged": True,
        "violations": [],
        "premises": EXERCISED,
        "windows": {"before_synchronisation": {"uses": 3, "edge": 1}},
        "known": [],
        "stopped": False,
        "hung": "",
        **changed,
    }


@pytest.fixture
def result() -> dict[str, Any]:
    """As JSON, for a test to change."""
    source = {
        "source": "a cover letter",
        "elapsed_seconds": None,
        "user_seconds": None,
        "system_seconds": None,
        "fitted": ["elapsed_seconds"],
    }
    swaps = {"loads": 12, "puts": 11, "register_writes": 381, "register_reads": 176}
    traps = {"total": 90, "by_register": {"PMOVSCLR_EL0:w": 60, "PMEVTYPER0_EL0:w": 30}}
    return {
        "schema": "pmulab.result/2",
        "version": "0.1.0",
        "scenario": "gzip-record",
        "seed": 1,
        "topology": "embedded",
        "runs": [
            run("emulated", {"kernel": "6.12"}, source | {"elapsed_seconds": 4.143, "system_seconds": 0.159}),
            run(
                "partitioned",
                {"swap": "eager", "traps": "fgt"},
                source | {"elapsed_seconds": 3.139, "system_seconds": 0.11},
                virtual_seconds=3.2,
                time={"guest": 3.0, "host_kernel": 0.2, "host_user": 0.0, "idle": 0.0},
                kvm={"traps": traps, "swaps": swaps, "interrupts_injected": 34_567},
            ),
        ],
        "failures": [],
        "assumed": {"clock": "3 GHz", "pin": "alone"},
        "fitted": {"perf_factor": "one factor"},
    }
