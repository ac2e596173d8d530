"""`mediated`: while a vCPU is loaded the whole PMU is its guest's, as KVM does it on x86."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

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
from services.kvm.vpmu import Access, Design, DesignError, KvmVcpu, SetN, Vpmu, axis
from services.state import derived

ACCESSES = accesses.ON_CPU | accesses.types_written_through()
UNSPLIT = ACCESSES | accesses.UNSPLIT


@dataclass(eq=False)
class MediatedPmu(Vpmu):
    """Every counter of the CPU, swapped whole; the host's events go out at the load and come back at the put."""

    design: Mediated = derived()
    context: PmuContext = field(default_factory=partial(PmuContext, owned=True), init=False)
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
        self.derive()
        context, on = self.context, self.context.on
        context.loaded = True
        rows: list[Row] = [(Call.GUEST_COUNTERS, host_counters(on.cpu), int(on.split), 0, 0)]
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
        context = self.context
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
        await awaited(self.vcpu.call([(Call.GUEST_COUNTERS, 0, 0, 0, 0)], Account.RESERVE))

    def access(self, register: int, write: bool, value: int) -> Access:
        return self.trapped.perform(self.context, register, write, value)

    def level(self) -> bool:
        return self.context.overflow_status()

    def guest_overflow(self, mask: int) -> None:
        self.context.take_overflows(mask)


@dataclass(frozen=True, kw_only=True)
class Mediated(Design):
    """The guest owns the whole PMU while it is loaded."""

    name = "mediated"
    why = "the whole PMU changes hands at vcpu_load and vcpu_put; host events must exclude guests"

    traps: Traps = axis(Traps.FGT, trap_controls.TRAPS)

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        if counters != cpu.counters:
            raise DesignError(
                f"the guest owns all {cpu.counters} event counters of {cpu.model}, it cannot have {counters}",
                f"give the guest all of them: guest.counters = {cpu.counters}",
            )
        return trap_controls.check(self.traps, cpu, counters)

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        """Every counter, for events that exclude guests."""
        return HostPolicy(host_counters(cpu), host_counters(cpu), split_irq=True, refuses_guests=True)

    @property
    def set_n(self) -> SetN:
        return SetN.ATTRIBUTE

    def vpmu(self, vcpu: KvmVcpu) -> MediatedPmu:
        return MediatedPmu(self, vcpu)
