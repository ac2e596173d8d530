"""What a design gives up by its nature it declares wherever that shows: what a guest misses its VMM misses, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmulab.embedded import run_embedded
from services.result import Violation
from tests.script.scenes import RESET, experiment

COUNTING = """
    vm0/0 msr register=PMEVTYPER0_EL0 value=8
    vm0/0 msr register=PMEVCNTR0_EL0 value={start}
    vm0/0 msr register=PMCCFILTR_EL0 value=0
    vm0/0 msr register=PMCNTENSET_EL0 value=0x80000001
    vm0/0 msr register=PMCR_EL0 value=0x41
    """
RUN = "vm0/0 run cycles=1100 el={el} rates={{INST_RETIRED=1}}\n"
GET = """
    vm0/0 preempt
    vm0/0 get_one_reg register=PMEVCNTR0_EL0
    vm0/0 get_one_reg register=PMCCNTR_EL0
    vm0/0 get_one_reg register=PMOVSSET_EL0
    """
FROM_0, AT_EL0, AT_EL1 = COUNTING.format(start=0), RUN.format(el=0), RUN.format(el=1)
OVERFLOWS = COUNTING.format(start=0xFFFF_FFFF - 1000)
PINNED = 'host perf_open name=p events=["instructions:D","branches:D","cycles:D"] pcpu=0\n'

MACHINE = "[machine]\ncounters = 2\n"
TWO_KINDS = '[machine]\ncore = ["neoverse-n1", "cortex-a76"]\npmuver = 4\n'
GUEST = "[[guest]]\ncounters = 1\nvcpus = 1\n"


def found(directory: Path, steps: str, world: str, design: str) -> tuple[Violation, ...]:
    (run,) = run_embedded(experiment(directory, steps, design=design, world=world + GUEST)).runs
    assert [one for one in run.violations if one.counts] == []
    return run.violations


@pytest.mark.parametrize(
    ("world", "steps", "designs"),
    [
        pytest.param(MACHINE, PINNED + RESET + FROM_0 + AT_EL1, ["emulated", "emulated-6.15"], id="pinned"),
        pytest.param(
            TWO_KINDS,
            "vm0/0 migrate pcpu=1\n" + RESET + FROM_0 + AT_EL1,
            ["emulated", "emulated-6.15"],
            id="another PMU",
        ),
        pytest.param(
            MACHINE + "pmi_delay = 3000\n", RESET + OVERFLOWS + AT_EL1, ["emulated", "emulated-6.15"], id="pmi_delay"
        ),
        pytest.param(
            MACHINE,
            RESET + FROM_0 + "vm0/0 msr register=PMEVCNTR0_EL0 value=5\n" + AT_EL0,
            ["emulated", "emulated-6.15"],
            id="written",
        ),
        pytest.param(
            MACHINE, RESET + FROM_0 + "vm0/0 msr register=PMCR_EL0 value=0x47\n" + AT_EL0, ["emulated-6.15"], id="reset"
        ),
    ],
)
def test_what_a_guest_s_event_does_not_count_is_missing_in_what_its_vmm_reads(
    tmp_path: Path, world: str, steps: str, designs: list[str]
) -> None:
    for design in designs:
        kinds = {(one.invariant, one.kind) for one in found(tmp_path, steps + GET, world, design)}
        assert ("I11", "one_reg") in kinds, design


@pytest.mark.parametrize("before", ["", "vm0/0 filter event=8 deny=true\n", "vm0/0 set_nr_counters value=0\n"])
def test_what_gunyah_does_not_filter_and_not_hide_it_declares(tmp_path: Path, before: str) -> None:
    accesses = "vm0/0 mrs register=PMCEID0_EL0\nvm0/0 mrs register=PMICNTR_EL0\n"
    kinds = {
        one.invariant
        for one in found(
            tmp_path,
            before + RESET + FROM_0 + AT_EL1 + accesses + "vm0/0 mrs register=PMEVCNTR0_EL0\n" + GET,
            MACHINE + "icntr = true\n",
            "gunyah",
        )
    }
    assert kinds >= ({"I1", "I8"} if "filter" in before else {"I8"})
