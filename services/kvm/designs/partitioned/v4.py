"""v4 (July 2025): lazy. A vCPU is FREE up to its first access, then GUEST_OWNED for good."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from services import registers as r
from services.boot import HostPolicy
from services.cpu import Eventual
from services.experiment import CpuSpec
from services.kvm.designs.partitioned import swap, trap_controls, up_to_v5
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.guest_range import partition_up_to_v5
from services.kvm.designs.partitioned.posted import Posted, status_on_cpu
from services.kvm.designs.partitioned.swap import SwapIn
from services.kvm.designs.partitioned.trap_controls import Traps
from services.kvm.designs.partitioned.write_through import FAST, UNCHECKED, write_through
from services.kvm.trap_setup import HostTraps
from services.kvm.vpmu import KvmVcpu, SetN, Vpmu, axis
from services.state import derived

ACCESSES = write_through(swap.whole_type_denied_in_memory) | UNCHECKED


@dataclass(eq=False)
class V4Pmu(Vpmu):
    """The first access lifts MDCR_EL2's traps and loads nothing; from the next load on it is swapped."""

    userenr_in_memory: ClassVar[bool] = True
    el0_checked_fast: ClassVar[bool] = False

    design: V4 = derived()
    host: HostTraps = field(default_factory=HostTraps, init=False)
    context: PmuContext = field(default_factory=PmuContext, init=False)

    def derive(self) -> None:
        super().derive()
        on = partition_up_to_v5(self.vcpu.spec, self.design.guest_counters(self.vcpu.spec))
        self.context.fit(self, on, n=min(self.pmu.counters, on.hpmn))
        self.fast_path = True

    @property
    def fgt(self) -> bool:
        """The fine-grained traps are set at each load, whatever the vCPU's state."""
        return self.design.fine_grained(self.vcpu.spec, self.pmu.counters)

    @property
    def swapped(self) -> bool:
        return self.context.owned and self.fgt

    def activate_traps(self) -> Eventual[None]:
        self.derive()
        return self.host.load_6_12(
            self.vcpu, up_to_v5.mdcr(self.context, untrapped=self.swapped), trap_controls.fine_grained(self.fgt)
        )

    async def load(self) -> None:
        """kvm_pmu_load."""
        context = self.context
        context.loaded = True
        if not self.swapped:
            return
        swap_in = SwapIn(context)
        swap_in.types(swap.whole_type_denied_in_memory)  # kvm_pmu_apply_event_filter
        swap_in.counters()
        up_to_v5.registers_in(swap_in, SwapIn.pmcr_raw)
        await swap_in.done()

    def deactivate_traps(self) -> Eventual[None]:
        return self.host.put_6_12(self.vcpu, trap_controls.fine_grained(self.fgt))

    async def put(self) -> None:
        """kvm_pmu_put."""
        self.context.loaded = False
        if self.swapped:
            await up_to_v5.swap_out(self.context).done()

    def fast(self, register: int, write: bool) -> bool:
        return register in FAST

    async def access(self, register: int, write: bool, value: int) -> int:
        context = self.context
        if not context.owned:
            context.owned = True  # kvm_pmu_regs_set_guest_owned
            await self.vcpu.write(r.MDCR_EL2, up_to_v5.mdcr(self.context, untrapped=self.swapped))
        return await ACCESSES.perform(context, register, write, value)

    def level(self) -> Eventual[bool]:
        """kvm_pmu_part_overflow_status, by the CPU's registers in whatever state the vCPU is."""
        return status_on_cpu(self.context)

    def guest_overflow(self, mask: int) -> None:
        """kvm_pmu_handle_guest_irq."""
        self.pmu.ovs |= mask


@dataclass(frozen=True, kw_only=True)
class V4(Posted):
    """As v3, swapped from the load after the first access on."""

    name = "partitioned-v4"
    why = "v4 (July 2025): as v3, but swapped only from the load after the guest's first access on, then for good"

    hpmn_unchecked = True

    traps: Traps = axis(Traps.FGT, trap_controls.TRAPS_OF_VERSION, values=(Traps.FGT, Traps.FAST_PATH))

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        return up_to_v5.host_policy(cpu, self.guest_counters(cpu), hpme=True)

    @property
    def set_n(self) -> SetN:
        return SetN.SETTABLE

    def vpmu(self, vcpu: KvmVcpu) -> V4Pmu:
        return V4Pmu(self, vcpu)
