"""Mutants of the trap controls: MDCR_EL2 and the fine-grained traps."""

from __future__ import annotations

from services import registers as r
from services.kvm.designs.partitioned import trap_controls
from services.kvm.designs.partitioned.reviewed import Partitioned, PartitionedPmu


class B18Pmu(PartitionedPmu):
    def _mdcr(self) -> int:
        return super()._mdcr() & ~r.MDCR_EL2_HPME


class B18(Partitioned):
    name = "B18"
    why = "v3: MDCR_EL2 without HPME while a vCPU is loaded: the host's counters stand still"
    of_vcpu = B18Pmu


class B24Pmu(PartitionedPmu):
    async def _set_traps(self) -> None:
        await self.vcpu.write(r.MDCR_EL2, self._mdcr())


class B24(Partitioned):
    name = "B24"
    why = "v4: HDFGRTR_EL2 and HDFGWTR_EL2 are not written when registers go onto the CPU: what is there decides"
    of_vcpu = B24Pmu


class B58Pmu(PartitionedPmu):
    def _mdcr(self) -> int:
        return super()._mdcr() | r.MDCR_EL2_HPMD


class B58(Partitioned):
    name = "B58"
    why = "v7: HPMD is set where HPMN stays N: the host's counters are blind at EL2 while the vCPU is loaded"
    of_vcpu = B58Pmu


class N6Pmu(PartitionedPmu):
    def _free_mdcr(self) -> int:
        return super()._free_mdcr() | trap_controls.NOTHING_AT_EL2


class N6(Partitioned):
    name = "N6"
    why = "v8: HPMD and HCCD are set while the vCPU is FREE, and HPMN N: the host's counters are blind at EL2"
    of_vcpu = N6Pmu


class N19Pmu(PartitionedPmu):
    def _mdcr(self) -> int:
        return super()._mdcr() & ~r.MDCR_EL2_HLP


class N19(Partitioned):
    name = "N19"
    why = "v8: MDCR_EL2 without HLP while a vCPU is loaded: long events of the host overflow at bit 31"
    of_vcpu = N19Pmu


class B20Pmu(PartitionedPmu):
    def _free_mdcr(self) -> int:
        return super()._free_mdcr() & ~r.PMU_TRAPS


class B20(Partitioned):
    name = "B20"
    why = "v4: TPM and TPMCR the wrong way round: a vCPU whose registers are in memory accesses the CPU's"
    of_vcpu = B20Pmu
