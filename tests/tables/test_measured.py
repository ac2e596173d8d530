"""Workloads from a user's own perf stat."""

from __future__ import annotations

import pytest

from pmulab.scenario import measured
from services import events, workload
from services.errors import UserError
from services.registers import INST_RETIRED

JSON = """\
{"counter-value" : "2000000.000000", "unit" : "", "event" : "cycles:u", "event-runtime" : 1000000, "pcnt-running" : 100.00, "metric-value" : "2.000000", "metric-unit" : "GHz"}
{"counter-value" : "3000000.000000", "unit" : "", "event" : "instructions:u", "event-runtime" : 1000000, "pcnt-running" : 100.00}
{"counter-value" : "20000.000000", "unit" : "", "event" : "r10:u", "event-runtime" : 500000, "pcnt-running" : 50.00}
{"counter-value" : "1.500000", "unit" : "msec", "event" : "task-clock", "event-runtime" : 1500000, "pcnt-running" : 100.00}
{"counter-value" : "<not supported>", "unit" : "", "event" : "LLC-loads:u", "event-runtime" : 0, "pcnt-running" : 0.00}
{"metric-value" : "1.000000", "metric-unit" : "insn per cycle"}
"""  # noqa: E501 (as perf prints it)

CSV = """\
# started on Sun Nov 22 13:00:00 2026

2000000,,cycles:u,1000000,100.00,2.000,GHz
3000000,,instructions:u,1000000,100.00,1.50,insn per cycle
20000,,armv8_pmuv3_0/event=0x10,long=0/u,500000,50.00,,
1.50,msec,task-clock,1500000,100.00,1.000,CPUs utilized
<not counted>,,LLC-loads:u,0,0.00,,
"""

INTERVALS = """\
     1.000100000,1200000,,cycles:u,1000000,100.00,,
     1.000100000,2000000,,instructions:u,1000000,100.00,,
     2.000200000,800000,,cycles:u,1000000,100.00,,
     2.000200000,1000000,,instructions:u,1000000,100.00,,
     2.000200000,20000,,branch-misses:u,1000000,100.00,,
"""

PER_CPU = """\
CPU0,1200000,,cycles:u,1000000,100.00,,
CPU1,800000,,cycles:u,1000000,100.00,,
CPU0,2000000,,instructions:u,1000000,100.00,,
CPU1,1000000,,instructions:u,1000000,100.00,,
CPU0,20000,,BR_MIS_PRED:u,1000000,100.00,,
"""


@pytest.mark.parametrize("text", [JSON, CSV, INTERVALS, PER_CPU], ids=["-j", "-x,", "-I", "-A"])
def test_rates_are_what_perf_stat_counted(text: str) -> None:
    own = measured.parse("app", text, "app.json")
    (user,) = own.phases
    assert (user.el, user.cycles, user.instructions) == (0, 2_000_000, 3_000_000)
    assert dict(user.rates)[INST_RETIRED] == workload.rate(3, 2)
    assert dict(user.rates)[events.number("BR_MIS_PRED")] == workload.rate(1, 100)
    assert "BR_MIS_PRED" not in own.assumed
    assert "LL_CACHE_RD" in own.assumed


def test_user_and_kernel_mode_are_a_phase_each() -> None:
    own = measured.parse(
        "app", "10,,cycles:u,1,100\n10,,instructions:u,1,100\n7,,cycles:k,1,100\n7,,instructions:k,1,100\n", "app.csv"
    )
    assert [(phase.el, phase.cycles) for phase in own.phases] == [(0, 10), (1, 7)]


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", 1, "no event was counted"),
        ("hello", 1, "is not a line that perf stat"),
        ("10,,cycles,1,100", 1, "no count of INST_RETIRED at EL0"),
        ("10,,cycels,1,100", 1, "unknown event 'cycels'"),
        ("10,,cycles,1,100\n-5,,instructions,1,100", 2, "'-5' is not a count"),
        ('{"event": "cycles", "counter-value": "ten"}', 1, "'ten' is not a count"),
        ("{", 1, "not JSON"),
    ],
)
def test_what_perf_stat_would_not_have_printed_is_refused_with_its_line(text: str, line: int, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as refused:
        measured.parse("app", text, "app.json")
    assert refused.value.where == f"app.json:{line}"
