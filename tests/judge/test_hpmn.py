"""MDCR_EL2.HPMN above the CPU's N, or 0 without FEAT_HPMN0, is CONSTRAINED UNPREDICTABLE: KVM writes neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmulab.embedded import run_embedded
from tests.script.scenes import experiment

STEPS = "vm0/0 switch\nvm0/0 mrs register=PMSELR_EL0\n"
WORLD = "[machine]\ncounters = 6\nfgt = 1\nhpmn0 = {hpmn0}\n\n[[guest]]\ncounters = 0\npin = [0]\n"
POSTED = tuple(f"partitioned-v{n}" for n in range(1, 10))
WRITE_ZERO = ("partitioned-v2", "partitioned-v3", "partitioned-v4", "partitioned-v5")


@pytest.mark.parametrize("hpmn0", [False, True])
@pytest.mark.parametrize("design", ["partitioned", *POSTED])
def test_a_vm_without_event_counters_has_hpmn_0_where_the_cpu_has_feat_hpmn0(
    tmp_path: Path, design: str, hpmn0: bool
) -> None:
    of = experiment(tmp_path, STEPS, design=design, world=WORLD.format(hpmn0=str(hpmn0).lower()))
    (run,) = run_embedded(of).runs
    found = [(one.invariant, one.victim, one.broken) for one in run.violations if one.kind == "unpredictable_hpmn"]
    broken = (
        "vm0/0 has its counters CONSTRAINED UNPREDICTABLE: KVM sets MDCR_EL2.HPMN to 0, and the CPU has no FEAT_HPMN0"
    )
    assert found == ([("I8", "vm0/0", broken)] if design in WRITE_ZERO and not hpmn0 else [])
