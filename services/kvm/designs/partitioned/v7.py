"""v7 (May 2026): the host has all counters but while a GUEST_OWNED vCPU is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from services import registers as r
from services.boot import HostPolicy
from services.cpu import Call, Eventual, awaited
from services.experiment import CpuSpec
from services.kvm.bill import Account
from services.kvm.designs.partitioned import by_selr, trap_controls
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.guest_range import GuestRange, every_counter, host_counters, partition
from services.kvm.designs.partitioned.posted import Posted, status_on_cpu
from services.kvm.designs.partitioned.swap import SwapIn, SwapOut
from services.kvm.designs.partitioned.trap_controls import Traps
from services.kvm.designs.partitioned.v6 import mdcr
from services.kvm.trap_setup import HostTraps
from services.kvm.vpmu import KvmVcpu, SetN, Vpmu, axis
from services.state import derived

# Writes of PMUSERENR_EL0 and PMSWINC_EL0 make a vCPU GUEST_OWNED no more than reads do.
NOT_OWNING = (r.PMUSERENR_EL0, r.PMSWINC_EL0, r.PMMIR_EL1)


@dataclass(eq=False)
class V7Pmu(Vpmu):
    """The first write makes it GUEST_OWNED for good, but its registers go onto the CPU at the next load."""

    design: V7 = derived()
    host: HostTraps = field(default_factory=HostTraps, init=False)
    context: PmuContext = field(default_factory=PmuContext, init=False)

    def derive(self) -> None:
        super().derive()
        self.context.fit(self, self.design.partition(self.vcpu.spec), n=self.pmu.counters)

    def activate_traps(self) -> Eventual[None]:
        self.derive()
        return self.host.load_6_12(self.vcpu, mdcr(self.context, self.design), trap_controls.FINE_GRAINED)

    async def load(self) -> None:
        """kvm_pmu_load."""
        context = self.context
        context.loaded = True
        if not context.owned:
            return
        # kvm_pmu_set_guest_counters
        await awaited(self.vcpu.call([(Call.GUEST_COUNTERS, context.on.mask, 0, 0, 0)], Account.RESERVE))
        swap_in = SwapIn(context)
        swap_in.types_by_selr(r.PMCCNTR_EL0)  # kvm_pmu_apply_event_filter
        swap_in.counters_by_selr(r.PMCCNTR_EL0)
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
        if not context.owned:
            return
        swap_out = SwapOut(context)
        swap_out.counters_by_selr(r.PMCCNTR_EL0)
        swap_out.selr()
        swap_out.pmcr()
        swap_out.cnten()
        swap_out.inten()
        await swap_out.done()
        # kvm_pmu_set_guest_counters
        await awaited(self.vcpu.call([(Call.GUEST_COUNTERS, 0, 0, 0, 0)], Account.RESERVE))

    async def access(self, register: int, write: bool, value: int) -> int:
        if write and not self.context.owned and register not in NOT_OWNING:
            self.context.owned = True  # kvm_pmu_set_guest_owned, which loads nothing
            await self.vcpu.write(r.MDCR_EL2, mdcr(self.context, self.design))
        return await by_selr.V7.perform(self.context, register, write, value)

    def level(self) -> Eventual[bool]:
        """kvm_pmu_part_overflow_status: never of a vCPU that is FREE."""
        return self.context.owned and status_on_cpu(self.context)

    def guest_overflow(self, mask: int) -> None:
        """kvm_pmu_handle_guest_irq, in whatever state the vCPU is, which nobody kicks."""
        self.pmu.ovs |= mask


@dataclass(frozen=True, kw_only=True)
class V7(Posted):
    """As v6, with dynamic reservation."""

    name = "partitioned-v7"
    why = "v7 (May 2026): as v6, but the host gives counters up at vcpu_load, and the first write loads nothing"

    traps: Traps = axis(Traps.FGT, trap_controls.TRAPS_OF_VERSION, values=(Traps.FGT, Traps.SLOW_PATH))

    def partition(self, cpu: CpuSpec) -> GuestRange:
        """Without event counters its mask is GENMASK(-1, 0): every bit."""
        guests = self.guest_counters(cpu)
        return partition(cpu, guests, r.CYCLE_BIT if guests else r.MASK64)

    def nr_counters(self, cpus: Sequence[CpuSpec], wanted: int) -> int:
        """Partitioned or not, a VM has what it asks for: HPMN reaches into the host's counters where that is more than
        the partition has."""
        return wanted

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        """The host gives the partition up at vcpu_load. Its handler leaves the flags of that to KVM at all times.

        PMICNTR_EL0 is the host's again, but its flag is in neither of the two masks.
        """
        guests = self.partition(cpu).mask
        return HostPolicy(
            host_counters(cpu),
            guests,
            split_irq=True,
            own_flags=every_counter(cpu) & ~guests,
            fixed_flags=True,
            shared_counters=True,
            resched_irqs_on=True,
        )

    @property
    def set_n(self) -> SetN:
        return SetN.ATTRIBUTE

    def vpmu(self, vcpu: KvmVcpu) -> V7Pmu:
        return V7Pmu(self, vcpu)
