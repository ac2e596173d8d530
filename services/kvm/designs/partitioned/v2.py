"""v2 (June 2025): the host's driver is split at boot; without FEAT_FGT accesses are completed in the fast path."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

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
from services.kvm.vpmu import Access, KvmVcpu, SetN, Vpmu, axis
from services.state import derived

ACCESSES = write_through(swap.whole_type_denied_in_memory) | UNCHECKED


@dataclass(eq=False)
class V2Pmu(Vpmu):
    """On the CPU whenever it is loaded; without FEAT_FGT nothing is swapped: what is written through stays there."""

    userenr_in_memory: ClassVar[bool] = True
    el0_checked_fast: ClassVar[bool] = False

    design: Posted = derived()
    host: HostTraps = field(default_factory=HostTraps, init=False)
    context: PmuContext = field(default_factory=partial(PmuContext, owned=True), init=False)

    def derive(self) -> None:
        super().derive()
        on = partition_up_to_v5(self.vcpu.spec, self.design.guest_counters(self.vcpu.spec))
        self.context.fit(self, on, n=min(self.pmu.counters, on.hpmn))
        self.fast_path = True

    @property
    def swapped(self) -> bool:
        """MDCR_EL2.TPM is clear."""
        return self.design.fine_grained(self.vcpu.spec, self.pmu.counters)

    def activate_traps(self) -> Eventual[None]:
        self.derive()
        return self.host.load_6_12(
            self.vcpu, up_to_v5.mdcr(self.context, untrapped=self.swapped), trap_controls.fine_grained(self.swapped)
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
        return self.host.put_6_12(self.vcpu, trap_controls.fine_grained(self.swapped))

    async def put(self) -> None:
        """kvm_pmu_put."""
        self.context.loaded = False
        if self.swapped:
            await up_to_v5.swap_out(self.context).done()

    def fast(self, register: int, write: bool) -> bool:
        return register in FAST

    def access(self, register: int, write: bool, value: int) -> Access:
        return ACCESSES.perform(self.context, register, write, value)

    def level(self) -> Eventual[bool]:
        """kvm_pmu_part_overflow_status."""
        return status_on_cpu(self.context)

    def guest_overflow(self, mask: int) -> None:
        """kvm_pmu_handle_guest_irq."""
        self.pmu.ovs |= mask


@dataclass(frozen=True, kw_only=True)
class V2(Posted):
    """As v1, with a number of counters of the VM's own."""

    name = "partitioned-v2"
    why = "v2 (June 2025): as v1, N settable, types by the filter at load; without FEAT_FGT in the hyp's fast path"

    hpmn_unchecked = True

    traps: Traps = axis(Traps.FGT, trap_controls.TRAPS_OF_VERSION, values=(Traps.FGT, Traps.FAST_PATH))

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        return up_to_v5.host_policy(cpu, self.guest_counters(cpu), hpme=False)

    @property
    def set_n(self) -> SetN:
        return SetN.SETTABLE

    def vpmu(self, vcpu: KvmVcpu) -> V2Pmu:
        return V2Pmu(self, vcpu)
