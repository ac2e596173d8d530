"""v6 (February 2026): one canonical copy per register. Event types and overflow flags have theirs in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from services import registers as r
from services.boot import HostPolicy
from services.experiment import CpuSpec
from services.kvm.designs.partitioned import accesses, trap_controls
from services.kvm.designs.partitioned.accesses import Accesses
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.guest_range import every_counter, guest_flags, guest_range
from services.kvm.designs.partitioned.swap import SwapIn, SwapOut
from services.kvm.designs.partitioned.trap_controls import Traps
from services.kvm.vpmu import Access, Design, KvmVcpu, SetN, Vpmu, axis
from services.state import derived

ACCESSES = accesses.ON_CPU | accesses.OVERFLOWS_IN_MEMORY  # and event types, up to the next load
UNSPLIT = ACCESSES | accesses.UNSPLIT


@dataclass(eq=False)
class V6Pmu(Vpmu):
    """FREE up to the first access, then GUEST_OWNED for good. PMUSERENR_EL0 is not swapped."""

    design: V6 = derived()
    context: PmuContext = field(default_factory=PmuContext, init=False)
    trapped: Accesses = derived(init=False)

    def derive(self) -> None:
        super().derive()
        on = guest_range(self.vcpu.spec, self.pmu.counters, fgt=self.design.traps is Traps.FGT)
        self.context.fit(self, on, n=self.pmu.counters)
        self.trapped = ACCESSES if on.split else UNSPLIT
        self.fast_path = not on.untrapped

    async def load(self) -> None:
        """kvm_arch_vcpu_load."""
        self.derive()
        context = self.context
        context.loaded = True
        if context.owned:
            await self._reside()
        else:
            await context.set_traps(trap_controls.free(context.on.cpu) | trap_controls.NOTHING_AT_EL2)

    async def _reside(self) -> None:
        """The registers go onto the CPU."""
        context = self.context
        await context.set_traps(trap_controls.owned(context.on) | r.MDCR_EL2_HPME)  # kvm_vcpu_load_vhe
        swap_in = SwapIn(context)  # kvm_pmu_load
        swap_in.types()  # kvm_pmu_apply_event_filter
        swap_in.counters()
        swap_in.selr()
        swap_in.pmcr()
        swap_in.clear_overflows()
        swap_in.cnten()
        swap_in.inten()
        await swap_in.done()

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

    def access(self, register: int, write: bool, value: int) -> Access:
        if not self.context.resident:  # once, for the vCPU's life
            return self._first_access(register, write, value)
        return self.trapped.perform(self.context, register, write, value)

    async def _first_access(self, register: int, write: bool, value: int) -> int:
        context = self.context
        context.owned = True
        with context.charged_to_swap():
            await self._reside()
        return self.trapped.perform(context, register, write, value)

    def fast(self) -> bool:
        return self.context.resident

    def level(self) -> bool:
        return self.context.overflow_status()

    def guest_overflow(self, mask: int) -> None:
        self.context.take_overflows(mask)


@dataclass(frozen=True, kw_only=True)
class V6(Design):
    """As v5, without FEAT_FGT too."""

    name = "partitioned-v6"
    why = "v6 (February 2026): one canonical copy per register; an event type reaches the CPU at the next load"

    traps: Traps = axis(Traps.FGT, trap_controls.TRAPS_OF_VERSION, values=(Traps.FGT, Traps.FAST_PATH))

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        return trap_controls.check(self.traps, cpu, counters)

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        """The range is the guests' from boot on; the host's handler leaves its overflow flags to KVM."""
        return HostPolicy(every_counter(cpu) & ~self.guest_range, guest_flags(cpu, self.guest_range), split_irq=True)

    @property
    def set_n(self) -> SetN:
        return SetN.ATTRIBUTE

    def vpmu(self, vcpu: KvmVcpu) -> V6Pmu:
        return V6Pmu(self, vcpu)
