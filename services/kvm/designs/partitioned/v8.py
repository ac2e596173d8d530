"""v8 (June 2026): the host allocates its event counters from the highest index, which guests are given last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from services.boot import HostPolicy
from services.cpu import Call, awaited
from services.experiment import CpuSpec
from services.kvm.bill import Account
from services.kvm.designs.partitioned import accessors, trap_controls
from services.kvm.designs.partitioned.accesses import Accesses
from services.kvm.designs.partitioned.from_v8 import FromV8Pmu, swap_in, swap_out
from services.kvm.designs.partitioned.guest_range import every_counter, host_counters, partition
from services.kvm.designs.partitioned.posted import Posted
from services.kvm.designs.partitioned.trap_controls import Traps
from services.kvm.vpmu import KvmVcpu, SetN, axis
from services.state import derived


@dataclass(eq=False)
class V8Pmu(FromV8Pmu):
    """The partition is the PMU's."""

    accesses: ClassVar[Accesses] = accessors.V8

    design: V8 = derived()

    def derive(self) -> None:
        super().derive()
        self.context.fit(
            self, partition(self.vcpu.spec, self.design.guest_counters(self.vcpu.spec)), n=self.pmu.counters
        )

    async def load(self) -> None:
        """kvm_pmu_load."""
        context = self.context
        context.loaded = True
        if not context.owned:
            return
        # kvm_pmu_set_guest_counters
        await awaited(self.vcpu.call([(Call.GUEST_COUNTERS, context.on.mask, 0, 0, 0)], Account.RESERVE))
        await swap_in(context)

    async def put(self) -> None:
        """kvm_pmu_put."""
        context = self.context
        context.loaded = False
        if not context.owned:
            return
        await swap_out(context)
        # kvm_pmu_set_guest_counters
        await awaited(self.vcpu.call([(Call.GUEST_COUNTERS, 0, 0, 0, 0)], Account.RESERVE))


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
