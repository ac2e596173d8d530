"""`mediated`: while a vCPU is loaded the whole PMU is its guest's, as KVM does it on x86."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from services.experiment import CpuSpec
from services.kvm.designs.base import Axis, DesignError
from services.kvm.designs.partitioned import Partitioned
from services.kvm.designs.partitioned_pmu import PartitionedPmu
from services.kvm.guest_pmu import CYCLE_BIT

if TYPE_CHECKING:
    from services.kvm.vcpu import VCpu


class MediatedPmu(PartitionedPmu):
    """Every counter of the CPU, swapped whole; the host's events go out at the load and come back at the put."""

    def counters_owned(self, cpu: CpuSpec) -> int:
        return cpu.counters


class Mediated(Partitioned):
    """The guest owns the whole PMU while it is loaded."""

    name = "mediated"
    why = "the whole PMU changes hands at vcpu_load and vcpu_put; host events must exclude guests"
    host_events_exclude_guests = True
    axes: ClassVar[Mapping[str, Axis]] = {
        "traps": Partitioned.axes["traps"],
        "swap": Axis(("eager",), "the guest's registers go onto the CPU at each load"),
        "reservation": Axis(("dynamic",), "the host gives all counters up while a vCPU is loaded"),
    }

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        if counters != cpu.counters:
            raise DesignError(
                f"mediated: the guest owns all {cpu.counters} event counters of {cpu.model}, it cannot have {counters}"
            )
        return super().check(cpu, counters)

    def host_counters(self, cpu: CpuSpec) -> int:
        return ((1 << cpu.counters) - 1) | CYCLE_BIT

    def vpmu(self, vcpu: VCpu) -> MediatedPmu:
        return MediatedPmu(self, vcpu)
