"""`half`: the partitioned vPMU, but the guest owns half of the CPU's event counters, whatever it asks for."""

from __future__ import annotations

from services.experiment import CpuSpec
from services.kvm.designs.partitioned import Partitioned
from services.kvm.designs.partitioned_pmu import PartitionedPmu
from services.kvm.vpmu import KvmVcpu


class HalfPmu(PartitionedPmu):
    """One vCPU's half."""

    def counters_owned(self, cpu: CpuSpec) -> int:
        """MDCR_EL2.HPMN while resident."""
        return cpu.counters // 2


class Half(Partitioned):
    """Neither side can starve the other."""

    name = "half"
    why = "the guest owns half of the event counters, whatever it asks for; the host keeps the other half"

    def host_counters(self, cpu: CpuSpec) -> int:
        """The upper half; the cycle counter is the guest's."""
        return (1 << cpu.counters) - (1 << cpu.counters // 2)

    def vpmu(self, vcpu: KvmVcpu) -> HalfPmu:
        """The design's PMU for a vCPU."""
        return HalfPmu(self, vcpu)
