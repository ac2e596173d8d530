"""`partitioned`: the best design known, as the reviews of the series asked for it.

Beside what the posted versions do, the host gets its PMCR_EL0 back at put, and is stopped and started by MDCR_EL2.HPME
while a guest has the register; the EL0 filters of host events that a reservation moves are flipped again; a vCPU that
is not resident leaves the host's counters alone, and has its own PMUSERENR_EL0; a lazy transition loads the guest's
registers; long events of the host stay long, by MDCR_EL2.HLP; overflow flags that do not interrupt are on the CPU, and
one that is let interrupt there does so at once; the host allocates from the highest counter, its pinned events first.

What is left of the known faults is the hardware's: a guest that masks a pending interrupt by PMINTENCLR_EL1 or
PMCR_EL0.E, untrapped, has it withdrawn at the next exit only. It is pending in a list register (ICH_LR<n>_EL2), which
no write of PMU registers reaches, with HW = 1 neither; to have these writes trap as long as it is would take
HDFGWTR_EL2 and MDCR_EL2 written twice for every interrupt. Linux clears the flag with its enable
(armv8pmu_disable_intens), which traps. And a guest before PMUv3p5 that sets PMCR_EL0.LP, RES0 for it, on a CPU that has
it has it obeyed, where PMCR_EL0 does not trap; reads of its event counters do, which are narrower than the CPU's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from services import registers as r
from services.boot import HostPolicy
from services.cpu import Call, Eventual, HostEnable, Row, awaited
from services.experiment import CpuSpec
from services.kvm.bill import Account
from services.kvm.declared import Declared, Victim, given_up
from services.kvm.designs.limits import pins
from services.kvm.designs.partitioned import accesses, growth, trap_controls
from services.kvm.designs.partitioned.accesses import Accesses
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.guest_range import (
    check_partition,
    clamped,
    guest_flags,
    guest_range,
    host_counters,
    left_to_guests,
    taken_from_host,
)
from services.kvm.designs.partitioned.host_pmcr import HostPmcr
from services.kvm.designs.partitioned.swap import SwapIn, SwapOut, enforced
from services.kvm.designs.partitioned.trap_controls import Traps
from services.kvm.vpmu import Design, KvmVcpu, SetN, Vpmu, axis
from services.state import derived

ACCESSES = accesses.ON_CPU | accesses.types_written_through()
UNSPLIT = ACCESSES | accesses.UNSPLIT
GROWING = ACCESSES | growth.GROWING


class Swap(Enum):
    """When the guest's registers go onto the CPU."""

    EAGER = "eager"
    LAZY = "lazy"
    LAZY_STICKY = "lazy-sticky"


class Reservation(Enum):
    """When the host gives the guests' range up."""

    DYNAMIC = "dynamic"
    STATIC = "static"
    SYSFS = "sysfs"
    GROW = "grow"


AT_BOOT = (Reservation.STATIC, Reservation.SYSFS)


class Pinned(Enum):
    """What becomes of a pinned event of the host that a reservation squeezes."""

    SWAP = "swap"
    ERROR = "error"


class Pmcr(Enum):
    """Does PMCR_EL0 trap?"""

    UNTRAPPED = "untrapped"
    TRAPPED = "trapped"


class HostTime(Enum):
    """What the times of host events that exclude guests are taken from."""

    CTX = "ctx"
    LESS_GUEST = "less-guest"


