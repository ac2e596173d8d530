"""Where a vCPU's thread goes, and what comes amid KVM's own steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.embedded import Embedded
from services.kvm.stepped import SteppedVCpu
from tests.script.scenes import FLOATING, ONE_VM, RESET, TWO_VMS, experiment, play, read

COUNTING = """
vm0/0 msr register=PMEVTYPER0_EL0 value=0x80000008
vm0/0 msr register=PMEVCNTR0_EL0 value=100
vm0/0 msr register=PMCNTENSET_EL0 value=1
vm0/0 msr register=PMCR_EL0 value=1
vm0/0 run cycles=1000 el=0 rates={INST_RETIRED=1}
"""
READ = "vm0/0 mrs register=PMEVCNTR0_EL0\n"
DESIGNS = ["emulated", "partitioned", "mediated", "partitioned,swap=eager", "partitioned,reservation=static"]


def step(told: list[dict[str, Any]], number: int) -> dict[str, Any]:
    return next(one for one in told if one["step"] == number)


@pytest.mark.parametrize("design", DESIGNS)
async def test_a_vcpu_that_is_preempted_and_switched_to_again_reads_what_it_had_counted(
    tmp_path: Path, design: str
) -> None:
    away = "vm0/0 preempt\nhost/0 run cycles=5000 el=0 rates={INST_RETIRED=1}\nvm0/0 switch\n"
    told = await play(experiment(tmp_path, RESET + COUNTING + away + READ, design=design))
    assert read(told) == [1100]


@pytest.mark.parametrize("design", DESIGNS)
async def test_another_s_work_is_not_counted_for_it(tmp_path: Path, design: str) -> None:
    other = "vm1/0 switch\nvm1/0 run cycles=5000 el=0 rates={INST_RETIRED=1}\nvm0/0 switch\n"
    told = await play(experiment(tmp_path, RESET + COUNTING + other + READ, design=design, world=TWO_VMS))
    assert read(told) == [1100]


@pytest.mark.parametrize("design", DESIGNS)
async def test_it_takes_its_counts_along_to_another_pcpu(tmp_path: Path, design: str) -> None:
    steps = RESET + COUNTING + "vm0/0 preempt\nvm0/0 migrate pcpu=1\nvm0/0 switch\n" + READ
    told = await play(experiment(tmp_path, steps, design=design, world=FLOATING))
    assert read(told) == [1100]


async def test_it_arrives_no_earlier_than_it_left(tmp_path: Path) -> None:
    """The other pCPU's clock has stood still meanwhile."""
    steps = "vm0/0 switch\nvm0/0 run cycles=1000000\nvm0/0 preempt\nvm0/0 migrate pcpu=1\nvm0/0 switch"
    told = await play(experiment(tmp_path, steps, world=FLOATING))
    assert told[-1]["cycle"] > told[2]["cycle"] > 1_000_000


async def test_no_timer_expires_and_nobody_is_preempted_but_by_a_step(tmp_path: Path) -> None:
    """For many ticks and slices, though another thread waits."""
    steps = "vm1/0 switch\nvm0/0 switch\nvm0/0 run cycles=100000000"
    told = await play(experiment(tmp_path, steps, world=TWO_VMS))
    assert told[-1] | {"cycle": 0} == {"step": 3, "cycle": 0, "cycles": 100_000_000, "interrupted": 0}


async def test_a_tick_preempts_nobody_however_long_another_thread_has_waited(tmp_path: Path) -> None:
    steps = "vm1/0 switch\nvm0/0 switch\nvm0/0 run cycles=100000000\nhost/0 tick\nvm0/0 isb"
    assert len(await play(experiment(tmp_path, steps, world=TWO_VMS))) == 5


async def test_the_tick_comes_by_a_step_and_does_not_come_again(tmp_path: Path) -> None:
    steps = "vm0/0 switch\nhost/0 tick\nvm0/0 run cycles=100000000"
    told = await play(experiment(tmp_path, steps))
    assert step(told, 2)["cycle"] > step(told, 1)["cycle"]
    assert step(told, 3)["interrupted"] == 0


# Amid KVM's own steps.


async def amid(tmp_path: Path, design: str, at: int) -> tuple[dict[str, Any], list[int], list[int]]:
    """A vCPU's first access, which loads its PMU, is preempted before operation `at`: what came of that, the number of
    accesses that were done when the host ran, and what the vCPU reads."""
    steps = f"""
    vm0/0 set_one_reg register=PMEVCNTR0_EL0 value=0x1000
    vm0/0 set_one_reg register=PMEVCNTR3_EL0 value=0x1003
    vm0/0 switch
    vm0/0 preempt at={at}
    vm0/0 mrs register=PMOVSSET_EL0
    vm0/0 switch
    {READ}
    vm0/0 mrs register=PMEVCNTR3_EL0
    """
    told = await play(experiment(tmp_path, steps, design=design))
    order = [one["cycle"] for one in told if one["step"] in (5, 6)]
    return step(told, 4), order, read(told)[1:]


