"""What the core's judge tells, as JSON by hand."""

from __future__ import annotations

from typing import Any

import orjson

from services import _pmu
from services.judge.invariants import INVARIANTS
from services.registers import PMEVCNTR

VCPUS = {1: "vm0/0", 2: "vm0/1", 3: "vm1/0"}  # by their contexts; the host's pCPU has 0


def violation(**changed: Any) -> dict[str, Any]:
    return {
        "invariant": "I1",
        "kind": "guest_read",
        "cpu": 0,
        "cycle": 1652,
        "register": PMEVCNTR(0),
        "counter": 0,
        "victim": "vm:3",
        "other": "vm:1",
        "expected": 0,
        "actual": 0xFFFF_FC18,
        "window": None,
        "since": 1640,
        "owned": [{"counter": 0, "party": "vm:1", "since": 12}, {"counter": 0, "party": "vm:3", "since": 1640}],
        "counted": [],
        "times": 2,
        "before": [
            {"cpu": 0, "cycle": 1640, "el": 2, "party": "kvm", "what": "note", "a": _pmu.NOTE_VCPU_LOAD, "b": 3},
            {"cpu": 0, "cycle": 1652, "el": 1, "party": "vm:3", "what": "MRS", "a": PMEVCNTR(0), "b": 0xFFFF_FC18},
        ],
        **changed,
    }


def judgement(*violations: dict[str, Any], **changed: Any) -> bytes:
    plain = {
        "violations": violations,
        "premises": dict.fromkeys(INVARIANTS, 1),
        "windows": {"before_synchronisation": {"uses": 3, "edge": 1}},
        **changed,
    }
    return orjson.dumps(plain)