@dataclass(eq=False)
class PartitionedPmu(Vpmu):
    """A vCPU's PMU: on the CPU while it is resident, in memory otherwise."""

    swap_in: ClassVar[type[SwapIn]] = SwapIn
    swap_out: ClassVar[type[SwapOut]] = SwapOut

    design: Partitioned = derived()
    context: PmuContext = field(default_factory=PmuContext, init=False)
    host_pmcr: HostPmcr = field(default_factory=HostPmcr, init=False)
    trapped: Accesses = derived(init=False)
    hpmn: int = field(default=0, init=False)  # event counters that it has come to have since the load, if it grows
    grows: bool = derived(init=False)
    guest_time: bool = derived(init=False)  # its clocks leave out the residency

    def __post_init__(self) -> None:
        super().__post_init__()
        self.context.owned = self.design.swap is Swap.EAGER

    def derive(self) -> None:
        super().derive()
        design, cpu = self.design, self.vcpu.spec
        fgt = design.traps is Traps.FGT
        on = guest_range(cpu, design.hpmn(cpu, self.pmu.counters), fgt=fgt)
        most = on.hpmn
        self.grows = design.reservation is Reservation.GROW and on.split
        if self.grows:
            on = guest_range(cpu, min(max(self.hpmn, growth.least(cpu)), most), fgt=fgt)
        # Untrapped reads find HPMN, and so does one that traps, because the vCPU is FREE or for want of FEAT_FGT.
        self.context.fit(self, on, n=self.pmu.counters if design.pmcr is Pmcr.TRAPPED else most, most=most)
        self.trapped = (GROWING if self.grows else ACCESSES) if on.split else UNSPLIT
        self.fast_path = design.traps is Traps.FAST_PATH
        self.guest_time = design.host_time is HostTime.LESS_GUEST

    async def load(self) -> None:
        """kvm_arch_vcpu_load."""
        self.hpmn = growth.used(self.pmu)
        self.derive()
        context = self.context
        context.loaded = True
        match self.design.swap:
            case Swap.LAZY:
                context.owned = self._in_use()
            case Swap.LAZY_STICKY:  # a VMM may have set them in use before any access
                context.owned = context.owned or self._in_use()
        if context.owned:
            await self._reside()
        else:
            await context.set_traps(self._free_mdcr())
            # What another guest has left could make an access UNDEFINED that is to trap (__activate_traps_common).
            await self.vcpu.write(r.PMSELR_EL0, 0)
            await self._free_userenr(self.pmu.userenr, self.vcpu.host_userenr)

    def _free_mdcr(self) -> int:
        """MDCR_EL2 while everything is in memory."""
        return trap_controls.free(self.context.on.cpu)

    async def _free_userenr(self, wanted: int, found: int) -> None:
        """PMUSERENR_EL0 is the guest's while everything else is in memory, too: it decides at which exception level an
        access from EL0 traps."""
        if wanted != found:
            await self.vcpu.write(r.PMUSERENR_EL0, wanted)

    def _in_use(self) -> bool:
        """The debug registers' rule: decided from the saved state, afresh at each load."""
        pmu, mask = self.pmu, self.context.on.mask
        return bool(pmu.pmcr & r.PMCR_E and (pmu.cnten & mask or pmu.ovs & pmu.inten & mask))

    async def _reside(self) -> None:
        """The registers go onto the CPU."""
        context = self.context
        irqs = self.vcpu.local_irq_save()  # an IPI may start the host's PMU, whose enable is about to be elsewhere
        await self._take_from_host()
        await self.host_pmcr.keep(context)
        await self._set_traps()
        self.vcpu.irqs = irqs
        swap_in = self.swap_in(context)  # kvm_pmu_load
        swap_in.types(enforced)  # kvm_pmu_apply_event_filter
        swap_in.counters(self.pmu.width)
        swap_in.selr()
        swap_in.pmcr(self.host_pmcr.value, self.pmu.pmcr_writable)
        swap_in.overflows()
        swap_in.cnten()
        swap_in.inten()
        swap_in.userenr()
        await swap_in.done()

    async def _take_from_host(self) -> None:
        """kvm_pmu_set_guest_counters."""
        enable = HostEnable.RANGE if self.context.on.split else HostEnable.SHARED
        rows: list[Row] = [(Call.GUEST_COUNTERS, self._takes(), enable, 0, int(self.guest_time))]
        if self.el0_switched():  # what that reschedules comes back with the host's filters
            rows.append((Call.EL0_FILTER, 1, 0, 0, 0))
        await awaited(self.vcpu.call(rows, Account.RESERVE))

    def _takes(self) -> int:
        """Of the host's counters."""
        on = self.context.on
        return taken_from_host(on.cpu, on.mask)

    async def _give_back(self) -> None:
        """The same at the put."""
        await awaited(self.vcpu.call([(Call.GUEST_COUNTERS, 0, 0, 0, 0)], Account.RESERVE))

    async def _set_traps(self) -> None:
        await self.context.set_traps(self._mdcr())

    def _mdcr(self) -> int:
        """kvm_arm_setup_mdcr_el2."""
        context = self.context
        pmcr = 0 if self.design.pmcr is Pmcr.UNTRAPPED and context.full else r.MDCR_EL2_TPMCR
        host = self.host_pmcr.hpme(context) | self.host_pmcr.hlp(context)
        return trap_controls.owned(context.on) | host | pmcr

    async def _grow(self, hpmn: int) -> None:
        """More of its counters go onto the CPU, while it is resident."""
        context, before = self.context, self.context.on.hpmn
        self.hpmn = hpmn
        self.derive()
        await self._take_from_host()
        irqs = self.vcpu.local_irq_save()
        await self.host_pmcr.follow(context)
        await self._set_traps()
        self.vcpu.irqs = irqs
        burst = growth.counters_in(context, before)
        context.swaps.register_writes += len(burst)
        await awaited(self.vcpu.kvm(burst))

    async def put(self) -> None:
        """kvm_arch_vcpu_put."""
        context = self.context
        if context.owned:
            await self.host_pmcr.follow(context)
            swap_out = self.swap_out(context)  # kvm_pmu_put
            swap_out.counters()
            swap_out.selr()
            swap_out.pmcr()
            swap_out.cnten()
            swap_out.inten()
            swap_out.overflows()
            swap_out.userenr()
            swap_out.clear_overflows()
            swap_out.disable()
            swap_out.host(r.PMUSERENR_EL0, self.vcpu.host_userenr)
            swap_out.host(r.PMCR_EL0, self.host_pmcr.value)
            await swap_out.done()
        else:
            await self._free_userenr(self.vcpu.host_userenr, self.pmu.userenr)
        context.loaded = False
        await self._kick_if_due()
        await context.lift_traps()  # kvm_vcpu_put_vhe
        if context.owned:
            await self._give_back()

    async def _kick_if_due(self) -> None:
        """Perhaps by a flag that the put has found: a vCPU that blocks does not sleep over it."""
        if await self.context.overflow_status():
            self.vcpu.kick()

    async def access(self, register: int, write: bool, value: int) -> int:
        context, vcpu = self.context, self.vcpu
        before, vcpu.preemptible = vcpu.preemptible, False  # what is resident now is so up to the end
        try:
            hpmn = growth.used_after(context, register, value) if write and self.grows else 0
            if not context.owned or hpmn > context.on.hpmn:
                await self._first_access(hpmn)
            return await self.trapped.perform(context, register, write, value)
        finally:
            vcpu.preemptible = before

    async def _first_access(self, hpmn: int) -> None:
        """To its PMU since it was loaded, or one that needs this HPMN."""
        with self.context.charged_to_swap():
            if self.context.owned:
                await self._grow(hpmn)
            else:
                self.context.owned = True
                self.hpmn = max(self.hpmn, hpmn)
                self.derive()
                await self._reside()

    def fast(self, register: int, write: bool) -> bool:
        """What may make it grow needs the host's perf, and what may interrupt the guest its vGIC."""
        return self.context.resident and self.context.full and not self.context.may_interrupt(register, write)

    async def level(self) -> bool:
        """Where no flag interrupts, those that have and been masked since wait on the CPU again, as after a load. They
        leave memory first: what an interrupt brings there in between stays, and is looked at."""
        context, pmu = self.context, self.pmu
        while not await context.overflow_status():
            flags = pmu.ovs & context.on.mask
            if not (flags and context.resident and context.on.split):
                return False
            pmu.ovs &= ~flags
            await context.write(r.PMOVSSET_EL0, flags)
        return True

    def guest_overflow(self, mask: int) -> Eventual[None]:
        self.context.take_overflows(mask)
        return None


