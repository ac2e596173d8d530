"""docs/result.md has every field of a result."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from services.result import Counted, Design, Failure, Interval, KilledTask, Owner, RefusedEvent
from tests.cli.conftest import MIGRATED, violation

DOCS = Path(__file__).parents[2] / "docs"
# Their keys are data, or those of `time`.
OPEN = (
    "assumed",
    "fitted",
    "assumed_costs",
    "choices",
    "design.axes",
    "kvm.traps.by_register",
    "bill.host",
    "bill.host_by_cost",
    "bill.guests_by_cost",
    "cputime",
    "premises",
    "windows",
)


def fields(value: dict[str, Any], prefix: str = "") -> set[str]:
    found = set()
    for key, child in value.items():
        name = prefix + key
        found.add(name)
        if isinstance(child, dict) and name not in OPEN and key != "published":
            found |= fields(child, f"{name}.")
    return found


def test_every_field_is_documented(result: dict[str, Any]) -> None:
    documented = set(re.findall(r"`([a-z0-9_.]+)`", (DOCS / "result.md").read_text()))
    run = result["runs"][0]
    guest = run["guests"][0]
    run["violations"] = [found := violation("I1", "read", declared="", known=False, only_with=[MIGRATED])]
    failure = Failure(0, Design("mediated", {}), refused=True, problem="", remedy="")
    refused = RefusedEvent("", "", "")
    everything = (
        fields(result)
        | fields(run)
        | fields(guest)
        | fields(found)
        | fields(found["before"][0])
        | fields(MIGRATED)
        | fields(asdict(Owner(None, "", 0)))
        | fields(asdict(Counted("", 0, 0, "")))
        | fields(run["windows"].popitem()[1])
        | fields(guest["events"][0])
        | fields(guest["interrupt_latency"][0])
        | fields(asdict(failure) | {"design": None})
        | fields(asdict(refused))
        | fields(asdict(KilledTask("", "", "", "")))
        | fields(asdict(Interval("", "", 0, 0, None, 0, 0, 0)))
    )
    parents = {name for name in everything for other in everything if other.startswith(f"{name}.")}
    assert everything - parents - documented == set()
