"""`[host] reserved_host_counters`: what the host's boot parameter leaves to guests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services import registers as r
from services.experiment import CpuSpec, Experiment
from services.kvm import one_reg
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.parts import parts
from services.kvm.simulation import Simulation
from services.kvm.vpmu import DesignError
from tests.kvm.scripted import experiment

CPU = CpuSpec(model="test", counters=10, pmuver=6, fgt=1)


def with_reserved(
    *reserved: int,
    counters: int = 6,
    vcpus: tuple[int, ...] = (0,),
    design: str = "partitioned",
    reservation: str | None = None,
    cpu: CpuSpec = CPU,
) -> Experiment:
    axes = {} if reservation is None else {"reservation": reservation}
    of = experiment(design, pcpus=len(reserved), vcpus=vcpus, counters=counters, axes=axes)
    return replace(of, cpus=tuple(replace(cpu, reserved_host_counters=one) for one in reserved))


@pytest.mark.parametrize("reservation", ["static", "sysfs", "dynamic", "grow"])
def test_a_vm_gets_no_more_than_the_parameter_leaves(reservation: str) -> None:
    made = Simulation(with_reserved(8, reservation=reservation))
    assert made.vcpus[0].pmu.counters == 2
    assert "vm0 gets 2 event counters: reserved_host_counters leaves no more" in made.fallbacks
    with pytest.raises(OSError, match="a guest may have 2"):
        one_reg.set_nr_counters(made.vcpus[0], 3)


def test_a_vm_that_wants_less_gets_that() -> None:
    made = Simulation(with_reserved(2, counters=6, reservation="static"))
    assert (made.vcpus[0].pmu.counters, made.fallbacks) == (6, [])


def test_of_several_cpus_it_gets_the_fewest_that_it_may_meet() -> None:
    assert Simulation(with_reserved(2, 6, vcpus=(-1,), reservation="static")).vcpus[0].pmu.counters == 4
    assert Simulation(with_reserved(2, 6, vcpus=(0,), reservation="static")).vcpus[0].pmu.counters == 6


@pytest.mark.parametrize(
    ("reservation", "kept"),
    [
        ("static", r.counter_mask(10) & ~r.counter_mask(7)),
        ("sysfs", r.counter_mask(10) & ~r.counter_mask(7)),
        ("dynamic", r.counter_mask(10)),
        ("grow", r.counter_mask(10)),
    ],
)
def test_the_host_keeps_what_is_reserved_for_it(reservation: str, kept: int) -> None:
    """Static reservation is the parameter's, whatever guests want of the rest."""
    of = with_reserved(3, counters=2, reservation=reservation)
    policy = Simulation(of).design.host_policy(of.cpus[0])
    assert (policy.counters, policy.guest_flags) == (kept, r.counter_mask(7))


def test_without_a_partition_there_is_no_partitioned_pmu() -> None:
    with pytest.raises(DesignError, match="has no partition"):
        Simulation(with_reserved(-1, reservation="static"))


@pytest.mark.parametrize("design", ["emulated", "emulated-6.15", "mediated", "partitioned-v9"])
def test_a_design_that_takes_no_notice_of_the_parameter_says_so(design: str) -> None:
    made = Simulation(with_reserved(8, design=design))
    assert made.vcpus[0].pmu.counters == 6
    said = f"reserved_host_counters reserves nothing: {design} does not read it"
    assert said in made.fallbacks
    for nothing in (0, -1):
        assert said not in Simulation(with_reserved(nothing, design=design)).fallbacks


@pytest.mark.parametrize("design", ["partitioned", "partitioned-v8"])
def test_one_that_does_has_nothing_to_say(design: str) -> None:
    assert Simulation(with_reserved(4, design=design)).fallbacks == []


@pytest.mark.parametrize("design", [f"partitioned-v{n}" for n in range(1, 9)])
def test_of_the_posted_versions_the_partition_is_the_parameters(design: str) -> None:
    """hpmn, hpmn_max, max_guest_counters: N less the parameter, of which a VM with fewer counters leaves some idle."""
    made = Simulation(with_reserved(3, counters=2, design=design))
    (vcpu,) = made.vcpus
    vcpu.vpmu.derive()
    assert vcpu.pmu.counters == 2
    context: PmuContext = vcpu.vpmu.context  # type: ignore[attr-defined]
    assert context.on.hpmn == 7
    assert made.design.host_policy(made.board.experiment.cpus[0]).guest_flags == r.counter_mask(7)


def test_v1_without_a_counter_for_the_host_has_no_partition() -> None:
    """KVM_ARM_PARTITION_PMU with 0 host counters; other versions give guests all of them then."""
    made = Simulation(with_reserved(0, design="partitioned-v1"))
    assert made.fallbacks == ["reserved_host_counters leaves the host's PMU in one piece: the guest's vPMU is emulated"]
    assert made.design.host_policy(made.board.experiment.cpus[0]).guest_flags == 0
    assert Simulation(with_reserved(0, counters=10, design="partitioned-v2")).vcpus[0].pmu.counters == 10


@pytest.mark.parametrize("cpu", [CpuSpec("test", 10, 6), CpuSpec("test", 10, 6, fgt=1)], ids=["no FGT", "no HPMN0"])
def test_an_emulated_guest_of_v1_has_what_it_wants(cpu: CpuSpec) -> None:
    """Of a host without a partition: one of no counters needs FEAT_HPMN0, each FEAT_FGT."""
    made = Simulation(with_reserved(10, counters=6, design="partitioned-v1", cpu=cpu))
    assert any("the guest's vPMU is emulated" in said for said in made.fallbacks)
    assert made.vcpus[0].pmu.counters == 6


@pytest.mark.parametrize("design", [f"partitioned-v{n}" for n in range(2, 9)])
def test_no_posted_version_partitions_where_the_parameter_says_no(design: str) -> None:
    with pytest.raises(DesignError, match="has no partition"):
        Simulation(with_reserved(-1, design=design))


def test_v9_sizes_the_partition_by_the_vm() -> None:
    made = Simulation(with_reserved(8, design="partitioned-v9"))
    made.vcpus[0].vpmu.derive()
    assert made.vcpus[0].pmu.counters == 6
    assert next(parts(made.design, made.board.experiment))["host_counters"] == 4


@pytest.mark.parametrize(
    ("reserved", "counters", "expected"),
    [
        (6, 4, (4, 6, True, True)),
        (1, 9, (9, 1, False, True)),
        (7, 3, (3, 7, False, True)),
        (9, 1, (1, 9, False, False)),
    ],
)
@pytest.mark.parametrize("reservation", ["static", "sysfs", "dynamic", "grow"])
def test_what_is_left_is_held_against_arms_base_architectures(
    reserved: int, counters: int, expected: tuple[int, int, bool, bool], reservation: str
) -> None:
    """BSA: 4 event counters for an operating system, 2 for the hypervisor. VBSA: 2 of a virtual PE."""
    of = with_reserved(reserved, counters=counters, reservation=reservation)
    (only,) = parts(Simulation(of).design, of)
    assert tuple(only.values()) == ("vm0", "test", *expected)


def test_a_vpmu_that_divides_no_counters_is_held_against_nothing() -> None:
    of = with_reserved(4, design="emulated")
    assert list(parts(Simulation(of).design, of)) == []
