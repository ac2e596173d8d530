"""v8 (June 2026): the host allocates its event counters from the highest index, which guests are given last."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from services import registers as r
from services.boot import HostPolicy
from services.cpu import Call, Eventual, awaited
from services.experiment import CpuSpec
from services.kvm.bill import Account
from services.kvm.designs.partitioned import accessors, trap_controls
from services.kvm.designs.partitioned.backed import BackedPmu
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.guest_range import every_counter, host_counters, partition
from services.kvm.designs.partitioned.posted import Posted, status, status_on_cpu
from services.kvm.designs.partitioned.swap import SwapIn, SwapOut
from services.kvm.designs.partitioned.trap_controls import Traps
from services.kvm.trap_setup import HostTraps
from services.kvm.vpmu import KvmVcpu, SetN, axis
from services.state import derived

EVERYTHING_TRAPS = r.PMU_TRAPS | r.MDCR_EL2_HPME | r.MDCR_EL2_HPMD | r.MDCR_EL2_HCCD


async def swap_in(context: PmuContext) -> None:
    """The list of kvm_pmu_load()."""
    into = SwapIn(context)
    into.types()  # kvm_pmu_apply_event_filter
    into.counters()
    into.selr()
    into.pmcr()
    into.clear_overflows()
    into.cnten()
    into.inten()
    await into.done()


async def swap_out(context: PmuContext) -> None:
    """The list of kvm_pmu_put()."""
    out = SwapOut(context)
    out.counters()
    out.selr()
    out.pmcr()
    out.cnten()
    out.inten()
    out.drain()
    out.disable()
    await out.done()


def mdcr(context: PmuContext, design: Posted) -> int:
    """kvm_arm_setup_mdcr_el2. The VM's own number is HPMN where fine-grained traps are; else that stays N."""
    cpu, hpmn = context.vcpu.spec, context.pmu.counters
    if context.owned and design.fine_grained(cpu, hpmn):
        return EVERYTHING_TRAPS & ~r.PMU_TRAPS | hpmn
    return EVERYTHING_TRAPS | cpu.counters


async def overflow_status(context: PmuContext, own: Callable[[], Coroutine[Any, Any, None]]) -> bool:
    """kvm_pmu_part_overflow_status: of a vCPU that is FREE by its saved registers, which make it GUEST_OWNED: `own`."""
    pmu = context.pmu
    if not context.owned:
        if not status(pmu.pmcr, pmu.inten, pmu.ovs & context.on.mask):
            return False
        await own()
    return await awaited(status_on_cpu(context))


@dataclass(eq=False)
class V8Pmu(BackedPmu):
    """The first access makes it GUEST_OWNED for good, but its registers go onto the CPU at the next load."""

    design: V8 = derived()
    host: HostTraps = field(default_factory=HostTraps, init=False)
    context: PmuContext = field(default_factory=PmuContext, init=False)

    def derive(self) -> None:
        super().derive()
        self.context.fit(
            self, partition(self.vcpu.spec, self.design.guest_counters(self.vcpu.spec)), n=self.pmu.counters
        )

    def activate_traps(self) -> None:
        self.derive()
        self.host.load_2026(self.vcpu, mdcr(self.context, self.design), trap_controls.FINE_GRAINED)

    async def load(self) -> None:
        """kvm_pmu_load."""
        context = self.context
        context.loaded = True
        if not context.owned:
            return
        # kvm_pmu_set_guest_counters
        await awaited(self.vcpu.call([(Call.GUEST_COUNTERS, context.on.mask, 0, 0, 0)], Account.RESERVE))
        await swap_in(context)

    def deactivate_traps(self) -> None:
        self.host.put_2026(self.vcpu)

    async def put(self) -> None:
        """kvm_pmu_put."""
        context = self.context
        context.loaded = False
        if not context.owned:
            return
        await swap_out(context)
        # kvm_pmu_set_guest_counters
        await awaited(self.vcpu.call([(Call.GUEST_COUNTERS, 0, 0, 0, 0)], Account.RESERVE))

    async def _own(self) -> None:
        """kvm_pmu_set_guest_owned, which loads nothing."""
        self.context.owned = True
        await self.vcpu.write(r.MDCR_EL2, mdcr(self.context, self.design))

    async def access(self, register: int, write: bool, value: int) -> int:
        vcpu = self.vcpu
        before, vcpu.preemptible = vcpu.preemptible, False
        try:
            if not self.context.owned:
                await self._own()
            return await accessors.V8.perform(self.context, register, write, value)
        finally:
            vcpu.preemptible = before

    def level(self) -> Eventual[bool]:
        return overflow_status(self.context, self._own)

    async def guest_overflow(self, mask: int) -> None:
        """kvm_pmu_handle_guest_irq, in whatever state the vCPU is. The host's driver has the PMU stopped."""
        self.pmu.ovs |= mask
        if await awaited(self.level()):
            self.vcpu.kick()


@dataclass(frozen=True, kw_only=True)
class V8(Posted):
    """As v7, with the host's events out of the way."""

    name = "partitioned-v8"
    why = "v8 (June 2026): as v7; the host allocates high to low; what is left on the CPU at put is off"

    traps: Traps = axis(Traps.FGT, trap_controls.TRAPS_OF_VERSION, values=(Traps.FGT, Traps.SLOW_PATH))

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        """The host gives the partition up at vcpu_load. Its handler leaves the flags of that to KVM at all times.

        PMICNTR_EL0 is the host's, but its flag is in neither of the two masks.
        """
        guests = partition(cpu, self.guest_counters(cpu)).mask
        return HostPolicy(
            host_counters(cpu),
            guests,
            high_to_low=True,
            split_irq=True,
            own_flags=every_counter(cpu) & ~guests,
            fixed_flags=True,
            shared_counters=True,
        )

    @property
    def set_n(self) -> SetN:
        return SetN.ATTRIBUTE

    def vpmu(self, vcpu: KvmVcpu) -> V8Pmu:
        return V8Pmu(self, vcpu)
