"""What live clients ask for that cannot be simulated is refused when it arrives."""

from __future__ import annotations

import pytest

from pmulab import scenario
from services.experiment import PhaseSpec, TaskSpec
from services.kvm.requests import Request
from services.kvm.simulation import Simulation
from services.registers import CHAIN, CPU_CYCLES, INST_RETIRED, SW_INCR
from services.workload import ONE

WORK = TaskSpec("work", (PhaseSpec(profile=0, cycles=1000, el=0),))


@pytest.mark.parametrize(
    ("event", "rate", "why"),
    [
        (CPU_CYCLES, 3 * ONE, "CPU_CYCLES happens once per cycle, not 3 times"),
        (SW_INCR, ONE, "SW_INCR has no rate"),
        (CHAIN, 0, "CHAIN has no rate"),
        (INST_RETIRED, ONE << 16, "INST_RETIRED happens 65536 times per cycle; give fewer than 65,536"),
        (INST_RETIRED, -1, "occurrences per cycle"),
        (1 << 16, ONE, "event numbers have 16 bits"),
    ],
)
def test_a_profile_with_a_rate_that_an_event_cannot_have(event: int, rate: int, why: str) -> None:
    (experiment,) = scenario.load("quick", designs=["partitioned"]).experiments
    requests = Simulation(experiment).requests
    with pytest.raises(ValueError, match=why):
        requests.add(Request("vm0", 0, (((event, rate),),), task=WORK))
    requests.add(Request("vm0", 0, (((CPU_CYCLES, ONE),),), task=WORK))
