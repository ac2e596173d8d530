"""PMCR_EL0.E that another guest has set and nobody has taken off the CPU: it is I1 by that guest, where it is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmulab.embedded import run_embedded
from tests.script.scenes import TWO_VMS, experiment

STEPS = """
vm0/0 switch
vm0/0 msr register=PMCR_EL0 value=0
vm1/0 switch
vm1/0 msr register=PMCR_EL0 value=0
vm0/0 switch
vm0/0 msr register=PMCR_EL0 value=1
vm1/0 switch
vm1/0 mrs register=PMCR_EL0
"""


@pytest.mark.parametrize("design", ["raw", "partitioned", "mediated", "emulated"])
def test_a_guest_s_enable_that_stays_on_the_cpu_leaks_to_the_next_guest(tmp_path: Path, design: str) -> None:
    (run,) = run_embedded(experiment(tmp_path, STEPS, design=design, world=TWO_VMS)).runs
    found = {(one.invariant, one.victim, one.other) for one in run.violations if one.register == "PMCR_EL0"}
    of_vm1 = {one for one in found if one[1] == "vm1/0"}
    assert of_vm1 == ({("I1", "vm1/0", "vm0/0")} if design == "raw" else set())
