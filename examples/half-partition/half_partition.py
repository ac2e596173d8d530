"""`half`: the partitioned vPMU, but the guest owns half of the CPU's event counters, whatever it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.boot import HostPolicy
from services.experiment import CpuSpec
from services.kvm.designs.partitioned import Partitioned
from services.kvm.designs.partitioned.guest_range import guest_flags
from services.registers import CYCLE_BIT


@dataclass(frozen=True, kw_only=True)
class Half(Partitioned):
    """Neither side can starve the other."""

    name = "half"
    why = "the guest owns half of the event counters, whatever it asks for; the host keeps the other half"

    def nr_counters(self, cpus: Sequence[CpuSpec], wanted: int) -> int:
        """PMCR_EL0.N of a VM that may run on `cpus`."""
        return min(cpu.counters for cpu in cpus) // 2

    def hpmn(self, cpu: CpuSpec, counters: int) -> int:
        """MDCR_EL2.HPMN while a guest is resident."""
        return cpu.counters // 2

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        """The host has the upper half; the cycle counter is the guest's."""
        lower = (1 << cpu.counters // 2) - 1
        return HostPolicy(((1 << cpu.counters) - 1) & ~lower, guest_flags(cpu, lower | CYCLE_BIT), split_irq=True)
