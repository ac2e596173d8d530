"""What a counter has counted by a lower one that is UNKNOWN is not known, whatever becomes of the lower one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmulab.embedded import run_embedded
from tests.script.scenes import experiment

CHAINED = """
vm0/0 switch
vm0/0 msr register=PMCR_EL0 value=1
vm0/0 msr register=PMCNTENSET_EL0 value=3
vm0/0 msr register=PMEVTYPER1_EL0 value=0x1e
vm0/0 msr register=PMEVCNTR0_EL0 value=0xffffffff
vm0/0 msr register=PMSWINC_EL0 value=1
vm0/0 mrs register=PMEVCNTR1_EL0
vm0/0 msr register=PMEVTYPER0_EL0 value=8
"""
RUN = "vm0/0 run el=0 cycles=100\n"
READ = "vm0/0 mrs register=PMEVCNTR1_EL0\n"
THEN = {
    "another type, and a load": "vm0/0 msr register=PMEVTYPER0_EL0 value=0\nvm0/0 preempt\nvm0/0 switch\n",
    "a load": "vm0/0 preempt\nvm0/0 switch\n",
    "a value": RUN + "vm0/0 msr register=PMEVCNTR0_EL0 value=7\n" + READ,
    "a reset": RUN + "vm0/0 msr register=PMCR_EL0 value=3\n" + READ,
    "no chain": "vm0/0 msr register=PMEVTYPER1_EL0 value=8\n" + READ,
}


@pytest.mark.parametrize("then", THEN)
@pytest.mark.parametrize("fgt", [True, False])
def test_nothing_is_held_against_what_may_have_been_carried(tmp_path: Path, then: str, fgt: bool) -> None:
    of = experiment(tmp_path, CHAINED + THEN[then], design="partitioned" if fgt else "partitioned,traps=slow-path")
    (run,) = run_embedded(of).runs
    assert run.violations == ()