@dataclass(frozen=True, kw_only=True)
class Partitioned(Design):
    """MDCR_EL2.HPMN gives the guest a range of the real counters."""

    name = "partitioned"
    why = "the guest owns counters [0, HPMN) of the hardware; most of its accesses need no trap"

    parameter: ClassVar[bool] = True
    of_vcpu: ClassVar[type[PartitionedPmu]] = PartitionedPmu

    swap: Swap = axis(
        Swap.LAZY,
        "when the guest's registers go onto the CPU: at a load if in use, else at the first access since; at each "
        "load; as lazy, and from then on for the vCPU's life",
    )
    traps: Traps = axis(Traps.FGT, trap_controls.TRAPS)
    reservation: Reservation = axis(
        Reservation.DYNAMIC,
        "when the host gives the guest's range up: while a vCPU is resident; at boot; at boot and whenever an "
        "operator writes reserved_host_counters ([[host.sysfs]]), but nothing of what a VM has; or while a vCPU is "
        "resident and as far as it has used its counters, by traps until HPMN is full, PMCR_EL0.N being that from the "
        "beginning",
    )
    pinned: Pinned = axis(
        Pinned.SWAP,
        "a pinned event of the host is in the host's range, where a flexible one makes room, and without any waits for "
        "the guest's put; or it is anywhere, and left without a counter goes to ERROR for good; with "
        "reservation=static nothing is squeezed",
    )
    host_time: HostTime = axis(
        HostTime.CTX,
        "what host events that exclude guests are scaled by: their context's time, or that without what passed while "
        "a guest had its range, as under a mediated vPMU",
    )
    pmcr: Pmcr = axis(Pmcr.UNTRAPPED, "PMCR_EL0.N as HPMN has it, or by TPMCR as userspace set it")

    def hpmn(self, cpu: CpuSpec, counters: int) -> int:
        """MDCR_EL2.HPMN while a guest is resident for which userspace has set `counters` event counters."""
        return counters

    def nr_counters(self, cpus: Sequence[CpuSpec], wanted: int) -> int:
        return clamped(cpus, wanted)

    def host_keeps(self, cpu: CpuSpec, counters: int) -> int | None:
        if self.reservation not in AT_BOOT:
            return cpu.counters - counters
        return cpu.counters - (left_to_guests(cpu, self.guest_range) & ~r.CYCLE_BIT).bit_count()

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        check_partition(cpu)
        fallbacks = trap_controls.check(self.traps, cpu, counters)
        if self.reservation is Reservation.GROW and counters and not cpu.hpmn0:
            fallbacks.append(f"{cpu.model} has no FEAT_HPMN0: HPMN is 1 at least, counter 0 is not waited for")
        if self.reservation is Reservation.STATIC and self.pinned is Pinned.ERROR:
            fallbacks.append("reservation=static squeezes no event of the host: pinned=error changes nothing")
        return fallbacks

    @property
    def declared(self) -> tuple[Declared, ...]:
        """merge_sched_in(): what brings an event out of ERROR is its user alone. An operator is no better off: that of
        a task may wait for it to run, and need its counter then, so that no write can be refused for it in time."""
        found: list[Declared] = []
        if self.reservation is Reservation.SYSFS:
            reason = "a pinned event of the host's for which an operator's write of reserved_host_counters leaves no "
            reason += "counter goes to ERROR for good"
            found += given_up(Victim.HOST, reason, ["I10"], pins)
        if self.pinned is Pinned.ERROR and self.reservation is not Reservation.STATIC:
            reason = "a pinned event of the host's that is left without a counter at vcpu_load goes to ERROR for good"
            found += given_up(Victim.HOST, reason, ["I10"])
        return tuple(found)

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        """The host's handler leaves the overflow flags of a guest's range to KVM."""
        kept, guests = host_counters(cpu), left_to_guests(cpu, self.guest_range)
        if self.reservation in AT_BOOT:
            kept &= ~taken_from_host(cpu, guests)
        return HostPolicy(
            kept, guest_flags(cpu, guests), high_to_low=True, split_irq=True, swaps_pinned=self.pinned is Pinned.SWAP
        )

    @property
    def parameter_writable(self) -> bool:
        return self.reservation is Reservation.SYSFS

    @property
    def set_n(self) -> SetN:
        return SetN.ATTRIBUTE

    def vpmu(self, vcpu: KvmVcpu) -> PartitionedPmu:
        return self.of_vcpu(self, vcpu)
