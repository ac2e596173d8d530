"""What v8 and v9 have in common, as far as v9 is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from services import registers as r
from services.cpu import Eventual, awaited
from services.kvm.designs.partitioned import trap_controls
from services.kvm.designs.partitioned.accesses import Accesses
from services.kvm.designs.partitioned.backed import BackedPmu
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.posted import Posted, status, status_on_cpu
from services.kvm.designs.partitioned.swap import SwapIn, SwapOut
from services.kvm.trap_setup import HostTraps
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


@dataclass(eq=False)
class FromV8Pmu(BackedPmu):
    """The first access makes it GUEST_OWNED for good, but its registers go onto the CPU at the next load."""

    accesses: ClassVar[Accesses]

    design: Posted = derived()
    host: HostTraps = field(default_factory=HostTraps, init=False)
    context: PmuContext = field(default_factory=PmuContext, init=False)

    def activate_traps(self) -> Eventual[None]:
        self.derive()
        return self.host.load_2026(self.vcpu, self._mdcr(), trap_controls.FINE_GRAINED)

    def deactivate_traps(self) -> Eventual[None]:
        return self.host.put_2026(self.vcpu)

    def _mdcr(self) -> int:
        """kvm_arm_setup_mdcr_el2. The VM's own number is HPMN where fine-grained traps are; else that stays N."""
        cpu, hpmn = self.vcpu.spec, self.pmu.counters
        if self.context.owned and self.design.fine_grained(cpu, hpmn):
            return EVERYTHING_TRAPS & ~r.PMU_TRAPS | hpmn
        return EVERYTHING_TRAPS | cpu.counters

    async def _own(self) -> None:
        """kvm_pmu_set_guest_owned, which loads nothing."""
        self.context.owned = True
        await self.vcpu.write(r.MDCR_EL2, self._mdcr())

    async def access(self, register: int, write: bool, value: int) -> int:
        vcpu = self.vcpu
        before, vcpu.preemptible = vcpu.preemptible, False
        try:
            if not self.context.owned:
                await self._own()
            return await self.accesses.perform(self.context, register, write, value)
        finally:
            vcpu.preemptible = before

    def level(self) -> Eventual[bool]:
        """kvm_pmu_part_overflow_status: of a vCPU that is FREE by its saved registers, which make it GUEST_OWNED."""
        pmu, context = self.pmu, self.context
        if context.owned:
            return status_on_cpu(context)
        return status(pmu.pmcr, pmu.inten, pmu.ovs & context.on.mask) and self._owned_by_status()

    async def _owned_by_status(self) -> bool:
        await self._own()
        return await awaited(status_on_cpu(self.context))

    async def guest_overflow(self, mask: int) -> None:
        """kvm_pmu_handle_guest_irq, in whatever state the vCPU is. The host's driver has the PMU stopped."""
        self.pmu.ovs |= mask
        if await awaited(self.level()):
            self.vcpu.kick()
