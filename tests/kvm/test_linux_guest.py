"""What a Linux guest does to its PMU traps where it did (`tests.kvm.linux_guest`)."""

from __future__ import annotations

import pytest

from docs.traffic import DATA, PAGE, data, measured, page
from services._pmu import register_name
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
