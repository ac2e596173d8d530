"""v9 (September 2026), of which two of 22 patches were read: the trap handlers, and the masks of an interrupt.

What is not known of it is as in v8, and unverified.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from services import registers as r
from services.boot import HostPolicy
from services.cpu import Call, Row, awaited
from services.experiment import CpuSpec
from services.kvm.bill import Account
from services.kvm.designs.partitioned import accessors, trap_controls
from services.kvm.designs.partitioned.accesses import Accesses, by_register, by_type, selected
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.from_v8 import FromV8Pmu, swap_in, swap_out
from services.kvm.designs.partitioned.guest_range import host_counters, partition
from services.kvm.designs.partitioned.posted import Posted
from services.kvm.designs.partitioned.swap import without_el2
from services.kvm.designs.partitioned.trap_controls import Traps
from services.kvm.vpmu import KvmVcpu, SetN, axis
from services.state import derived


class IrqMask(Enum):
    """By what the host's handler tells a guest's flags from its own."""

    VCPU = "vcpu"
    HPMN = "hpmn"


async def clear_overflows(context: PmuContext, register: int, value: int) -> None:
    """In memory and on the CPU."""
    await accessors.clear_overflows(context, register, value)
    await context.write(register, value & context.pmu.mask)


async def _filtered(context: PmuContext, n: int) -> None:
    await context.write(r.type_register(n), without_el2(context.pmu, n))


async def write_type(context: PmuContext, n: int, value: int) -> None:
    """Into memory, and by the event filter onto the CPU."""
    await accessors.checked_write_type(context, n, value)
    await _filtered(context, n)


async def write_selected_type(context: PmuContext, _: int, value: int) -> None:
    await accessors.check_access(context)
    n = await selected(context)
    await accessors.write_type(context, n, value)
    await _filtered(context, n)


ACCESSES = accessors.V8 | Accesses(
    writes={
        **by_type(write_type),
        r.PMXEVTYPER_EL0: (write_selected_type, 0),
        **by_register(clear_overflows, r.PMOVSCLR_EL0),
    }
)


@dataclass(eq=False)
class V9Pmu(FromV8Pmu):
    """The partition is the VM's own number of counters."""

    accesses: ClassVar[Accesses] = ACCESSES

    design: V9 = derived()

    def derive(self) -> None:
        super().derive()
        self.context.fit(self, partition(self.vcpu.spec, self.pmu.counters), n=self.pmu.counters)

    async def load(self) -> None:
        """kvm_pmu_load."""
        context = self.context
        context.loaded = True
        mask = context.on.mask if context.owned else 0
        flags = 0 if self.design.irq_mask is IrqMask.HPMN else context.on.mask
        if mask or flags:
            await self._reserve((Call.GUEST_COUNTERS, mask, 0, flags, 0))
        if not context.owned:
            return
        await swap_in(context)

    async def put(self) -> None:
        """kvm_pmu_put."""
        context = self.context
        context.loaded = False
        if context.owned:
            await swap_out(context)
        if context.owned or self.design.irq_mask is IrqMask.VCPU:
            await self._reserve((Call.GUEST_COUNTERS, 0, 0, 0, 0))

    async def _reserve(self, row: Row) -> None:
        """kvm_pmu_set_guest_counters, and which flags are a guest's from now on."""
        await awaited(self.vcpu.call([row], Account.RESERVE))


@dataclass(frozen=True, kw_only=True)
class V9(Posted):
    """As v8, with each VM's own number of counters as its partition."""

    name = "partitioned-v9"
    why = "v9 (September 2026), unverified: as v8; sized by each VM, types written through, the host's mask per CPU"

    unverified = True
    parameter = False  # inferred: each VM's number is its partition

    traps: Traps = axis(Traps.FGT, trap_controls.TRAPS_OF_VERSION, values=(Traps.FGT, Traps.SLOW_PATH))
    irq_mask: IrqMask = axis(
        IrqMask.VCPU,
        "unverified: whose flags an interrupt finds, by the vCPU that runs, FREE or not; or by the CPU's MDCR_EL2.HPMN",
    )

    def host_keeps(self, cpu: CpuSpec, counters: int) -> int | None:
        return cpu.counters - counters

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        return [*super().check(cpu, counters), "partitioned-v9 is unverified but for two of its patches: else as v8"]

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        """The host gives a VM's counters up at vcpu_load, on that CPU alone."""
        guests = partition(cpu, self.guest_counters(cpu)).mask
        by_hpmn = self.irq_mask is IrqMask.HPMN
        return HostPolicy(
            host_counters(cpu),
            guests,
            high_to_low=True,
            split_irq=True,
            hpmn_flags=by_hpmn,
            resync_in_process=True,
        )

    @property
    def set_n(self) -> SetN:
        return SetN.ATTRIBUTE

    def vpmu(self, vcpu: KvmVcpu) -> V9Pmu:
        return V9Pmu(self, vcpu)
