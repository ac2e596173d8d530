"""Trapped accesses in v7 and v6: event counters are reached through PMSELR_EL0, which is put back.

V7: the handlers of sys_regs.c, otherwise as v8's. HYP: kvm_hyp_handle_pmu_regs() of v6, in the hypervisor's fast path,
which has read PMUSERENR_EL0 once before; V6: the handlers of sys_regs.c, for what that leaves to them.

PMSWINC_EL0 increments the CPU's counters: of no version but v8 is it known that memory's are incremented.
"""

from __future__ import annotations

from services import registers as r
from services._pmu import Burst
from services.cpu import awaited
from services.kvm.designs.partitioned import accesses
from services.kvm.designs.partitioned.accesses import Accesses, by_counter, by_register, by_type, selected
from services.kvm.designs.partitioned.accessors import (
    V8,
    check_access,
    exists,
    read_userenr,
    vm_pmcr,
    write_type,
    write_userenr,
)
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.guest_pmu import PMCR_MASK, PMCR_RESETS
from services.registers import CYCLE_COUNTER


async def _through_selr(context: PmuContext, n: int, value: int | None) -> int:
    """A put and a load that come in between leave PMSELR_EL0 as the load has it."""
    burst = Burst()
    selr = burst.mrs(r.PMSELR_EL0)
    burst.msr(r.PMSELR_EL0, n)
    if value is None:
        burst.mrs(r.PMXEVCNTR_EL0)
    else:
        burst.msr(r.PMXEVCNTR_EL0, value)
    burst.write_back(r.PMSELR_EL0, selr, r.MASK64, 0)
    return (await awaited(context.vcpu.kvm(burst)))[-1]


async def _v7_counter(context: PmuContext, n: int, value: int | None) -> int:
    exists(context, n)
    if value is not None:
        await check_access(context)
    if n != CYCLE_COUNTER:
        return await _through_selr(context, n, value)
    if value is None:
        return await context.read(r.PMCCNTR_EL0)
    await context.write(r.PMCCNTR_EL0, value)
    return value


async def v7_read_counter(context: PmuContext, n: int) -> int:
    await check_access(context)
    return await _v7_counter(context, n, None)


async def v7_write_counter(context: PmuContext, n: int, value: int) -> None:
    await check_access(context)
    await _v7_counter(context, n, value)


async def v7_read_selected_counter(context: PmuContext, _: int) -> int:
    await check_access(context)
    return await _v7_counter(context, await selected(context), None)


async def v7_write_selected_counter(context: PmuContext, _: int, value: int) -> None:
    await check_access(context)
    await _v7_counter(context, await selected(context), value)


async def v7_read_pmcr(context: PmuContext, register: int) -> int:
    """Of a vCPU that owns its registers N is the CPU's, as EL2 reads it: where fine-grained traps do not leave the
    access to EL1, which reads HPMN."""
    await check_access(context)
    return (await context.read(register) if context.owned else await vm_pmcr(context)) & ~PMCR_RESETS


async def v7_write_pmcr(context: PmuContext, register: int, value: int) -> None:
    """P and C are written as they come: from EL2, P resets the host's counters too."""
    await check_access(context)
    await context.write(register, await vm_pmcr(context) & ~PMCR_MASK | value & PMCR_MASK)


async def v7_read_mask(context: PmuContext, register: int) -> int:
    """The host's bits, too."""
    await check_access(context)
    return await context.read(register)


async def v7_read_cnten(context: PmuContext, _: int) -> int:
    return await v7_read_mask(context, r.PMCNTENSET_EL0)


async def v7_read_inten(context: PmuContext, _: int) -> int:
    return await v7_read_mask(context, r.PMINTENSET_EL1)


async def v7_clear_overflows(context: PmuContext, _: int, value: int) -> None:
    await check_access(context)
    await context.change_overflows(lambda flags: flags & ~(value & context.pmu.mask))


async def v7_set_overflows(context: PmuContext, _: int, value: int) -> None:
    await check_access(context)
    await context.change_overflows(lambda flags: flags | value & context.pmu.mask)


async def software_increment(context: PmuContext, register: int, value: int) -> None:
    await check_access(context)
    await accesses.software_increment(context, register, value)


V6 = V8 | Accesses(writes=by_register(software_increment, r.PMSWINC_EL0))

