"""v8 (June 2026): the host allocates its event counters from the highest index, which guests are given last."""

from __future__ import annotations

from dataclasses import dataclass, field

from services import registers as r
from services.boot import HostPolicy
from services.cpu import Call, awaited
from services.experiment import CpuSpec
from services.kvm.bill import Account
from services.kvm.designs.partitioned import accesses, trap_controls
from services.kvm.designs.partitioned.accesses import Accesses
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.guest_range import every_counter, guest_range, host_counters
from services.kvm.designs.partitioned.swap import SwapIn, SwapOut
from services.kvm.designs.partitioned.trap_controls import Traps
from services.kvm.vpmu import Access, Design, KvmVcpu, SetN, Vpmu, axis
from services.state import derived

ACCESSES = accesses.ON_CPU | accesses.OVERFLOWS_IN_MEMORY  # and event types, up to the next load
UNSPLIT = ACCESSES | accesses.UNSPLIT


@dataclass(eq=False)
class V8Pmu(Vpmu):
    """The first access makes it GUEST_OWNED for good, but its registers go onto the CPU at the next load."""

    design: V8 = derived()
    context: PmuContext = field(default_factory=PmuContext, init=False)
    trapped: Accesses = derived(init=False)

    def derive(self) -> None:
        super().derive()
        on = guest_range(self.vcpu.spec, self.pmu.counters, fgt=self.design.traps is Traps.FGT)
        self.context.fit(self, on, n=self.pmu.counters)
        self.trapped = ACCESSES if on.split else UNSPLIT

    async def load(self) -> None:
        """kvm_arch_vcpu_load."""
        self.derive()
        context = self.context
        context.loaded = True
        if context.owned:
            # kvm_pmu_set_guest_counters
            await awaited(self.vcpu.call([(Call.GUEST_COUNTERS, context.on.mask, 0, 0, 0)], Account.RESERVE))
            await context.set_traps(self._mdcr())  # kvm_vcpu_load_vhe
            swap_in = SwapIn(context)  # kvm_pmu_load
            swap_in.types()  # kvm_pmu_apply_event_filter
            swap_in.counters()
            swap_in.selr()
            swap_in.pmcr()
            swap_in.clear_overflows()
            swap_in.cnten()
            swap_in.inten()
            await swap_in.done()
        else:
            await context.set_traps(trap_controls.free(context.on.cpu) | trap_controls.NOTHING_AT_EL2)

    def _mdcr(self) -> int:
        """HPMN is set only where fine-grained traps are; else it stays N."""
        on = self.context.on
        value = trap_controls.owned(on) | r.MDCR_EL2_HPME
        return value if on.untrapped else value & ~r.MDCR_EL2_HPMN | on.cpu.counters

    async def put(self) -> None:
        """kvm_arch_vcpu_put."""
        context = self.context
        if context.owned:
            swap_out = SwapOut(context)  # kvm_pmu_put
            swap_out.counters()
            swap_out.selr()
            swap_out.pmcr()
            swap_out.cnten()
            swap_out.inten()
            swap_out.overflows()
            swap_out.clear_overflows()
            swap_out.disable()
            await swap_out.done()
        context.loaded = False
        await context.lift_traps()  # kvm_vcpu_put_vhe
        if context.owned:
            # kvm_pmu_set_guest_counters
            await awaited(self.vcpu.call([(Call.GUEST_COUNTERS, 0, 0, 0, 0)], Account.RESERVE))

    def access(self, register: int, write: bool, value: int) -> Access:
        context = self.context
        if not context.resident:  # once, for the vCPU's life
            return self._first_access(register, write, value)
        return self.trapped.perform(context, register, write, value)

    async def _first_access(self, register: int, write: bool, value: int) -> int:
        context = self.context
        context.owned = True
        await context.set_traps(self._mdcr())  # kvm_arm_setup_mdcr_el2, and no kvm_pmu_load
        return self.trapped.perform(context, register, write, value)

    def level(self) -> bool:
        return self.context.overflow_status()

    def guest_overflow(self, mask: int) -> None:
        """kvm_pmu_handle_guest_irq."""
        self.context.take_overflows(mask)
        self.vcpu.kick()


@dataclass(frozen=True, kw_only=True)
class V8(Design):
    """As v7, with the host's events out of the way."""

    name = "partitioned-v8"
    why = "v8 (June 2026): as v7; the host allocates high to low; without FEAT_FGT HPMN stays N"

    traps: Traps = axis(Traps.FGT, trap_controls.TRAPS_OF_VERSION, values=(Traps.FGT, Traps.SLOW_PATH))

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        return trap_controls.check(self.traps, cpu, counters)

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        """The host gives the range up at vcpu_load; its handler leaves the range's overflow flags to KVM.

        PMICNTR_EL0 is the host's, but its flag is in neither of the two masks.
        """
        every = every_counter(cpu)
        return HostPolicy(
            host_counters(cpu), self.guest_range & every, high_to_low=True, split_irq=True, own_flags=every
        )

    @property
    def per_vcpu_traps(self) -> bool:
        return True

    @property
    def set_n(self) -> SetN:
        return SetN.ATTRIBUTE

    def vpmu(self, vcpu: KvmVcpu) -> V8Pmu:
        return V8Pmu(self, vcpu)
