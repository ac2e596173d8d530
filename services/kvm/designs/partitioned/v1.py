"""v1 (June 2025): a guest's registers are on the CPU while it is loaded; PMCR_EL0.N is the host's one partition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

from services import registers as r
from services.boot import HostPolicy
from services.cpu import Eventual
from services.experiment import NO_PARTITION, CpuSpec
from services.kvm.designs.emulated import Emulated615
from services.kvm.designs.partitioned import trap_controls, up_to_v5
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.guest_range import partition_up_to_v5
from services.kvm.designs.partitioned.posted import Posted, status_on_cpu
from services.kvm.designs.partitioned.swap import SwapIn
from services.kvm.designs.partitioned.trap_controls import Traps
from services.kvm.designs.partitioned.write_through import write_through
from services.kvm.guest_pmu import GuestPmu
from services.kvm.trap_setup import NONE, FineGrained, HostTraps
from services.kvm.vpmu import Access, KvmVcpu, SetN, Vpmu, axis
from services.state import derived


def _as_written(pmu: GuestPmu, n: int) -> int:
    """The VM's event filter is not looked at, nor the wish to count at EL2."""
    return pmu.typer[n]


ACCESSES = write_through(_as_written)


@dataclass(eq=False)
class V1Pmu(Vpmu):
    """An event type is on the CPU since the guest wrote it, whoever has been there in between."""

    userenr_in_memory: ClassVar[bool] = True

    design: V1 = derived()
    host: HostTraps = field(default_factory=HostTraps, init=False)
    context: PmuContext = field(default_factory=partial(PmuContext, owned=True), init=False)
    icntr: int = 0  # PMICNTR_EL0

    def derive(self) -> None:
        super().derive()
        on = partition_up_to_v5(self.vcpu.spec, self.design.guest_counters(self.vcpu.spec))
        # What a handler holds a counter's number against is PMCR_EL0.N as EL2 reads it.
        self.context.fit(self, on, n=self.vcpu.spec.counters)

    @property
    def swapped(self) -> bool:
        """MDCR_EL2.TPM is clear."""
        return self.design.fine_grained(self.vcpu.spec, self.context.on.hpmn)

    @property
    def _fine_grained(self) -> FineGrained:
        return trap_controls.WITH_PMICNTR if self.swapped else NONE

    def activate_traps(self) -> Eventual[None]:
        self.derive()
        return self.host.load_6_12(self.vcpu, self._mdcr(), self._fine_grained)

    async def load(self) -> None:
        """kvm_pmu_load."""
        context = self.context
        context.loaded = True
        if not self.swapped:
            return
        swap_in = SwapIn(context)
        swap_in.counters()
        swap_in.icntr(self.icntr)
        up_to_v5.registers_in(swap_in, SwapIn.pmcr_raw)
        await swap_in.done()

    def deactivate_traps(self) -> Eventual[None]:
        return self.host.put_6_12(self.vcpu, self._fine_grained)

    async def put(self) -> None:
        """kvm_pmu_put."""
        self.context.loaded = False
        if self.swapped:
            await up_to_v5.swap_out(self.context, self._keep_icntr).done()

    def _keep_icntr(self, value: int) -> None:
        self.icntr = value

    def _mdcr(self) -> int:
        """kvm_arm_setup_mdcr_el2, without HPME: the host's counters stop."""
        cpu, hpmn = self.vcpu.spec, self.context.on.hpmn
        traps = 0 if self.swapped else r.PMU_TRAPS
        return hpmn | traps | trap_controls.nothing_at_el2(cpu) & r.MDCR_EL2_HPMD

    def access(self, register: int, write: bool, value: int) -> Access:
        return ACCESSES.perform(self.context, register, write, value)

    def level(self) -> Eventual[bool]:
        """kvm_pmu_part_overflow_status."""
        return status_on_cpu(self.context)

    def guest_overflow(self, mask: int) -> None:
        """kvm_pmu_handle_guest_irq."""
        self.pmu.ovs |= mask


@dataclass(frozen=True, kw_only=True)
class V1(Posted):
    """MDCR_EL2.HPMN, as first posted."""

    name = "partitioned-v1"
    why = "v1 (June 2025): swapped at each load, event types as the guest wrote them; N is the host's one partition"

    traps: Traps = axis(Traps.FGT, trap_controls.TRAPS_OF_VERSION, values=(Traps.FGT, Traps.SLOW_PATH))

    def nr_counters(self, cpus: Sequence[CpuSpec], wanted: int) -> int:
        """An emulated vPMU is not the partition's."""
        return super().nr_counters([cpu for cpu in cpus if self.partitions(cpu)], wanted)

    def host_keeps(self, cpu: CpuSpec, counters: int) -> int | None:
        return super().host_keeps(cpu, counters) if self.partitions(cpu) else None

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        if cpu.reserved_host_counters in (0, NO_PARTITION):
            return ["reserved_host_counters leaves the host's PMU in one piece: the guest's vPMU is emulated"]
        fallbacks = super().check(cpu, counters)
        if self.partitions(cpu):
            return fallbacks
        if self.traps is not Traps.FGT:
            return ["traps=slow-path: the guest's vPMU is emulated, as without FEAT_FGT"]
        return [f"{cpu.model} has no {'FEAT_HPMN0' if cpu.fgt else 'FEAT_FGT'}: the guest's vPMU is emulated"]

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        if not self.partitions(cpu):
            return self._emulated().host_policy(cpu)
        return up_to_v5.host_policy(cpu, self.guest_counters(cpu), hpme=False)

    @property
    def set_n(self) -> SetN:
        return SetN.FIXED

    def vpmu(self, vcpu: KvmVcpu) -> Vpmu:
        return V1Pmu(self, vcpu) if self.partitions(vcpu.spec) else self._emulated().vpmu(vcpu)

    def partitions(self, cpu: CpuSpec) -> bool:
        """Not where the host is to have no counter for itself, nor where HPMN cannot have the value that it has to."""
        if cpu.reserved_host_counters in (0, NO_PARTITION):
            return False
        return self.fine_grained(cpu, self.guest_counters(cpu))

    def _emulated(self) -> Emulated615:
        return Emulated615(guest_range=self.guest_range)
