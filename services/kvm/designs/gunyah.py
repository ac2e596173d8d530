"""`gunyah`: semi-lazy. The first access of a time slice traps and loads the guest's PMU for the rest of it."""

from __future__ import annotations

from dataclasses import dataclass

from services import registers as r
from services.experiment import CpuSpec
from services.kvm.designs.partitioned import Partitioned, Reservation, Swap
from services.kvm.designs.partitioned_pmu import PartitionedPmu
from services.kvm.vpmu import Axis, KvmVcpu, axis


class GunyahPmu(PartitionedPmu):
    """MDCR_EL2.HPMN = N and HPMD = 1: nothing counts at EL2, and nothing for the host at all."""

    def counters_owned(self, cpu: CpuSpec) -> int:
        return cpu.counters

    def _in_use(self) -> bool:
        """At a switch-in access is kept, without a trap, iff PMCR.E and an enabled counter."""
        return bool(self.pmu.pmcr & r.PMCR_E and self.pmu.cnten & self.mask)


@dataclass(frozen=True, kw_only=True)
class Gunyah(Partitioned):
    """The Gunyah hypervisor's way with the PMU."""

    name = "gunyah"
    why = "trap the first access of a time slice, keep access at switch-in iff a counter runs; the host counts nothing"

    swap: Swap = axis(
        Swap.LAZY,
        "resident if in use at the switch-in, else from the first access of the slice on",
        values=(Swap.LAZY,),
    )
    reservation: Reservation = axis(Reservation.STATIC, "the host has no counters", values=(Reservation.STATIC,))

    @classmethod
    def axes(cls) -> dict[str, Axis]:
        axes = super().axes()
        return {name: axes[name] for name in ("traps", "swap", "reservation")}

    def host_counters(self, cpu: CpuSpec) -> int:
        return 0

    def vpmu(self, vcpu: KvmVcpu) -> GunyahPmu:
        return GunyahPmu(self, vcpu)
