"""v3 (June 2025): the host's driver starts and stops its own range by MDCR_EL2.HPME, too."""

from __future__ import annotations

from dataclasses import dataclass

from services.boot import HostPolicy
from services.experiment import CpuSpec
from services.kvm.designs.partitioned import trap_controls, up_to_v5
from services.kvm.designs.partitioned.posted import Posted
from services.kvm.designs.partitioned.trap_controls import Traps
from services.kvm.designs.partitioned.v2 import V2Pmu
from services.kvm.vpmu import KvmVcpu, SetN, axis


@dataclass(frozen=True, kw_only=True)
class V3(Posted):
    """As v2, by one boot parameter."""

    name = "partitioned-v3"
    why = "v3 (June 2025): as v2; the host's driver stops and starts its counters by MDCR_EL2.HPME and PMCR_EL0.E"

    hpmn_unchecked = True

    traps: Traps = axis(Traps.FGT, trap_controls.TRAPS_OF_VERSION, values=(Traps.FGT, Traps.FAST_PATH))

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        return up_to_v5.host_policy(cpu, self.guest_counters(cpu), hpme=True)

    @property
    def set_n(self) -> SetN:
        return SetN.SETTABLE

    def vpmu(self, vcpu: KvmVcpu) -> V2Pmu:
        return V2Pmu(self, vcpu)
