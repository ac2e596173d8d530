"""The vPMU of a guest that has none (kvm_vcpu_has_pmu), whatever the design: all that it touches is UNDEFINED."""

from __future__ import annotations

from dataclasses import dataclass

from services.boot import HostPolicy
from services.experiment import CpuSpec
from services.kvm.errors import InjectUndef
from services.kvm.vpmu import Access, Vpmu
from services.registers import MDCR_EL2, PMU_TRAPS, counter_mask


@dataclass(eq=False)
class WithoutPmu(Vpmu):
    """Every access traps, nothing is swapped and nothing counted."""

    async def load(self) -> None:
        self.vcpu.write(MDCR_EL2, PMU_TRAPS | self.vcpu.spec.counters)

    async def put(self) -> None:
        self.vcpu.write(MDCR_EL2, self.vcpu.spec.counters)

    def access(self, register: int, write: bool, value: int) -> Access:
        raise InjectUndef

    def level(self) -> bool:
        return False


def host_policy(cpu: CpuSpec) -> HostPolicy:
    """Where no guest has a PMU, the host shares its own with nobody."""
    return HostPolicy(counter_mask(cpu.counters), guest_flags=0)
