"""A vCPU's PMU whose steps are each whose the design says they are.

With all of them `partitioned`'s it is that, access by access; with all in which a version differs it is that version.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from services import registers as r
from services.cpu import Call, Eventual, HostEnable, Row, awaited
from services.kvm.bill import Account
from services.kvm.designs.partitioned import accessors, by_selr, v5, v7
from services.kvm.designs.partitioned.accesses import Accesses
from services.kvm.designs.partitioned.backed import BackedPmu
from services.kvm.designs.partitioned.by_steps import lists, traps
from services.kvm.designs.partitioned.by_steps.steps import (
    OWN,
    V1_TO_V3,
    V1_TO_V5,
    V1_TO_V6,
    V2_TO_V4,
    V2_TO_V5,
    V6_TO_V7,
    V8_TO_V9,
    Of,
)
from services.kvm.designs.partitioned.by_steps.versions import Composed, partition_of, pmcr_n
from services.kvm.designs.partitioned.guest_range import GuestRange, taken_from_host
from services.kvm.designs.partitioned.posted import status, status_on_cpu
from services.kvm.designs.partitioned.reviewed import PartitionedPmu
from services.kvm.designs.partitioned.swap import SwapIn
from services.kvm.designs.partitioned.write_through import FAST
from services.kvm.guest_pmu import OF_COUNTERS, USERENR_ALL, counter_of
from services.kvm.trap_setup import HostTraps
from services.registers import CYCLE_COUNTER
from services.state import derived


@dataclass(eq=False)
class StepsPmu(PartitionedPmu):
    """Where nothing else is said, as `PartitionedPmu`."""

    design: Composed = derived()
    host: HostTraps = field(default_factory=HostTraps, init=False)
    icntr: int = field(default=0, init=False)  # PMICNTR_EL0 (v1)
    own: GuestRange = derived(init=False)  # the range of `partitioned`
    in_hyp: Accesses = derived(init=False)  # kvm_hyp_handle_pmu_regs (v6)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.context.owned = self.context.owned or self.design.owned in V1_TO_V3

    def derive(self) -> None:
        super().derive()
        steps, context, cpu = self.design, self.context, self.vcpu.spec
        self.own = context.on
        on = self.own if steps.partition is OWN else partition_of(steps, cpu, self.pmu.counters)
        n = context.n if steps.pmcr_n is OWN else pmcr_n(steps.pmcr_n, cpu, self.pmu.counters, on.hpmn)
        if on is not self.own or n != context.n:
            context.fit(self, on, n=n)
        self.trapped, self.in_hyp = steps.handlers(split=on.split)
        if steps.fast_path is not OWN:
            self.fast_path = True

    def el0_disabled_fast(self, register: int, write: bool) -> bool:
        return self.design.el0 not in V2_TO_V4 and self.el0_disabled(register, write)

    @property
    def swapped(self) -> bool:
        """Does this load, or put, swap?"""
        owned, context = self.design.owned, self.context
        if owned is Of.V6:
            return True
        in_partition = context.on.hpmn if owned is Of.V1 else self.pmu.counters
        if owned in V1_TO_V5 and not self.design.of(owned).fine_grained(self.vcpu.spec, in_partition):
            return False
        return context.owned

    def _mdcr(self) -> int:
        """kvm_arm_setup_mdcr_el2."""
        return traps.mdcr(self.design, self.context, self.own, self.host_pmcr)

    def _decide(self) -> None:
        if self.design.owned is OWN:
            self.context.owned = self._in_use()

    # Load and put.

    def activate_traps(self) -> Eventual[None]:
        return None if self.design.trap_set_up is OWN else self._activate_traps()

    async def _activate_traps(self) -> None:
        self.derive()
        self._decide()
        if self.swapped or self.design.mdcr_hpmn is not OWN:
            await self._keep_host_pmcr()
        await awaited(traps.activate(self.design, self.vcpu, self.host, self._mdcr(), self.context))

    async def load(self) -> None:
        context, steps = self.context, self.design
        if steps.trap_set_up is OWN:
            self.derive()
            self._decide()
        context.loaded = True
        if self.swapped:
            await self._on_to_cpu(traps_set=steps.trap_set_up is not OWN)
        else:
            if steps.trap_set_up is OWN:
                if steps.mdcr_hpmn is not OWN:
                    await self._keep_host_pmcr()
                await self._set_traps()
                await self.vcpu.write(r.PMSELR_EL0, 0)
                await self._all_ones()
            if steps.irq_masks is Of.V9:
                await self._call((Call.GUEST_COUNTERS, 0, 0, context.on.mask, 0))
            if steps.pmuserenr is OWN:
                await self._free_userenr(self.pmu.userenr, self.vcpu.host_userenr)

    async def _all_ones(self) -> None:
        """PMUSERENR_EL0, where that is a version's and the trap set-up is not."""
        if self.design.pmuserenr not in (OWN, Of.V5):
            await self.vcpu.read(r.PMUSERENR_EL0)
            await self.vcpu.write(r.PMUSERENR_EL0, USERENR_ALL)

    async def _reside(self) -> None:
        """At the first access."""
        await self._on_to_cpu(traps_set=False)

    async def _on_to_cpu(self, *, traps_set: bool) -> None:
        irqs = None if traps_set else self.vcpu.local_irq_save()
        await self._take_from_host()
        if not traps_set:
            await self._keep_host_pmcr()
            if self.design.trap_set_up is OWN:
                await self._set_traps()
                await self._all_ones()
            else:
                await self.vcpu.write(r.MDCR_EL2, self._mdcr())
        if irqs is not None:
            self.vcpu.irqs = irqs
        await self._swap_in()

    async def _swap_in(self) -> None:
        again = self._load_list if self.design.owned is Of.V5 else None
        await self._load_list().done(again)

    def _load_list(self) -> SwapIn:
        into = self.swap_in(self.context)
        lists.load(self.design, into, icntr=self.icntr, host_pmcr=self.host_pmcr.value)
        return into

    async def _keep_host_pmcr(self) -> None:
        if self.design.host_pmcr is OWN:
            await self.host_pmcr.keep(self.context)

    async def _take_from_host(self) -> None:
        steps, on = self.design, self.context.on
        enable = HostEnable.OWN
        if steps.host_pmcr is OWN:
            enable = HostEnable.RANGE if on.split else HostEnable.SHARED
        mask = 0
        if steps.reserve not in V1_TO_V6:
            mask = taken_from_host(on.cpu, on.mask) if steps.reserve is OWN else on.mask
        flags = on.mask if steps.irq_masks is Of.V9 else 0
        if mask or flags or enable:
            filters = steps.el0_filters is OWN and self.el0_switched()
            await self._call((Call.GUEST_COUNTERS, mask, enable, flags, int(self.guest_time)), filters)

    async def _call(self, row: Row, filters: bool = False) -> None:
        rows = [row, (Call.EL0_FILTER, 1, 0, 0, 0)] if filters else [row]
        await awaited(self.vcpu.call(rows, Account.RESERVE))

    def deactivate_traps(self) -> Eventual[None]:
        return None if self.design.trap_set_up is OWN else self._deactivate_traps()

    async def _deactivate_traps(self) -> None:
        await self._follow_host_pmcr()
        await awaited(traps.deactivate(self.design, self.vcpu, self.host, self.context))

    async def _follow_host_pmcr(self) -> None:
        if self.swapped and self.design.host_pmcr is OWN:
            await self.host_pmcr.follow(self.context)

    async def put(self) -> None:
        steps, context = self.design, self.context
        swapped = self.swapped
        if steps.trap_set_up is OWN:
            await self._follow_host_pmcr()
        if swapped:
            out = self.swap_out(context)
            lists.put(
                steps,
                out,
                keep_icntr=self._keep_icntr,
                host_userenr=self.vcpu.host_userenr,
                host_pmcr=self.host_pmcr.value,
            )
            await out.done()
        elif steps.pmuserenr is OWN:
            await self._free_userenr(self.vcpu.host_userenr, self.pmu.userenr)
        context.loaded = False
        if steps.overflow_status is OWN:
            await self._kick_if_due()
        if steps.trap_set_up is OWN:
            await context.lift_traps()
            if steps.pmuserenr not in (OWN, Of.V5):
                await self.vcpu.write(r.PMUSERENR_EL0, self.vcpu.host_userenr)
        calls = steps.reserve not in V1_TO_V6 or steps.host_pmcr is OWN
        if (swapped and calls) or steps.irq_masks is Of.V9:
            await self._give_back()

    def _keep_icntr(self, value: int) -> None:
        self.icntr = value

    # Accesses.

    async def access(self, register: int, write: bool, value: int) -> int:
        vcpu = self.vcpu
        if self.design.preemption is not OWN:
            return await self._access(register, write, value)
        before, vcpu.preemptible = vcpu.preemptible, False
        try:
            return await self._access(register, write, value)
        finally:
            vcpu.preemptible = before

    async def _access(self, register: int, write: bool, value: int) -> int:
        context, transition = self.context, self.design.transition
        in_hyp = self._in_hyp(register, write)
        if transition is Of.V6 and in_hyp:
            await accessors.check_access(context)
        if not context.owned and self._owns_first(register, write, in_hyp):
            await (self._first_access(0) if transition is OWN else self._own())
        found = await (self.in_hyp if in_hyp else self.trapped).perform(context, register, write, value)
        if transition is Of.V5 and not (context.owned or register in v5.NOT_OWNING):
            await self._own()
            with context.charged_to_swap():
                if self.swapped:
                    await self._take_from_host()
                    await self._swap_in()
        return found

    def _owns_first(self, register: int, write: bool, in_hyp: bool) -> bool:
        """Is the vCPU GUEST_OWNED before this access is made?"""
        match self.design.transition:
            case Of.V1 | Of.V2 | Of.V3 | Of.V5:
                return False
            case Of.V6:
                return in_hyp
            case Of.V7:
                return write and register not in v7.NOT_OWNING
        return True

    async def _own(self) -> None:
        """kvm_pmu_set_guest_owned of the posted versions, which sets MDCR_EL2 and loads nothing."""
        await self._keep_host_pmcr()
        self.context.owned = True
        await self.vcpu.write(r.MDCR_EL2, self._mdcr())

    def _in_hyp(self, register: int, write: bool) -> bool:
        """`V6Pmu.fast`."""
        n = counter_of(register, self.vcpu.peek(r.PMSELR_EL0) & 0x1F) if register in OF_COUNTERS else None
        refused = n is not None and n != CYCLE_COUNTER and n >= self.pmu.counters
        return register in (by_selr.HYP.writes if write else by_selr.HYP.reads) and not refused

    def fast(self, register: int, write: bool) -> bool:
        if self.design.fast_path is OWN:
            return super().fast(register, write)
        return register in FAST if self.design.fast_path in V2_TO_V5 else self._in_hyp(register, write)

    def el0_disabled(self, register: int, write: bool) -> bool:
        return self.design.el0 is not OWN and not self.pmu.el0_may(register, write=write)

    # The guest's interrupt.

    async def level(self) -> bool:
        context, pmu, whose = self.context, self.pmu, self.design.overflow_status
        if whose is OWN:
            return await super().level()
        if context.owned or whose in V1_TO_V5:
            return await awaited(status_on_cpu(context))
        if whose in V6_TO_V7 or not status(pmu.pmcr, pmu.inten, pmu.ovs & context.on.mask):
            return False
        await self._own()
        return await awaited(status_on_cpu(context))

    def guest_overflow(self, mask: int) -> Eventual[None]:
        if self.design.guest_irq is OWN:
            return super().guest_overflow(mask)
        self.pmu.ovs |= mask
        return self._kicked() if self.design.guest_irq in V8_TO_V9 else None

    async def _kicked(self) -> None:
        if await self.level():
            self.vcpu.kick()


@dataclass(eq=False)
class BackedStepsPmu(BackedPmu, StepsPmu):
    """With the kernel counters that KVM_REQ_RELOAD_PMU makes in v8 and v9."""
