"""What a Linux guest does to its PMU, and what that costs under each design (`tests.kvm.linux_guest`)."""

from __future__ import annotations

import pytest

from docs.traffic import DATA, LEFT_OUT, PAGE, data, measured, page
from services.kvm.designs import designs
from services.kvm.errors import SimulationError
from tests.kvm.linux_guest import WORKLOADS, recorded, traffic, world


def test_it_does_the_same_under_both() -> None:
    """But for values that it has read before."""
    for workload in WORKLOADS[:-1]:
        one, other = recorded("partitioned", workload), recorded("emulated", workload)
        assert [(a.register, a.write) for a in one] == [(a.register, a.write) for a in other]


def test_the_documentation_has_what_it_costs_under_each_design() -> None:
    rows = measured()
    assert (PAGE.read_text(), DATA.read_bytes()) == (page(rows), data(rows)), "python -m docs.traffic"


@pytest.mark.parametrize("name", ["emulated", "gunyah", "mediated", "partitioned", "partitioned-v1", "partitioned-v9"])
def test_each_value_of_each_axis_is_there_but_one_under_which_the_accesses_are_undefined(name: str) -> None:
    rows = PAGE.read_text().splitlines()
    for axis, one in designs()[name].axes().items():
        for text in one.texts[1:]:
            found = [row for row in rows if row.startswith(f"| `{name},") and f",{axis}={text}`" in row]
            assert bool(found) == (f"{name},{axis}={text}" != LEFT_OUT), f"{axis}={text}"


async def test_without_event_counters_the_accesses_are_undefined() -> None:
    with pytest.raises(SimulationError, match="exception taken to the software's own level"):
        await traffic(world(LEFT_OUT))
