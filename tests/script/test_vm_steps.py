"""What a VMM asks of its VM, and how VMs come and go."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.embedded import Embedded
from tests.script.scenes import ONE_VM, RESET, TWO_VMS, experiment, play, read

DESIGNS = ["emulated", "partitioned", "mediated"]


@pytest.mark.parametrize("design", DESIGNS)
async def test_what_is_set_by_one_reg_is_what_the_guest_reads_and_the_other_way_round(
    tmp_path: Path, design: str
) -> None:
    steps = """
    vm0/0 set_one_reg register=PMEVCNTR1_EL0 value=41
    vm0/0 switch
    vm0/0 mrs register=PMEVCNTR1_EL0
    vm0/0 msr register=PMEVCNTR1_EL0 value=42
    vm0/0 preempt
    vm0/0 get_one_reg register=PMEVCNTR1_EL0
    """
    assert read(await play(experiment(tmp_path, steps, design=design))) == [41, 42]


@pytest.mark.parametrize("action", ["get_one_reg register=PMCR_EL0", "set_one_reg register=PMCR_EL0 value=0"])
async def test_one_reg_of_a_vcpu_that_runs_is_ebusy(tmp_path: Path, action: str) -> None:
    told = await play(experiment(tmp_path, f"vm0/0 switch\nvm0/0 {action}"))
    assert told[-1]["error"].startswith("EBUSY")


async def test_n_is_settable_up_to_the_first_run(tmp_path: Path) -> None:
    steps = """
    vm0/0 set_nr_counters value=7
    vm0/0 set_nr_counters value=2
    vm0/0 switch
    vm0/0 mrs register=PMCR_EL0
    vm0/0 set_nr_counters value=3
    """
    many, _, _, pmcr, late = await play(experiment(tmp_path, steps, design="emulated"))
    assert (many["error"][:6], late["error"][:5]) == ("EINVAL", "EBUSY")
    assert pmcr["value"] >> 11 & 31 == 2


@pytest.mark.parametrize("design", DESIGNS)
async def test_an_event_that_the_filter_denies_counts_nothing(tmp_path: Path, design: str) -> None:
    counting = """
    vm0/0 msr register=PMEVTYPER0_EL0 value=0x80000008
    vm0/0 msr register=PMEVCNTR0_EL0 value=5
    vm0/0 msr register=PMCNTENSET_EL0 value=1
    vm0/0 msr register=PMCR_EL0 value=1
    vm0/0 run cycles=1000 el=0 rates={INST_RETIRED=1}
    vm0/0 mrs register=PMEVCNTR0_EL0
    """
    deny = "vm0/0 filter event=8 count=1 deny=true\n"
    assert read(await play(experiment(tmp_path, RESET + counting, design=design))) == [1005]
    assert read(await play(experiment(tmp_path, deny + RESET + counting, design=design))) == [5]


async def test_a_vm_that_is_killed_leaves_nothing_in_the_host(tmp_path: Path) -> None:
    """kvm_pmu_vcpu_destroy releases its backing events, and the sessions on its thread have ended."""
    steps = (
        RESET
        + """
    vm0/0 msr register=PMCNTENSET_EL0 value=3
    vm0/0 msr register=PMCR_EL0 value=1
    host perf_open name=a events=instructions:u thread=vm0/0
    host perf_open name=b events=branches
    vm0/0 run cycles=1000 el=0 rates={INST_RETIRED=1}
    """
    )
    for killed in (False, True):
        of = experiment(tmp_path, steps + ("vm0 kill\nhost perf_read name=a" if killed else ""), design="emulated")
        lab = Embedded.of(of)
        await lab.simulation.run()
        assert lab.host.perf is not None
        assert bool(lab.host.counters) is not killed
        assert [event.attr.name for event in lab.host.perf.events.values() if event.handle < 0] == (
            ["branches"] if killed else ["instructions:u", "branches"]
        )
    told = (await lab.simulation.result())["steps"]
    assert told[-1]["events"][0]["count"] == 1000  # read when the thread exited


@pytest.mark.parametrize("design", ["partitioned", "partitioned-v8"])
async def test_its_counters_are_the_hosts_again(tmp_path: Path, design: str) -> None:
    """As after any vcpu_put under dynamic reservation, at the next rotation at the latest."""
    world = ONE_VM.replace("counters = 6", "counters = 6\nicntr = false")
    steps = (
        RESET
        + """
    host perf_open name=a events={instructions,branches}
    host perf_open name=b events={branch-misses,dTLB-loads}
    host perf_read name=b
    vm0 kill
    host/0 mux
    host/0 run cycles=1000
    host perf_read name=b
    """
    )
    told = await play(experiment(tmp_path, steps, design=design, world=world))
    loaded, after = (one["events"][0] for one in told if "events" in one)
    assert after["running"] > loaded["running"]


async def test_a_vm_killed_while_it_is_preempted_amid_a_handler_comes_to_its_end_first(tmp_path: Path) -> None:
    steps = "vm0/0 switch\nvm0/0 preempt at=4\nvm0/0 mrs register=PMOVSSET_EL0\nvm0 kill\nhost/0 run cycles=100"
    told = await play(experiment(tmp_path, steps, design="partitioned-v5"))
    assert [one["step"] for one in told if "value" in one] == [3]


async def test_a_vm_is_created_beside_another_that_runs(tmp_path: Path) -> None:
    steps = (
        RESET
        + "vm0/0 msr register=PMSELR_EL0 value=3\nvm1 create\nvm1/0 switch\nvm0/0 switch\nvm0/0 mrs register=PMSELR_EL0"
    )
    assert read(await play(experiment(tmp_path, steps, world=TWO_VMS))) == [3]
