"""`partitioned`: the best design known, as the reviews of the series asked for it.

Beside what the posted versions do, the host gets its PMCR_EL0 back at put, and is stopped and started by MDCR_EL2.HPME
while a guest has the register; the EL0 filters of host events that a reservation moves are flipped again; a vCPU that
is not resident leaves the host's counters alone, and has its own PMUSERENR_EL0; a lazy transition loads the guest's
registers; long events of the host stay long, by MDCR_EL2.HLP; overflow flags that do not interrupt are on the CPU, and
one that is let interrupt there does so at once; the host allocates from the highest counter, its pinned events first.

What is left of the known faults: a flag that has interrupted is in memory, so that a guest which masks it by
PMINTENCLR_EL1 or PMCR_EL0.E, untrapped, has its interrupt withdrawn at the next exit only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from services import registers as r
from services.boot import HostPolicy
from services.cpu import Call, Eventual, Row, awaited
from services.experiment import CpuSpec
from services.kvm.bill import Account
from services.kvm.designs.partitioned import accesses, trap_controls
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
from services.kvm.designs.partitioned.swap import SwapIn, SwapOut
from services.kvm.designs.partitioned.trap_controls import Traps
from services.kvm.vpmu import Design, KvmVcpu, SetN, Vpmu, axis
from services.state import derived

ACCESSES = accesses.ON_CPU | accesses.types_written_through()
UNSPLIT = ACCESSES | accesses.UNSPLIT


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

    design: Partitioned = derived()
    context: PmuContext = field(default_factory=PmuContext, init=False)
    host_pmcr: HostPmcr = field(default_factory=HostPmcr, init=False)
    trapped: Accesses = derived(init=False)
    calls_host: bool = derived(init=False)  # to give the range up, to stop its own by HPME, or for its clocks
    guest_time: bool = derived(init=False)  # its clocks leave out the residency

    def __post_init__(self) -> None:
        super().__post_init__()
        self.context.owned = self.design.swap is Swap.EAGER

    def derive(self) -> None:
        super().derive()
        design, cpu = self.design, self.vcpu.spec
        on = guest_range(cpu, design.hpmn(cpu, self.pmu.counters), fgt=design.traps is Traps.FGT)
        # Untrapped reads find HPMN, and so does one that traps, because the vCPU is FREE or for want of FEAT_FGT.
        self.context.fit(self, on, n=self.pmu.counters if design.pmcr is Pmcr.TRAPPED else on.hpmn)
        self.trapped = ACCESSES if on.split else UNSPLIT
        self.fast_path = design.traps is Traps.FAST_PATH
        self.guest_time = design.host_time is HostTime.LESS_GUEST
        self.calls_host = design.reservation is Reservation.DYNAMIC or on.split or self.guest_time

    async def load(self) -> None:
        """kvm_arch_vcpu_load."""
        self.derive()
        context = self.context
        context.loaded = True
        if self.design.swap is Swap.LAZY:
            context.owned = self._in_use()
        if context.owned:
            await self._reside()
        else:
            await context.set_traps(trap_controls.free(context.on.cpu))
            await self._free_userenr(self.pmu.userenr, self.vcpu.host_userenr)

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
        context, on = self.context, self.context.on
        if self.calls_host:  # kvm_pmu_set_guest_counters
            taken = taken_from_host(on.cpu, on.mask)
            rows: list[Row] = [(Call.GUEST_COUNTERS, taken, int(on.split), 0, int(self.guest_time))]
            if self.el0_switched():  # what that reschedules comes back with the host's filters
                rows.append((Call.EL0_FILTER, 1, 0, 0, 0))
            await awaited(self.vcpu.call(rows, Account.RESERVE))
        await self.host_pmcr.keep(context)
        pmcr = r.MDCR_EL2_TPMCR if self.design.pmcr is Pmcr.TRAPPED else 0
        host = self.host_pmcr.hpme(context) | self.host_pmcr.hlp(context)
        await context.set_traps(trap_controls.owned(on) | host | pmcr)  # kvm_arm_setup_mdcr_el2
        swap_in = SwapIn(context)  # kvm_pmu_load
        swap_in.types()  # kvm_pmu_apply_event_filter
        swap_in.counters()
        swap_in.selr()
        swap_in.pmcr(self.host_pmcr.value)
        swap_in.overflows()
        swap_in.cnten()
        swap_in.inten()
        swap_in.userenr()
        await swap_in.done()

    async def put(self) -> None:
        """kvm_arch_vcpu_put."""
        context = self.context
        if context.owned:
            await self.host_pmcr.follow(context)
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
            swap_out.host(r.PMUSERENR_EL0, self.vcpu.host_userenr)
            swap_out.host(r.PMCR_EL0, self.host_pmcr.value)
            await swap_out.done()
        else:
            await self._free_userenr(self.vcpu.host_userenr, self.pmu.userenr)
        context.loaded = False
        # Perhaps by a flag that the put has found: a vCPU that blocks does not sleep over it.
        if await context.overflow_status():
            self.vcpu.kick()
        await context.lift_traps()  # kvm_vcpu_put_vhe
        if context.owned and self.calls_host:  # kvm_pmu_set_guest_counters
            await awaited(self.vcpu.call([(Call.GUEST_COUNTERS, 0, 0, 0, 0)], Account.RESERVE))

    async def access(self, register: int, write: bool, value: int) -> int:
        with self.context.preempt_disabled():  # what is resident now is so up to the end
            if not self.context.owned:
                await self._first_access()
            return await self.trapped.perform(self.context, register, write, value)

    async def _first_access(self) -> None:
        context = self.context
        context.owned = True
        with context.charged_to_swap():
            await self._reside()

    def fast(self) -> bool:
        return self.context.resident

    def level(self) -> Eventual[bool]:
        return self.context.overflow_status()

    def guest_overflow(self, mask: int) -> None:
        self.context.take_overflows(mask)


@dataclass(frozen=True, kw_only=True)
class Partitioned(Design):
    """MDCR_EL2.HPMN gives the guest a range of the real counters."""

    name = "partitioned"
    why = "the guest owns counters [0, HPMN) of the hardware; most of its accesses need no trap"

    swap: Swap = axis(
        Swap.LAZY,
        "when the guest's registers go onto the CPU: at a load if in use, else at the first access since; at each "
        "load; from the first access on, for the vCPU's life",
    )
    traps: Traps = axis(Traps.FGT, trap_controls.TRAPS)
    reservation: Reservation = axis(
        Reservation.DYNAMIC,
        "when the host gives the guest's range up: while a vCPU is resident; at boot; or at boot and whenever an "
        "operator writes reserved_host_counters ([[host.sysfs]]), but nothing of what a VM has",
    )
    pinned: Pinned = axis(
        Pinned.SWAP,
        "a pinned event of the host is in the host's range, where a flexible one makes room, and without any waits for "
        "the guest's put; or it is anywhere, and left without a counter goes to ERROR for good",
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
        if self.reservation is Reservation.DYNAMIC:
            return cpu.counters - counters
        return cpu.counters - (left_to_guests(cpu, self.guest_range) & ~r.CYCLE_BIT).bit_count()

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        check_partition(cpu)
        return trap_controls.check(self.traps, cpu, counters)

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        """The host's handler leaves the overflow flags of a guest's range to KVM."""
        kept, guests = host_counters(cpu), left_to_guests(cpu, self.guest_range)
        if self.reservation is not Reservation.DYNAMIC:
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
        return PartitionedPmu(self, vcpu)
