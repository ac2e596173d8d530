"""`gunyah`: semi-lazy. The first access of a time slice traps and loads the guest's PMU for the rest of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from services import registers as r
from services.boot import HostPolicy
from services.cpu import Call, Row, awaited
from services.experiment import CpuSpec
from services.kvm.bill import Account
from services.kvm.designs.partitioned import accesses, trap_controls
from services.kvm.designs.partitioned.accesses import Accesses
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.guest_range import guest_range, host_counters
from services.kvm.designs.partitioned.host_pmcr import HostPmcr
from services.kvm.designs.partitioned.swap import SwapIn, SwapOut
from services.kvm.designs.partitioned.trap_controls import Traps
from services.kvm.vpmu import Access, Design, KvmVcpu, SetN, Vpmu, axis
from services.state import derived

ACCESSES = accesses.ON_CPU | accesses.types_written_through()
UNSPLIT = ACCESSES | accesses.UNSPLIT


@dataclass(eq=False)
class GunyahPmu(Vpmu):
    """MDCR_EL2.HPMN = N and HPMD = 1: nothing counts at EL2, and nothing for the host at all."""

    design: Gunyah = derived()
    context: PmuContext = field(default_factory=PmuContext, init=False)
    host_pmcr: HostPmcr = field(default_factory=HostPmcr, init=False)
    trapped: Accesses = derived(init=False)

    def derive(self) -> None:
        super().derive()
        cpu = self.vcpu.spec
        on = guest_range(cpu, cpu.counters, fgt=self.design.traps is Traps.FGT)
        self.context.fit(self, on, n=self.pmu.counters)
        self.trapped = ACCESSES if on.split else UNSPLIT
        self.fast_path = self.design.traps is Traps.FAST_PATH

    async def load(self) -> None:
        """The switch-in: access is kept, without a trap, iff PMCR.E and an enabled counter."""
        self.derive()
        context, pmu = self.context, self.pmu
        context.loaded = True
        context.owned = bool(pmu.pmcr & r.PMCR_E and pmu.cnten & context.on.mask)
        if context.owned:
            await self._reside()
        else:
            await context.set_traps(trap_controls.free(context.on.cpu))

    async def _reside(self) -> None:
        """The registers go onto the CPU."""
        context, on = self.context, self.context.on
        if on.split:
            rows: list[Row] = [(Call.GUEST_COUNTERS, on.mask, 1, 0, 0)]
            if self.el0_switched():
                rows.append((Call.EL0_FILTER, 1, 0, 0, 0))
            await awaited(self.vcpu.call(rows, Account.RESERVE))
        self.host_pmcr.keep(context)
        await context.set_traps(trap_controls.owned(on) | self.host_pmcr.hpme(context))
        swap_in = SwapIn(context)
        swap_in.types()
        swap_in.counters()
        swap_in.selr()
        swap_in.pmcr()
        swap_in.clear_overflows()
        swap_in.cnten()
        swap_in.inten()
        swap_in.userenr()
        await swap_in.done()

    async def put(self) -> None:
        """The switch-out."""
        context = self.context
        if context.owned:
            self.host_pmcr.follow(context)
            swap_out = SwapOut(context)
            swap_out.counters()
            swap_out.selr()
            swap_out.pmcr()
            swap_out.cnten()
            swap_out.inten()
            swap_out.overflows()
            swap_out.userenr()
            swap_out.clear_overflows()
            swap_out.disable()
            swap_out.host(r.PMUSERENR_EL0, 0)
            swap_out.host(r.PMCR_EL0, self.host_pmcr.value)
            await swap_out.done()
        context.loaded = False
        await context.lift_traps()
        if context.owned and context.on.split:
            await awaited(self.vcpu.call([(Call.GUEST_COUNTERS, 0, 0, 0, 0)], Account.RESERVE))

    def access(self, register: int, write: bool, value: int) -> Access:
        if not self.context.resident:
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
class Gunyah(Design):
    """The Gunyah hypervisor's way with the PMU."""

    name = "gunyah"
    why = "trap the first access of a time slice, keep access at switch-in iff a counter runs; the host counts nothing"

    traps: Traps = axis(Traps.FGT, trap_controls.TRAPS)

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        return trap_controls.check(self.traps, cpu, counters)

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        """The host has no counters."""
        return HostPolicy(0, host_counters(cpu), split_irq=True)

    @property
    def set_n(self) -> SetN:
        return SetN.ATTRIBUTE

    def vpmu(self, vcpu: KvmVcpu) -> GunyahPmu:
        return GunyahPmu(self, vcpu)
