"""What a design of steps asks of the host and of a VM: of each step, what the version whose it is does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from services.boot import HostPolicy
from services.experiment import CpuSpec
from services.kvm.designs.partitioned.accesses import Accesses
from services.kvm.designs.partitioned.by_steps.handlers import handlers
from services.kvm.designs.partitioned.by_steps.steps import OWN, V1_TO_V5, V2_TO_V5, Of, Steps
from services.kvm.designs.partitioned.guest_range import GuestRange, partition, partition_up_to_v5
from services.kvm.designs.partitioned.posted import Posted
from services.kvm.designs.partitioned.reviewed import ACCESSES, UNSPLIT
from services.kvm.designs.partitioned.trap_controls import Traps
from services.kvm.designs.partitioned.v1 import V1
from services.kvm.designs.partitioned.v2 import V2
from services.kvm.designs.partitioned.v3 import V3
from services.kvm.designs.partitioned.v4 import V4
from services.kvm.designs.partitioned.v5 import V5
from services.kvm.designs.partitioned.v6 import V6
from services.kvm.designs.partitioned.v7 import V7
from services.kvm.designs.partitioned.v8 import V8
from services.kvm.designs.partitioned.v9 import V9
from services.kvm.vpmu import SetN

VERSIONS: Mapping[Of, type[Posted]] = {
    Of.V1: V1,
    Of.V2: V2,
    Of.V3: V3,
    Of.V4: V4,
    Of.V5: V5,
    Of.V6: V6,
    Of.V7: V7,
    Of.V8: V8,
    Of.V9: V9,
}

# What a step has of HostPolicy.
_POLICY = {
    "reserve": ("counters",),
    "irq_masks": ("guest_flags", "split_irq", "own_flags", "fixed_flags", "hpmn_flags"),
    "allocation": ("high_to_low",),
    "cntr_mask": ("shared_counters",),
    "host_pmcr": ("hpme",),
    "resync": ("resync_in_process",),
    "resched": ("resched_irqs_on",),
    "pinned_events": ("swaps_pinned",),
}


@dataclass(frozen=True, kw_only=True)
class Composed(Steps):
    """Each step is whose its axis says; but for the PMU of a vCPU."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "status_on_cpu", self.overflow_status is not OWN)

    def of(self, version: Of) -> Posted:
        """The version's design."""
        return _of(version, self.guest_range, self.traps)

    def handlers(self, *, split: bool) -> tuple[Accesses, Accesses]:
        """Those of sys_regs.c, and with those that v6 has in the hypervisor."""
        return _handlers(self, split)

    def nr_counters(self, cpus: Sequence[CpuSpec], wanted: int) -> int:
        whose = self.nr_pmu_counters
        return super().nr_counters(cpus, wanted) if whose is OWN else self.of(whose).nr_counters(cpus, wanted)

    def host_keeps(self, cpu: CpuSpec, counters: int) -> int | None:
        whose = self.partition
        return super().host_keeps(cpu, counters) if whose is OWN else self.of(whose).host_keeps(cpu, counters)

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        return replace(super().host_policy(cpu), **dict(self._policies(cpu)))

    def _policies(self, cpu: CpuSpec) -> Iterator[tuple[str, Any]]:
        for step, fields in _POLICY.items():
            whose: Of = getattr(self, step)
            if whose is not OWN:
                policy = self.of(whose).host_policy(cpu)
                yield from ((field, getattr(policy, field)) for field in fields)

    @property
    def set_n(self) -> SetN:
        return super().set_n if self.set_nr_counters is OWN else self.of(self.set_nr_counters).set_n


@cache
def _of(version: Of, guest_range: int, traps: Traps) -> Posted:
    return VERSIONS[version](guest_range=guest_range, traps=traps)


@cache
def _handlers(design: Composed, split: bool) -> tuple[Accesses, Accesses]:
    own, whose = ACCESSES if split else UNSPLIT, design.whose()
    return handlers(own, whose), handlers(own, whose, fast=True)


def partition_of(steps: Composed, cpu: CpuSpec, counters: int) -> GuestRange:
    """The partition that a version makes for a VM with so many event counters."""
    version = steps.partition
    design = steps.of(version)
    if isinstance(design, V7):
        return design.partition(cpu)
    if version is Of.V9:
        return partition(cpu, counters)
    make = partition_up_to_v5 if version in V1_TO_V5 else partition
    return make(cpu, design.guest_counters(cpu))


def pmcr_n(version: Of, cpu: CpuSpec, counters: int, hpmn: int) -> int:
    """PMCR_EL0.N as a version's handlers have it."""
    if version is Of.V1:
        return cpu.counters
    return min(counters, hpmn) if version in V2_TO_V5 else counters
