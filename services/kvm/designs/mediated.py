"""`mediated`: while a vCPU is loaded the whole PMU is its guest's, as KVM does it on x86."""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.boot import HostPolicy
from services.experiment import CpuSpec
from services.kvm.designs.partitioned import Partitioned, Reservation, Swap
from services.kvm.designs.partitioned_pmu import PartitionedPmu
from services.kvm.guest_pmu import CYCLE_BIT
from services.kvm.vpmu import Axis, DesignError, KvmVcpu, axis


class MediatedPmu(PartitionedPmu):
    """Every counter of the CPU, swapped whole; the host's events go out at the load and come back at the put."""

    def counters_owned(self, cpu: CpuSpec) -> int:
        return cpu.counters


@dataclass(frozen=True, kw_only=True)
class Mediated(Partitioned):
    """The guest owns the whole PMU while it is loaded."""

    name = "mediated"
    why = "the whole PMU changes hands at vcpu_load and vcpu_put; host events must exclude guests"

    swap: Swap = axis(Swap.EAGER, "the guest's registers go onto the CPU at each load", values=(Swap.EAGER,))
    reservation: Reservation = axis(
        Reservation.DYNAMIC,
        "the host gives all counters up while a vCPU is loaded",
        values=(Reservation.DYNAMIC,),
    )

    @classmethod
    def axes(cls) -> dict[str, Axis]:
        axes = super().axes()
        return {name: axes[name] for name in ("traps", "swap", "reservation")}

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        if counters != cpu.counters:
            raise DesignError(
                f"mediated: the guest owns all {cpu.counters} event counters of {cpu.model}, it cannot have {counters}",
                f"give the guest {cpu.counters} counters",
            )
        return super().check(cpu, counters)

    def host_counters(self, cpu: CpuSpec) -> int:
        return ((1 << cpu.counters) - 1) | CYCLE_BIT

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        return replace(super().host_policy(cpu), refuses_guests=True)

    def vpmu(self, vcpu: KvmVcpu) -> MediatedPmu:
        return MediatedPmu(self, vcpu)
