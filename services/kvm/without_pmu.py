"""The vPMU of a guest that has none (kvm_vcpu_has_pmu), whatever the design: all that it touches is UNDEFINED."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.boot import HostPolicy
from services.cpu import Eventual
from services.experiment import CpuSpec
from services.kvm.errors import InjectUndef
from services.kvm.trap_setup import FineGrained, HostTraps
from services.kvm.vpmu import Access, Vpmu
from services.registers import HDFGRTR_PMU, HDFGWTR_PMU, PMU_TRAPS, counter_mask

UNDEFINED = FineGrained(HDFGRTR_PMU, HDFGWTR_PMU)


@dataclass(eq=False)
class WithoutPmu(Vpmu):
    """Every access traps, nothing is swapped and nothing counted."""

    host: HostTraps = field(default_factory=HostTraps, init=False)

    def activate_traps(self) -> Eventual[None]:
        """In the kernels of 2026 a PMU that the VM has not is undefined by fine-grained traps, too (`fgu`)."""
        mdcr = PMU_TRAPS | self.vcpu.spec.counters
        if self.design.per_vcpu_traps:
            return self.host.load_2026(self.vcpu, mdcr, UNDEFINED)
        return self.host.load_6_12(self.vcpu, mdcr)

    async def load(self) -> None:
        """There is nothing more."""

    def deactivate_traps(self) -> Eventual[None]:
        if self.design.per_vcpu_traps:
            return self.host.put_2026(self.vcpu)
        return self.host.put_6_12(self.vcpu)

    async def put(self) -> None:
        """Nor here."""

    def access(self, register: int, write: bool, value: int) -> Access:
        raise InjectUndef

    def level(self) -> bool:
        return False

    def guest_overflow(self, mask: int) -> None:
        """Flags of another guest's, still on this CPU: they go into a PMOVSSET_EL0 that nobody reads."""


def host_policy(cpu: CpuSpec) -> HostPolicy:
    """Where no guest has a PMU, the host shares its own with nobody."""
    return HostPolicy(counter_mask(cpu.counters), guest_flags=0)
