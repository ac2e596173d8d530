"""`gunyah`: semi-lazy. The first access of a time slice traps and loads the guest's PMU for the rest of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from services import registers as r
from services.experiment import CpuSpec
from services.kvm.designs.base import Axis
from services.kvm.designs.partitioned import Partitioned
from services.kvm.designs.partitioned_pmu import PartitionedPmu

if TYPE_CHECKING:
    from services.kvm.vcpu import VCpu


class GunyahPmu(PartitionedPmu):
    """MDCR_EL2.HPMN = N and HPMD = 1: nothing counts at EL2, and nothing for the host at all."""

    def counters_owned(self, cpu: CpuSpec) -> int:
        return cpu.counters

    def _in_use(self) -> bool:
        """At a switch-in access is kept, without a trap, iff PMCR.E and an enabled counter."""
        return bool(self.pmu.pmcr & r.PMCR_E and self.pmu.cnten & self.mask)


class Gunyah(Partitioned):
    """The Gunyah hypervisor's way with the PMU."""

    name = "gunyah"
    why = "trap the first access of a time slice, keep access at switch-in iff a counter runs; the host counts nothing"
    axes: ClassVar[Mapping[str, Axis]] = {
        "traps": Partitioned.axes["traps"],
        "swap": Axis(("lazy",), "resident if in use at the switch-in, else from the first access of the slice on"),
        "reservation": Axis(("static",), "the host has no counters"),
    }

    def host_counters(self, cpu: CpuSpec) -> int:
        return 0

    def vpmu(self, vcpu: VCpu) -> GunyahPmu:
        return GunyahPmu(self, vcpu)
