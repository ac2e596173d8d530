"""v8 and v9, mended in one respect each: by that it is told what brings a violation about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from services import registers as r
from services.boot import HostPolicy
from services.cpu import Eventual, awaited
from services.experiment import CpuSpec
from services.kvm.designs.partitioned import accessors, from_v8, swap, v8, v9
from services.kvm.designs.partitioned.accesses import Accesses, by_register, by_type
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.from_v8 import FromV8Pmu
from services.kvm.designs.partitioned.guest_range import every_counter
from services.kvm.guest_pmu import USERENR_ALL

Patch = pytest.MonkeyPatch


def transition(patch: Patch) -> None:
    """The first access reserves and loads."""
    before = FromV8Pmu._own

    async def own(self: Any) -> None:
        await before(self)
        if self.context.loaded:
            await self.load()

    patch.setattr(FromV8Pmu, "_own", own)


def types(patch: Patch) -> None:
    """A trapped write of an event type reaches the CPU."""
    _access(patch, Accesses(writes={**by_type(v9.write_type), r.PMXEVTYPER_EL0: (v9.write_selected_type, 0)}))


def ovs(patch: Patch) -> None:
    """Overflow flags are read from memory and the CPU, and cleared in both."""

    async def read(context: PmuContext, _: int) -> int:
        await accessors.check_access(context)
        return context.pmu.ovs | await context.read(r.PMOVSSET_EL0) & context.pmu.mask

    reads = by_register(read, r.PMOVSSET_EL0, r.PMOVSCLR_EL0)
    _access(patch, Accesses(reads=reads, writes=by_register(v9.clear_overflows, r.PMOVSCLR_EL0)))


def userenr(patch: Patch) -> None:
    """PMUSERENR_EL0 is loaded, and kept in memory. A vCPU that is FREE has it there, too."""

    async def read(context: PmuContext, _: int) -> int:
        return context.pmu.userenr

    async def write(context: PmuContext, register: int, value: int) -> None:
        context.pmu.write(register, value)
        await context.write(register, value & USERENR_ALL)

    before = from_v8.swap_in

    async def swap_in(context: PmuContext) -> None:
        await before(context)
        await context.write(r.PMUSERENR_EL0, context.pmu.userenr & USERENR_ALL)

    _access(patch, Accesses(reads=by_register(read, r.PMUSERENR_EL0), writes=by_register(write, r.PMUSERENR_EL0)))
    for module in (v8, v9):
        patch.setattr(module, "swap_in", swap_in)
    patch.setattr(FromV8Pmu, "userenr_in_memory", True)
    transition(patch)


def hpmd(patch: Patch) -> None:
    """HPMD and HCCD only where HPMN splits the counters."""
    _mdcr(
        patch,
        lambda cpu, value: (
            value if value & r.MDCR_EL2_HPMN < cpu.counters else value & ~(r.MDCR_EL2_HPMD | r.MDCR_EL2_HCCD)
        ),
    )


def hlp(patch: Patch) -> None:
    """The host's range overflows at 64 bits."""
    _mdcr(patch, lambda cpu, value: value | r.MDCR_EL2_HLP if value & r.MDCR_EL2_HPMN < cpu.counters else value)


def split(patch: Patch) -> None:
    """HPMN is the VM's number without FEAT_FGT, too."""
    before = FromV8Pmu._mdcr

    def mdcr(self: Any) -> int:
        value, hpmn = before(self), self.pmu.counters
        return value & ~r.MDCR_EL2_HPMN | hpmn if self.context.owned and hpmn else value

    patch.setattr(FromV8Pmu, "_mdcr", mdcr)


def icntr(patch: Patch) -> None:
    """The host does not use PMICNTR_EL0."""
    for design in (v8.V8, v9.V9):
        _policy(patch, design, lambda cpu, policy: replace(policy, counters=every_counter(cpu)))


def backed(patch: Patch) -> None:
    """KVM_REQ_RELOAD_PMU makes no perf events."""
    for pmu in (v8.V8Pmu, v9.V9Pmu):
        patch.setattr(pmu, "reload", lambda self: None)


