"""What of a CPU's PMU is a guest's while its registers are there, and what is left to the host."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from services import registers as r
from services.experiment import NO_PARTITION, CpuSpec
from services.kvm.vpmu import DesignError


@dataclass(frozen=True, slots=True)
class GuestRange:
    """The counters [0, HPMN) of a CPU, and the cycle counter."""

    cpu: CpuSpec
    hpmn: int  # event counters
    mask: int  # all of them, one bit each
    split: bool  # MDCR_EL2.HPMN can be `hpmn`; else it stays N, every access traps, and PMCR_EL0.E is the host's
    untrapped: bool  # fine-grained traps leave most accesses to the hardware
    counters: tuple[int, ...]  # PMEVCNTR<n>_EL0
    types: tuple[int, ...]  # PMEVTYPER<n>_EL0


@cache
def guest_range(cpu: CpuSpec, counters: int, *, fgt: bool) -> GuestRange:
    """The range of a guest with `counters` event counters; `fgt`: by fine-grained traps, where `cpu` has them."""
    hpmn = min(counters, cpu.counters)
    split = hpmn > 0 or cpu.hpmn0
    return GuestRange(
        cpu,
        hpmn,
        mask=r.counter_mask(hpmn),
        split=split,
        untrapped=fgt and cpu.fgt > 0 and not unhidden(cpu) and split,
        counters=tuple(r.PMEVCNTR(n) for n in range(hpmn)),
        types=tuple(r.PMEVTYPER(n) for n in range(hpmn)),
    )


def unhidden(cpu: CpuSpec) -> str:
    """A register that no guest has and that only trapping everything hides on `cpu`, which lacks FEAT_FGT2; or ''."""
    if cpu.fgt > 1:
        return ""
    if cpu.icntr:
        return "PMICNTR_EL0"
    return "PMUACR_EL1" if cpu.pmuver >= r.PMUVER_P9 else ""


@cache
def partition(cpu: CpuSpec, counters: int, others: int = r.CYCLE_BIT) -> GuestRange:
    """What the series gives guests of a PMU with `cpu`: its first `counters` event counters, whatever a VM has of them.

    hpmn, hpmn_max or max_guest_counters by version: the host's boot parameter. A VM's own number is in MDCR_EL2.HPMN.
    `others` are what else is in the guests' mask.
    """
    h = min(counters, cpu.counters)
    return GuestRange(
        cpu,
        h,
        mask=(1 << h) - 1 | others,
        split=True,
        untrapped=False,
        counters=tuple(r.PMEVCNTR(n) for n in range(h)),
        types=tuple(r.PMEVTYPER(n) for n in range(h)),
    )


@cache
def partition_up_to_v5(cpu: CpuSpec, counters: int) -> GuestRange:
    """The same where the guests' mask is all bits but the host's, of counters that do not exist, too (hpmn_max)."""
    host = (1 << cpu.counters) - (1 << min(counters, cpu.counters))
    return partition(cpu, counters, (1 << r.INSTRUCTION_COUNTER + 1) - 1 & ~host)


def left_to_guests(cpu: CpuSpec, wanted: int) -> int:
    """The guests' part of a PMU, one bit for each counter: what the host's parameter leaves them, or without it what
    they want. None where the PMU has no partition."""
    if cpu.reserved_host_counters == NO_PARTITION:
        return 0
    most = cpu.max_guest_counters
    return wanted if most is None else r.counter_mask(most)


def clamped(cpus: Iterable[CpuSpec], counters: int) -> int:
    """nr_pmu_counters of a VM that may run on `cpus`: no more than any PMU's partition has."""
    return min([counters, *(cpu.max_guest_counters for cpu in cpus if cpu.max_guest_counters is not None)])


def check_partition(cpu: CpuSpec) -> None:
    """KVM_ARM_VCPU_PMU_V3_ENABLE_PARTITION. Raises DesignError where the host has no partition."""
    if cpu.reserved_host_counters == NO_PARTITION:
        raise DesignError(
            "the host is booted with reserved_host_counters = -1, so that its PMU has no partition",
            f"give it from 0 to {cpu.counters}, or leave it out",
        )


def every_counter(cpu: CpuSpec) -> int:
    """The event counters of a CPU and its cycle counter, one bit each."""
    return r.counter_mask(cpu.counters)


def host_counters(cpu: CpuSpec) -> int:
    """Every counter that the host's driver finds on a CPU: PMICNTR_EL0 is one where there is one."""
    return every_counter(cpu) | _pmicntr(cpu)


def taken_from_host(cpu: CpuSpec, counters: int) -> int:
    """What the host cannot use while guests have `counters`.

    PMICNTR_EL0 is among it: like the cycle counter it stops by PMCR_EL0.E, which is the guest's then.
    """
    return counters | _pmicntr(cpu) if counters else 0


def guest_flags(cpu: CpuSpec, counters: int) -> int:
    """The flags that may be a guest's where guests have `counters`, and the host not what is taken from it."""
    return taken_from_host(cpu, counters & every_counter(cpu))


def _pmicntr(cpu: CpuSpec) -> int:
    return r.INSTRUCTION_BIT if cpu.icntr else 0
