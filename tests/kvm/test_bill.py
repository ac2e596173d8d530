"""Every cycle of the host's kernel stands on the bill, once."""

from dataclasses import replace

import pytest
import trio

from pmulab import scenario
from services import embedded
from services.experiment import HostCpuSpec, PhaseSpec, TaskSpec


@pytest.mark.parametrize("name", ["quick", "two-vms"])
@pytest.mark.parametrize("design", ["emulated", "partitioned", "partitioned,swap=lazy,reservation=dynamic"])
def test_the_bill_is_the_host_kernels_time(name: str, design: str) -> None:
    (experiment,) = scenario.load(name, designs=[design]).experiments
    result = trio.run(embedded.run, experiment)
    bill = result["bill"]
    assert sum(bill["host"].values()) == result["time"]["host_kernel"]
    polled = bill["host"]["halt polling"]  # it has no name in the cost table
    assert sum(bill["host_by_cost"].values()) + polled == result["time"]["host_kernel"]
    assert bill["host"]["trap"] > 0


def test_only_the_emulated_vpmu_pays_perf_and_only_the_partitioned_one_swaps() -> None:
    emulated, partitioned = (
        trio.run(embedded.run, experiment)["bill"]["host"]
        for experiment in scenario.load("quick", designs=["emulated", "partitioned"]).experiments
    )
    assert emulated["perf re-create"] > 0 == partitioned["perf re-create"]
    assert partitioned["swap"] > emulated["swap"]  # which writes its trap controls only


def test_what_programs_of_the_host_run_in_its_kernel_is_a_line_of_its_own() -> None:
    (experiment,) = scenario.load("quick", designs=["partitioned"]).experiments
    task = TaskSpec("t", (PhaseSpec(experiment.host_kernel_profile, 3_000_000, 2),))
    experiment = replace(experiment, host=replace(experiment.host, cpus=(HostCpuSpec((task,)),)))
    result = trio.run(embedded.run, experiment)
    bill = result["bill"]["host"]
    assert bill["programs"] == 3_000_000
    assert sum(bill.values()) == result["time"]["host_kernel"]