def restore(patch: Patch) -> None:
    """vcpu_load looks at the saved enables."""
    before = FromV8Pmu.activate_traps

    def activate(self: Any) -> Eventual[None]:
        if self.pmu.pmcr & r.PMCR_E and self.pmu.cnten:
            self.context.owned = True
        return before(self)

    patch.setattr(FromV8Pmu, "activate_traps", activate)


def pmcr_put(patch: Patch) -> None:
    """The host has its PMCR_EL0.E before its MDCR_EL2."""
    before, puts = FromV8Pmu.deactivate_traps, {pmu: pmu.put for pmu in (v8.V8Pmu, v9.V9Pmu)}

    async def deactivate(self: Any) -> None:
        self.guests = self.vcpu.peek(r.PMCR_EL0)
        if self.context.owned:
            await self.vcpu.write(r.PMCR_EL0, self.guests & 0xFF | r.PMCR_E)
        done = before(self)
        if done is not None:
            await done

    patch.setattr(FromV8Pmu, "deactivate_traps", deactivate)
    for pmu, put in puts.items():
        patch.setattr(pmu, "put", _put_that_keeps(put))


def denied(patch: Patch) -> None:
    """Of a denied event NSU and NSK are clear, too."""
    before = swap.SwapIn.types
    patch.setattr(swap.SwapIn, "types", lambda self: before(self, swap.enforced))
    patch.setattr(v9, "without_el2", swap.enforced)


def pinned(patch: Patch) -> None:
    """A pinned event of the host goes to a counter of the host's range, and waits without one."""
    for design in (v8.V8, v9.V9):
        _policy(patch, design, lambda _, policy: replace(policy, swaps_pinned=True))


def icntr_flag(patch: Patch) -> None:
    """The host clears whatever flag is not a guest's."""
    _policy(patch, v8.V8, lambda _, policy: replace(policy, own_flags=r.MASK64))


def kick(patch: Patch) -> None:
    """The PMU's interrupt raises the vCPU's by PMCR_EL0.E as the guest has it."""
    before = FromV8Pmu.guest_overflow

    async def overflow(self: Any, mask: int) -> None:
        await before(self, mask)

        async def level() -> bool:
            return bool(self.pmu.ovs & self.vcpu.peek(r.PMINTENSET_EL1))

        self.level = level
        await awaited(self.vcpu._flush_pmu())
        del self.level

    patch.setattr(FromV8Pmu, "guest_overflow", overflow)


def _put_that_keeps(put: Callable[[Any], Any]) -> Callable[[Any], Any]:
    async def kept(self: Any) -> None:
        await put(self)
        if self.context.owned:
            self.pmu.pmcr = self.guests & 0xFF

    return kept


def _access(patch: Patch, more: Accesses) -> None:
    for pmu in (v8.V8Pmu, v9.V9Pmu):
        patch.setattr(pmu, "accesses", pmu.accesses | more)


def _mdcr(patch: Patch, mended: Callable[[CpuSpec, int], int]) -> None:
    before = FromV8Pmu._mdcr
    patch.setattr(FromV8Pmu, "_mdcr", lambda self: mended(self.vcpu.spec, before(self)))


def _policy(patch: Patch, design: type[v8.V8 | v9.V9], mended: Callable[[CpuSpec, HostPolicy], HostPolicy]) -> None:
    before = design.host_policy
    patch.setattr(design, "host_policy", lambda self, cpu: mended(cpu, before(self, cpu)))


# By the names of causes in docs/versions.toml.
MENDED: dict[str, Callable[[Patch], None]] = {
    "transition": transition,
    "types": types,
    "ovs": ovs,
    "userenr": userenr,
    "hpmd": hpmd,
    "hlp": hlp,
    "unsplit": split,
    "icntr": icntr,
    "backed": backed,
    "restore": restore,
    "pmcr-put": pmcr_put,
    "denied": denied,
    "pinned": pinned,
    "icntr-flag": icntr_flag,
    "kick": kick,
}
