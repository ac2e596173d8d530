"""What a Linux guest does to its PMU traps where it did (`tests.kvm.linux_guest`)."""

from __future__ import annotations

import pytest

from docs.traffic import DATA, LEFT_OUT, PAGE, data, measured, page
from services._pmu import register_name
from services.kvm.designs import designs
from services.kvm.errors import SimulationError
from tests.kvm.linux_guest import WORKLOADS, LinuxGuest, recorded, traffic, world


@pytest.mark.parametrize(
    ("design", "of"),
    [("partitioned-v8", "partitioned"), ("emulated,kernel=7.3", "emulated"), ("emulated", "emulated")],
)
async def test_its_accesses_trap_or_not_as_recorded(design: str, of: str) -> None:
    made = LinuxGuest(of).accesses
    trapped = (await traffic(world(design))).trapped
    assert len(trapped) == len(made)
    assert [register_name(one.register) for one, traps in zip(made, trapped, strict=True) if traps != one.trapped] == []


def test_it_does_the_same_under_both() -> None:
    """But for values that it has read before."""
    for workload in WORKLOADS[:-1]:
        one, other = recorded("partitioned", workload), recorded("emulated", workload)
        assert [(a.register, a.value is None) for a in one] == [(a.register, a.value is None) for a in other]


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
