"""Every cycle of the host's kernel stands on the bill, once."""

import pytest
import trio

from pmulab import scenario
from services import embedded


@pytest.mark.parametrize("name", ["quick", "two-vms"])
@pytest.mark.parametrize("design", ["emulated", "partitioned", "partitioned,swap=lazy,reservation=dynamic"])
def test_the_bill_is_the_host_kernels_time(name: str, design: str) -> None:
    (experiment,) = scenario.load(name, designs=[design]).experiments
    result = trio.run(embedded.run, experiment)
    bill = result["bill"]
    assert sum(bill["host"].values()) == result["time"]["host_kernel"]
    assert sum(bill["host_by_cost"].values()) == result["time"]["host_kernel"]
    assert bill["host"]["trap"] > 0


def test_only_the_emulated_vpmu_pays_perf_and_only_the_partitioned_one_swaps() -> None:
    emulated, partitioned = (
        trio.run(embedded.run, experiment)["bill"]["host"]
        for experiment in scenario.load("quick", designs=["emulated", "partitioned"]).experiments
    )
    assert emulated["perf re-create"] > 0 == partitioned["perf re-create"]
    assert partitioned["swap"] > emulated["swap"]  # which writes its trap controls only