@pytest.mark.parametrize("design", [*DESIGNS, "gunyah"])
@pytest.mark.parametrize("what", ["tick", "call"])
async def test_whose_place_another_takes_is_put_whatever_comes_meanwhile(
    tmp_path: Path, design: str, what: str
) -> None:
    """A tick that has nobody preempted leaves need_resched as it is."""
    at, reached = 0, True
    while reached:
        steps = f"vm0/0 switch\nhost/0 {what} at={at}\nvm1/0 switch\nvm0/0 switch"
        lab = Embedded.of(experiment(tmp_path, steps, design=design, world=TWO_VMS))
        await lab.simulation.run()
        told = await lab.simulation.result()
        assert [of["vcpus"][0]["vcpu_put"]["times"] for of in told["guests"]] == [1, 1]
        assert not lab.simulation.judging.found()["violations"]
        reached = step(told["steps"], 2)["reached"]
        at += 1
    assert at > 1 or design == "emulated"


async def test_where_preemption_is_on_a_vcpu_is_put_amid_a_trap_handler(tmp_path: Path) -> None:
    """partitioned-v5 loads the PMU there: B37, kvm_pmu_put() amid kvm_pmu_load(). The access is complete only when the
    vCPU runs again, and by then the put has saved what the load had yet to write."""
    lost, at = set(), 0
    while True:
        preempt, (access, switched), counters = await amid(tmp_path, "partitioned-v5", at)
        if not preempt["reached"]:
            assert at == preempt["operations"]
            break
        if counters != [0x1000, 0x1003]:
            lost.add(at)
            assert access == switched
        at += 1
    assert lost


@pytest.mark.parametrize("design", ["emulated", "partitioned", "mediated", "gunyah", "partitioned-v6"])
async def test_elsewhere_it_reads_what_it_should_wherever_the_preemption_comes(tmp_path: Path, design: str) -> None:
    at, reached = 0, True
    while reached:
        preempt, _, counters = await amid(tmp_path, design, at)
        assert counters == [0x1000, 0x1003]
        reached = preempt["reached"]
        at += 1
    assert at > 1 or design == "emulated"


@pytest.mark.parametrize("what", ["host/0 tick", "host/0 call", "host perf_read name=a", "vm0/0 preempt"])
async def test_what_comes_amid_a_vcpu_load_has_come_when_that_is_over(tmp_path: Path, what: str) -> None:
    steps = f"""
    host perf_open name=a events=cycles
    {what} at=1
    vm0/0 switch
    vm0/0 switch
    vm0/0 isb
    """
    told = await play(experiment(tmp_path, steps, design="partitioned,swap=eager"))
    assert step(told, 2)["reached"]
    assert step(told, 2)["operations"] > 1
    if what.endswith("name=a"):
        assert step(told, 2)["events"]


async def test_an_interruption_of_a_step_that_has_not_so_many_operations_never_comes(tmp_path: Path) -> None:
    steps = f"vm0/0 switch\nvm0/0 preempt at=1000\nvm0/0 msr register=PMSELR_EL0 value=1\nvm0/0 isb\n{READ}"
    told = await play(experiment(tmp_path, steps))
    assert (step(told, 2)["reached"], step(told, 5)["step"]) == (False, 5)


async def test_what_is_preempted_when_the_steps_are_over_comes_to_its_end(tmp_path: Path) -> None:
    steps = "vm0/0 switch\nvm0/0 preempt at=4\nvm0/0 mrs register=PMOVSSET_EL0\n"
    told = await play(experiment(tmp_path, steps, design="partitioned-v5"))
    assert "value" in step(told, 3)


async def test_a_tick_amid_a_put_waits_until_interrupts_are_on(tmp_path: Path) -> None:
    steps = "vm0/0 switch\nhost/0 tick at=0\nvm0/0 preempt\nhost/0 run cycles=1000"
    told = await play(experiment(tmp_path, steps, world=ONE_VM, design="partitioned,swap=eager"))
    assert step(told, 2)["reached"]
    assert step(told, 4)["interrupted"] == 0


@pytest.mark.parametrize("until_event", [False, True])
async def test_work_that_goes_on_before_schedule_has_a_guest_s_filters(tmp_path: Path, until_event: bool) -> None:
    """Of what comes amid a step its end is what preempts: up to there KVM_REQ_RESYNC_PMU_EL0 is not left to a load."""
    of = experiment(tmp_path, "host perf_open name=a events=instructions period=3000\nvm0/0 switch")
    simulation = Embedded.of(of).simulation
    await simulation.run()
    vcpu = simulation.vcpus[0]
    assert isinstance(vcpu, SteppedVCpu)
    vcpu.pcpu.rq.need_resched = True
    vcpu.compute = (of.guest_kernel_profile, 0, 10_000)
    assert await vcpu.work(until_event=until_event)  # the host's PMU interrupt has come, whose handler starts the PMU
    assert vcpu.resync_due is until_event
