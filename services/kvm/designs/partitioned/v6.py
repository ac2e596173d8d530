"""v6 (February 2026): one canonical copy per register. Event types and overflow flags have theirs in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from services import registers as r
from services.boot import HostPolicy
from services.cpu import Eventual
from services.experiment import CpuSpec
from services.kvm.designs.partitioned import accessors, by_selr, trap_controls
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.guest_range import every_counter, partition
from services.kvm.designs.partitioned.posted import Posted, status_on_cpu
from services.kvm.designs.partitioned.swap import SwapIn, SwapOut
from services.kvm.designs.partitioned.trap_controls import Traps
from services.kvm.guest_pmu import OF_COUNTERS, counter_of
from services.kvm.trap_setup import HostTraps
from services.kvm.vpmu import KvmVcpu, SetN, Vpmu, axis
from services.registers import CYCLE_COUNTER
from services.state import derived


def mdcr(context: PmuContext, design: Posted) -> int:
    """kvm_arm_setup_mdcr_el2: HPMN is the VM's own number whether or not the vCPU owns anything (kvm_pmu_hpmn)."""
    cpu, n = context.vcpu.spec, context.pmu.counters
    traps = 0 if context.owned and design.fine_grained(cpu, n) else r.PMU_TRAPS
    hpmn = n if n or cpu.hpmn0 else cpu.counters
    return hpmn | traps | r.MDCR_EL2_HPME | trap_controls.nothing_at_el2(cpu)


@dataclass(eq=False)
class V6Pmu(Vpmu):
    """Swapped at each load, whatever its state; the first access makes it GUEST_OWNED for good, and loads nothing."""

    design: V6 = derived()
    host: HostTraps = field(default_factory=HostTraps, init=False)
    context: PmuContext = field(default_factory=PmuContext, init=False)

    def derive(self) -> None:
        super().derive()
        self.context.fit(
            self, partition(self.vcpu.spec, self.design.guest_counters(self.vcpu.spec)), n=self.pmu.counters
        )
        self.fast_path = True

    def activate_traps(self) -> Eventual[None]:
        self.derive()
        return self.host.load_6_12(self.vcpu, mdcr(self.context, self.design), trap_controls.FINE_GRAINED)

    async def load(self) -> None:
        """kvm_pmu_load."""
        context = self.context
        context.loaded = True
        swap_in = SwapIn(context)
        swap_in.types_by_selr(r.PMXEVTYPER_EL0)  # kvm_pmu_apply_event_filter
        swap_in.counters_by_selr(r.PMXEVCNTR_EL0)
        swap_in.selr()
        swap_in.pmcr()
        swap_in.clear_overflows()
        swap_in.cnten()
        swap_in.inten()
        await swap_in.done()

    def deactivate_traps(self) -> Eventual[None]:
        return self.host.put_6_12(self.vcpu, trap_controls.FINE_GRAINED)

    async def put(self) -> None:
        """kvm_pmu_put: PMCNTEN and PMINTEN stay as the guest had them."""
        context = self.context
        context.loaded = False
        swap_out = SwapOut(context)
        swap_out.counters_by_selr(r.PMXEVCNTR_EL0)
        swap_out.selr()
        swap_out.pmcr()
        swap_out.cnten()
        swap_out.inten()
        await swap_out.done()

    def fast(self, register: int, write: bool) -> bool:
        """kvm_hyp_handle_pmu_regs of the VHE exit handler leaves what it would refuse to the handlers of sys_regs.c: a
        counter that the VM has not, or has not where PMSELR_EL0 selects it."""
        n = counter_of(register, self.vcpu.peek(r.PMSELR_EL0) & 0x1F) if register in OF_COUNTERS else None
        refused = n is not None and n != CYCLE_COUNTER and n >= self.pmu.counters
        return register in (by_selr.HYP.writes if write else by_selr.HYP.reads) and not refused

    async def access(self, register: int, write: bool, value: int) -> int:
        context = self.context
        if not self.fast(register, write):
            return await by_selr.V6.perform(context, register, write, value)
        await accessors.check_access(context)
        if not context.owned:
            context.owned = True  # kvm_pmu_set_physical_access
            await self.vcpu.write(r.MDCR_EL2, mdcr(self.context, self.design))
        return await by_selr.HYP.perform(context, register, write, value)

    def level(self) -> Eventual[bool]:
        """kvm_pmu_part_overflow_status: never of a vCPU that is FREE."""
        return self.context.owned and status_on_cpu(self.context)

    def guest_overflow(self, mask: int) -> None:
        """kvm_pmu_handle_guest_irq, in whatever state the vCPU is, which nobody kicks."""
        self.pmu.ovs |= mask


@dataclass(frozen=True, kw_only=True)
class V6(Posted):
    """As v5, without FEAT_FGT too."""

    name = "partitioned-v6"
    why = "v6 (February 2026): one canonical copy per register; an event type reaches the CPU at the next load"

    traps: Traps = axis(Traps.FGT, trap_controls.TRAPS_OF_VERSION, values=(Traps.FGT, Traps.FAST_PATH))

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        """The partition is the guests' from boot on; the host's handler leaves its overflow flags to KVM."""
        guests = partition(cpu, self.guest_counters(cpu)).mask
        own = every_counter(cpu) & ~guests
        return HostPolicy(own, guests, split_irq=True, own_flags=own, fixed_flags=True, hpme=True)

    @property
    def set_n(self) -> SetN:
        return SetN.ATTRIBUTE

    def vpmu(self, vcpu: KvmVcpu) -> V6Pmu:
        return V6Pmu(self, vcpu)
