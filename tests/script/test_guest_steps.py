"""What a scripted guest does, and what its steps give: on every design what the architecture gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from services import registers as r
from services.registers import MASK32
from tests.script.scenes import ONE_VM, RESET, experiment, play, read

DESIGNS = ["emulated", "partitioned", "mediated", "partitioned,swap=eager,traps=slow-path"]
UNKNOWN, TRAPPED_SYSREG = 0, 0x18  # ESR_EL1.EC: UNDEFINED, and an MRS or MSR that is EL1's to decide
COUNTING = """
vm0/0 msr register=PMEVTYPER0_EL0 value=0x08
vm0/0 msr register=PMEVCNTR0_EL0 value=0
vm0/0 msr register=PMCNTENSET_EL0 value=1
vm0/0 msr register=PMCR_EL0 value=1
vm0/0 isb
"""


def ec(step: dict[str, int]) -> int:
    return step["esr"] >> 26


@pytest.mark.parametrize("design", DESIGNS)
async def test_a_guest_reads_what_it_has_written(tmp_path: Path, design: str) -> None:
    steps = RESET + "vm0/0 msr register=PMCNTENSET_EL0 value=0x80000005\nvm0/0 mrs register=PMCNTENCLR_EL0\n"
    assert read(await play(experiment(tmp_path, steps, design=design))) == [0x8000_0005]


@pytest.mark.parametrize("design", DESIGNS)
async def test_it_works_at_the_rates_that_the_step_gives(tmp_path: Path, design: str) -> None:
    """At EL0, where nothing else runs and nothing else is counted."""
    steps = (
        RESET
        + f"""
    vm0/0 msr register=PMEVTYPER0_EL0 value={0x08 | r.PMEVTYPER_P}
    vm0/0 msr register=PMEVCNTR0_EL0 value=7
    vm0/0 msr register=PMCNTENSET_EL0 value=1
    vm0/0 msr register=PMCR_EL0 value=1
    vm0/0 run cycles=1000 el=0 rates={{INST_RETIRED=3}}
    vm0/0 mrs register=PMEVCNTR0_EL0
    vm0/0 run cycles=1000 el=0 rates={{INST_RETIRED=0}}
    vm0/0 run cycles=1000 rates={{INST_RETIRED=5}}
    vm0/0 mrs register=PMEVCNTR0_EL0
    """
    )
    assert read(await play(experiment(tmp_path, steps, design=design))) == [3007, 3007]


async def test_or_at_those_of_a_workload_that_is_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('instructions = 1000\nipc = { value = 2, source = "x" }\n')
    work = "vm0/0 run cycles=1000 el=0 workload=own.toml\n"
    steps = f"host perf_open name=a events=instructions:u\nvm0/0 switch\n{work}host perf_read name=a"
    told = await play(experiment(tmp_path, steps))
    assert told[-1]["events"][0]["count"] == 2000


async def test_a_register_of_el2_is_undefined_to_it(tmp_path: Path) -> None:
    (*_, step) = await play(experiment(tmp_path, "vm0/0 switch\nvm0/0 mrs register=MDCR_EL2"))
    assert ec(step) == UNKNOWN
    assert "value" not in step


@pytest.mark.parametrize("access", ["mrs register=PMCR_EL0", "msr register=PMCR_EL0 value=1"])
@pytest.mark.parametrize("design", DESIGNS)
async def test_any_access_is_undefined_to_a_guest_without_a_pmu(tmp_path: Path, design: str, access: str) -> None:
    """It traps, and KVM injects the exception."""
    world = ONE_VM + "pmuver = 0\n"
    (*_, step) = await play(experiment(tmp_path, f"vm0/0 switch\nvm0/0 {access}", design=design, world=world))
    assert (ec(step), step["trapped"]) == (UNKNOWN, True)


@pytest.mark.parametrize(("userenr", "outcome"), [(0, TRAPPED_SYSREG), (r.PMUSERENR_EN, None)])
async def test_el0_reads_what_pmuserenr_lets_it(tmp_path: Path, userenr: int, outcome: int | None) -> None:
    steps = (
        RESET
        + f"""
    vm0/0 msr register=PMCNTENSET_EL0 value=2
    vm0/0 msr register=PMUSERENR_EL0 value={userenr}
    vm0/0 mrs register=PMCNTENSET_EL0 el=0
    vm0/0 mrs register=PMCNTENSET_EL0
    """
    )
    *_, at_el0, at_el1 = await play(experiment(tmp_path, steps))
    if outcome is None:
        assert at_el0["value"] == 2
    else:
        assert ec(at_el0) == outcome
    assert at_el1["value"] == 2  # whatever came of that, its kernel goes on


@pytest.mark.parametrize("design", DESIGNS)
async def test_el0_writes_what_pmuserenr_lets_it(tmp_path: Path, design: str) -> None:
    for userenr, allowed in ((0, False), (r.PMUSERENR_EN, True)):
        steps = (
            RESET
            + f"""
        vm0/0 msr register=PMUSERENR_EL0 value={userenr}
        vm0/0 msr register=PMCNTENSET_EL0 value=4 el=0
        vm0/0 mrs register=PMCNTENSET_EL0
        """
        )
        *_, at_el0, at_el1 = await play(experiment(tmp_path, steps, design=design))
        assert ("esr" not in at_el0) is allowed
        assert at_el1["value"] == (4 if allowed else 0)


@pytest.mark.parametrize("design", DESIGNS)
async def test_it_runs_up_to_the_overflow_whose_counter_value_was_written_before(tmp_path: Path, design: str) -> None:
    steps = (
        RESET
        + COUNTING.replace("value=0\n", f"value={MASK32 - 4999}\n")
        + """
    vm0/0 msr register=PMINTENSET_EL1 value=1
    vm0/0 irq
    vm0/0 run cycles=100000 until=event rates={INST_RETIRED=1}
    vm0/0 irq
    vm0/0 irq
    """
    )
    *_, early, work, taken, late = await play(experiment(tmp_path, steps, design=design))
    assert (early["taken"], late["taken"]) == (0, 0)
    assert work["interrupted"] == 1
    assert 0 < work["cycles"] <= 5000
    assert (taken["taken"], taken["value"]) == (1, 1)


async def test_it_runs_all_its_cycles_if_nothing_interrupts_it(tmp_path: Path) -> None:
    (*_, work) = await play(experiment(tmp_path, "vm0/0 switch\nvm0/0 run cycles=12345 el=0 until=event"))
    assert (work["cycles"], work["interrupted"]) == (12345, 0)


async def test_its_wfi_blocks_the_vcpu_which_runs_again_when_it_is_woken(tmp_path: Path) -> None:
    steps = (
        RESET
        + """
    vm0/0 wfi
    vm0/0 wake
    vm0/0 switch
    vm0/0 mrs register=PMSELR_EL0
    """
    )
    *_, wfi, _, _, access = await play(experiment(tmp_path, steps))
    assert wfi["blocked"] == 1
    assert "value" in access


async def test_a_wfi_never_polls(tmp_path: Path) -> None:
    """Though KVM would, after one that was short."""
    again = "vm0/0 wfi\nvm0/0 wake\nvm0/0 switch\n"
    told = await play(experiment(tmp_path, RESET + 3 * again))
    assert [step["blocked"] for step in told if "blocked" in step] == [1, 1, 1]


async def test_a_wfi_with_an_interrupt_pending_does_not_block(tmp_path: Path) -> None:
    steps = (
        RESET
        + """
    vm0/0 msr register=PMCR_EL0 value=1
    vm0/0 msr register=PMINTENSET_EL1 value=1
    vm0/0 msr register=PMOVSSET_EL0 value=1
    vm0/0 wfi
    vm0/0 irq
    """
    )
    *_, wfi, irq = await play(experiment(tmp_path, steps))
    assert (wfi["blocked"], irq["taken"]) == (0, 1)


async def test_under_notrap_a_wfi_leaves_the_vcpu_loaded(tmp_path: Path) -> None:
    world = '[kvm]\nwfi_trap_policy = "notrap"\n' + ONE_VM
    steps = RESET + "vm0/0 wfi\nvm0/0 mrs register=PMSELR_EL0"
    *_, wfi, access = await play(experiment(tmp_path, steps, world=world))
    assert (wfi["blocked"], "value" in access) == (0, True)
