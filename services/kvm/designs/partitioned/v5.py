"""v5 (December 2025): HPME is set, and the first access loads the guest's registers, after it has been made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from services import registers as r
from services.boot import HostPolicy
from services.cpu import Eventual
from services.experiment import CpuSpec
from services.kvm.designs.partitioned import swap, trap_controls, up_to_v5
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.guest_range import partition_up_to_v5
from services.kvm.designs.partitioned.posted import Posted, status_on_cpu
from services.kvm.designs.partitioned.swap import SwapIn
from services.kvm.designs.partitioned.trap_controls import Traps
from services.kvm.designs.partitioned.write_through import FAST, write_pmcr_v5, write_through
from services.kvm.trap_setup import HostTraps
from services.kvm.vpmu import KvmVcpu, SetN, Vpmu, axis
from services.state import derived

ACCESSES = write_through(swap.without_el2, write_pmcr_v5)
# The handlers of these are not those that call kvm_pmu_set_physical_access().
NOT_OWNING = (r.PMCEID0_EL0, r.PMCEID1_EL0, r.PMMIR_EL1)


@dataclass(eq=False)
class V5Pmu(Vpmu):
    """VCPU_PMU_ACCESS_VIRTUAL up to the first access, then PHYSICAL for good. Without FEAT_FGT nothing is swapped."""

    userenr_in_memory: ClassVar[bool] = True

    design: V5 = derived()
    host: HostTraps = field(default_factory=HostTraps, init=False)
    context: PmuContext = field(default_factory=PmuContext, init=False)

    def derive(self) -> None:
        super().derive()
        on = partition_up_to_v5(self.vcpu.spec, self.design.guest_counters(self.vcpu.spec))
        self.context.fit(self, on, n=min(self.pmu.counters, on.hpmn))
        self.fast_path = True

    @property
    def swapped(self) -> bool:
        """kvm_vcpu_pmu_use_fgt."""
        return self.context.owned and self.design.fine_grained(self.vcpu.spec, self.pmu.counters)

    def activate_traps(self) -> Eventual[None]:
        """PMSELR_EL0 and PMUSERENR_EL0 are the swap's."""
        self.derive()
        return self.host.load_6_12(self.vcpu, self._mdcr(), trap_controls.FINE_GRAINED, selr=False, userenr=False)

    async def load(self) -> None:
        """kvm_pmu_load."""
        context = self.context
        context.loaded = True
        if self.swapped:
            await self._swap_in().done(self._swap_in)

    def _swap_in(self) -> SwapIn:
        """The list of the load."""
        swap_in = SwapIn(self.context)
        swap_in.types()  # kvm_pmu_apply_event_filter
        swap_in.counters()
        up_to_v5.registers_in(swap_in, SwapIn.pmcr)
        return swap_in

    def deactivate_traps(self) -> Eventual[None]:
        return self.host.put_6_12(self.vcpu, trap_controls.FINE_GRAINED, userenr=False)

    async def put(self) -> None:
        """kvm_pmu_put. PMUSERENR_EL0 stays as the guest had it, too."""
        self.context.loaded = False
        if self.swapped:
            await up_to_v5.swap_out(self.context).done()

    def _mdcr(self) -> int:
        """kvm_arm_setup_mdcr_el2."""
        return up_to_v5.mdcr(self.context, untrapped=self.swapped) | r.MDCR_EL2_HPME

    def fast(self, register: int, write: bool) -> bool:
        return register in FAST

    async def access(self, register: int, write: bool, value: int) -> int:
        found = await ACCESSES.perform(self.context, register, write, value)
        if not (self.context.owned or register in NOT_OWNING):
            await self._own()
        return found

    async def _own(self) -> None:
        """kvm_pmu_set_physical_access, after the access; preemptible, as no other version's load is, but on the fast
        path, which has interrupts masked."""
        context = self.context
        context.owned = True
        await self.vcpu.write(r.MDCR_EL2, self._mdcr())
        with context.charged_to_swap():
            await self.load()

    def level(self) -> Eventual[bool]:
        """kvm_pmu_part_overflow_status, by the CPU's registers in whatever state the vCPU is."""
        return status_on_cpu(self.context)

    def guest_overflow(self, mask: int) -> None:
        """kvm_pmu_handle_guest_irq."""
        self.pmu.ovs |= mask


@dataclass(frozen=True, kw_only=True)
class V5(Posted):
    """As v4, with many faults repaired."""

    name = "partitioned-v5"
    why = "v5 (December 2025): as v4, with HPME set, and loaded after the first access; PMUSERENR_EL0 stays on the CPU"

    hpmn_unchecked = True

    traps: Traps = axis(Traps.FGT, trap_controls.TRAPS_OF_VERSION, values=(Traps.FGT, Traps.FAST_PATH))

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        return up_to_v5.host_policy(cpu, self.guest_counters(cpu), hpme=True)

    @property
    def set_n(self) -> SetN:
        return SetN.SETTABLE

    def vpmu(self, vcpu: KvmVcpu) -> V5Pmu:
        return V5Pmu(self, vcpu)