V7 = V6 | Accesses(
    reads={
        **by_counter(v7_read_counter),
        **by_register(v7_read_pmcr, r.PMCR_EL0),
        r.PMXEVCNTR_EL0: (v7_read_selected_counter, 0),
        **by_register(v7_read_cnten, r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0),
        **by_register(v7_read_inten, r.PMINTENSET_EL1, r.PMINTENCLR_EL1),
    },
    writes={
        **by_counter(v7_write_counter),
        r.PMXEVCNTR_EL0: (v7_write_selected_counter, 0),
        **by_register(v7_write_pmcr, r.PMCR_EL0),
        **by_register(v7_clear_overflows, r.PMOVSCLR_EL0),
        **by_register(v7_set_overflows, r.PMOVSSET_EL0),
    },
)


async def _v6_counter(context: PmuContext, n: int, value: int | None) -> int:
    exists(context, n)
    return await _through_selr(context, n, value)


async def v6_read_counter(context: PmuContext, n: int) -> int:
    return await _v6_counter(context, n, None)


async def v6_write_counter(context: PmuContext, n: int, value: int) -> None:
    await _v6_counter(context, n, value)


async def v6_read_selected_counter(context: PmuContext, _: int) -> int:
    return await _v6_counter(context, await selected(context), None)


async def v6_write_selected_counter(context: PmuContext, _: int, value: int) -> None:
    await _v6_counter(context, await selected(context), value)


async def v6_read_pmcr(context: PmuContext, _: int) -> int:
    return await vm_pmcr(context)


async def v6_write_pmcr(context: PmuContext, register: int, value: int) -> None:
    await context.write(register, value & PMCR_MASK)


async def v6_read_mask(context: PmuContext, register: int) -> int:
    return await context.read(register) & context.pmu.mask


async def v6_write_mask(context: PmuContext, register: int, value: int) -> None:
    await context.write(register, value & context.pmu.mask)


async def v6_read_overflows(context: PmuContext, _: int) -> int:
    return context.pmu.ovs & context.pmu.mask


async def v6_clear_overflows(context: PmuContext, _: int, value: int) -> None:
    context.pmu.ovs &= ~(value & context.pmu.mask)


async def v6_set_overflows(context: PmuContext, _: int, value: int) -> None:
    context.pmu.ovs |= value & context.pmu.mask


async def v6_read_type(context: PmuContext, n: int) -> int:
    exists(context, n)
    return context.pmu.typer[n]


async def v6_read_selected_type(context: PmuContext, _: int) -> int:
    return await v6_read_type(context, await selected(context))


async def v6_write_selected_type(context: PmuContext, _: int, value: int) -> None:
    await write_type(context, await selected(context), value)


async def v6_read_selr(context: PmuContext, register: int) -> int:
    return await context.read(register) & 0x1F


async def v6_write_selr(context: PmuContext, register: int, value: int) -> None:
    await context.write(register, value & 0x1F)


HYP = Accesses(
    reads={
        **by_counter(v6_read_counter),
        **by_type(v6_read_type),
        r.PMXEVCNTR_EL0: (v6_read_selected_counter, 0),
        r.PMXEVTYPER_EL0: (v6_read_selected_type, 0),
        **by_register(v6_read_pmcr, r.PMCR_EL0),
        **by_register(v6_read_mask, r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0, r.PMINTENSET_EL1, r.PMINTENCLR_EL1),
        **by_register(v6_read_overflows, r.PMOVSSET_EL0, r.PMOVSCLR_EL0),
        **by_register(v6_read_selr, r.PMSELR_EL0),
        **by_register(read_userenr, r.PMUSERENR_EL0),
    },
    writes={
        **by_counter(v6_write_counter),
        **by_type(write_type),
        **by_register(write_userenr, r.PMUSERENR_EL0),
        r.PMXEVCNTR_EL0: (v6_write_selected_counter, 0),
        r.PMXEVTYPER_EL0: (v6_write_selected_type, 0),
        **by_register(v6_write_pmcr, r.PMCR_EL0),
        **by_register(v6_write_mask, r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0, r.PMINTENSET_EL1, r.PMINTENCLR_EL1),
        **by_register(v6_clear_overflows, r.PMOVSCLR_EL0),
        **by_register(v6_set_overflows, r.PMOVSSET_EL0),
        **by_register(v6_write_selr, r.PMSELR_EL0),
    },
)
