"""v5 (December 2025): HPME is set. Without FEAT_FGT nothing that the guest programs reaches the CPU."""

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

ACCESSES = accesses.ON_CPU | accesses.types_written_through()


def _register(context: PmuContext, register: int) -> int:
    value = context.pmu.read(register)
    assert value is not None  # IN_MEMORY names it for those only that are there
    return value


def _write_register(context: PmuContext, register: int, value: int) -> None:
    context.pmu.write(register, value)


def _counter(context: PmuContext, n: int) -> int:
    accesses.has_counter(context, n)
    return context.pmu.counter[n]


def _write_counter(context: PmuContext, n: int, value: int) -> None:
    accesses.has_counter(context, n)
    context.pmu.counter[n] = value & r.MASK64


def _write_type(context: PmuContext, n: int, value: int) -> None:
    accesses.has_counter(context, n)
    context.pmu.typer[n] = value & context.pmu.event_mask


REGISTERS = (
    *(r.PMCR_EL0, r.PMSELR_EL0, r.PMUSERENR_EL0, r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0),
    *(r.PMINTENSET_EL1, r.PMINTENCLR_EL1, r.PMOVSSET_EL0, r.PMOVSCLR_EL0),
)
IN_MEMORY = ACCESSES | Accesses(
    reads={
        **accesses.by_counter(_counter),
        r.PMXEVCNTR_EL0: accesses.selected_read(_counter, accesses.selr_in_memory),
        r.PMXEVTYPER_EL0: accesses.selected_read(accesses.read_type, accesses.selr_in_memory),
        **accesses.by_register(_register, *REGISTERS),
    },
    writes={
        **accesses.by_counter(_write_counter),
        **accesses.by_type(_write_type),
        r.PMXEVCNTR_EL0: accesses.selected_write(_write_counter, accesses.selr_in_memory),
        r.PMXEVTYPER_EL0: accesses.selected_write(_write_type, accesses.selr_in_memory),
        **accesses.by_register(_write_register, *REGISTERS),
        **accesses.by_register(accesses.ignore_write, r.PMSWINC_EL0),
    },
)


@dataclass(eq=False)
class V5Pmu(Vpmu):
    """FREE up to the first access, then GUEST_OWNED for good; without FEAT_FGT never anything but FREE."""

    design: V5 = derived()
    context: PmuContext = field(default_factory=PmuContext, init=False)
    trapped: Accesses = derived(init=False)

    def derive(self) -> None:
        super().derive()
        on = guest_range(self.vcpu.spec, self.pmu.counters, fgt=self.design.traps is Traps.FGT)
        self.context.fit(self, on, n=self.pmu.counters)
        self.trapped = ACCESSES if on.untrapped else IN_MEMORY

    async def load(self) -> None:
        """kvm_arch_vcpu_load."""
        self.derive()
        context = self.context
        context.loaded = True
        context.owned &= context.on.untrapped  # kvm_pmu_load returns early without FEAT_FGT
        if context.owned:
            await self._reside()
        else:
            await context.set_traps(trap_controls.free(context.on.cpu) | trap_controls.NOTHING_AT_EL2)

    async def _reside(self) -> None:
        """The registers go onto the CPU."""
        context = self.context
        await context.set_traps(trap_controls.owned(context.on) | r.MDCR_EL2_HPME)  # kvm_vcpu_load_vhe
        await self._swap_in().done(self._swap_in)

    def _swap_in(self) -> SwapIn:
        """kvm_pmu_load."""
        swap_in = SwapIn(self.context)
        swap_in.types()  # kvm_pmu_apply_event_filter
        swap_in.counters()
        swap_in.selr()
        swap_in.pmcr()
        swap_in.clear_overflows()
        swap_in.cnten()
        swap_in.inten()
        swap_in.userenr()
        return swap_in

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
            swap_out.userenr()
            swap_out.clear_overflows()
            swap_out.disable()
            swap_out.host(r.PMUSERENR_EL0, 0)
            await swap_out.done()
        context.loaded = False
        await context.lift_traps()  # kvm_vcpu_put_vhe

    def access(self, register: int, write: bool, value: int) -> Access:
        context = self.context
        if context.on.untrapped and not context.resident:  # once, for the vCPU's life
            return self._first_access(register, write, value)
        return self.trapped.perform(context, register, write, value)

    async def _first_access(self, register: int, write: bool, value: int) -> int:
        context = self.context
        context.owned = True
        with context.charged_to_swap(preemptible=True):
            await self._reside()
        return self.trapped.perform(context, register, write, value)

    def level(self) -> bool:
        return self.context.overflow_status()

    def guest_overflow(self, mask: int) -> None:
        self.context.take_overflows(mask)


@dataclass(frozen=True, kw_only=True)
class V5(Design):
    """As v4, with many faults repaired."""

    name = "partitioned-v5"
    why = "v5 (December 2025): as v4, with HPME set; without FEAT_FGT nothing that a guest programs reaches the CPU"

    traps: Traps = axis(Traps.FGT, trap_controls.TRAPS_OF_VERSION, values=(Traps.FGT, Traps.SLOW_PATH))

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        return trap_controls.check(self.traps, cpu, counters)

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        """The range is the guests' from boot on; the host's handler clears all overflow flags at once."""
        return HostPolicy(every_counter(cpu) & ~self.guest_range, guest_flags(cpu, self.guest_range))

    @property
    def set_n(self) -> SetN:
        return SetN.SETTABLE

    def vpmu(self, vcpu: KvmVcpu) -> V5Pmu:
        return V5Pmu(self, vcpu)
