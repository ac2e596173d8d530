"""pmu_reg_read() and pmu_reg_write() of v8: a trapped access of a vCPU that owns its partition's registers.

Event types and overflow flags are in memory alone; the rest is on the CPU. Whether EL0 may make an access is asked of
the PMUSERENR_EL0 that is on the CPU (check_pmu_access_disabled), so that nearly every access begins with a read of it.
"""

from __future__ import annotations

from services import registers as r
from services.kvm.designs.partitioned.accesses import Accesses, by_counter, by_register, by_type, selected
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.errors import InjectUndef
from services.kvm.guest_pmu import PMCR_MASK, USERENR_ALL
from services.registers import CYCLE_COUNTER


async def check_access(context: PmuContext) -> None:
    """check_pmu_access_disabled."""
    await context.read(r.PMUSERENR_EL0)


def exists(context: PmuContext, n: int) -> None:
    """pmu_counter_idx_valid: by the VM's own number."""
    if n != CYCLE_COUNTER and n >= context.pmu.counters:
        raise InjectUndef


# access_pmu_evcntr


async def read_counter(context: PmuContext, n: int) -> int:
    await check_access(context)
    return await _read_counter(context, n)


async def _read_counter(context: PmuContext, n: int) -> int:
    exists(context, n)
    return await context.read(r.counter_register(n))


async def write_counter(context: PmuContext, n: int, value: int) -> None:
    await check_access(context)
    await _write_counter(context, n, value)


async def _write_counter(context: PmuContext, n: int, value: int) -> None:
    exists(context, n)
    await check_access(context)  # once more, as access_pmu_evcntr does before a write
    await context.write(r.counter_register(n), value)


async def read_selected_counter(context: PmuContext, _: int) -> int:
    await check_access(context)
    return await _read_counter(context, await selected(context))


async def write_selected_counter(context: PmuContext, _: int, value: int) -> None:
    await check_access(context)
    await _write_counter(context, await selected(context), value)


# access_pmu_evtyper


async def read_type(context: PmuContext, n: int) -> int:
    await check_access(context)
    exists(context, n)
    return context.pmu.typer[n]


async def checked_write_type(context: PmuContext, n: int, value: int) -> None:
    await check_access(context)
    await write_type(context, n, value)


async def write_type(context: PmuContext, n: int, value: int) -> None:
    exists(context, n)
    context.pmu.typer[n] = value & context.pmu.event_mask


async def read_selected_type(context: PmuContext, _: int) -> int:
    await check_access(context)
    n = await selected(context)
    exists(context, n)
    return context.pmu.typer[n]


async def write_selected_type(context: PmuContext, _: int, value: int) -> None:
    await check_access(context)
    await write_type(context, await selected(context), value)


# access_pmcr


async def vm_pmcr(context: PmuContext) -> int:
    """kvm_pmu_direct_pmcr_read: N is the VM's."""
    return await context.read(r.PMCR_EL0) & ~r.PMCR_N | context.pmu.counters << r.PMCR_N_SHIFT


async def read_pmcr(context: PmuContext, _: int) -> int:
    await check_access(context)
    return await vm_pmcr(context) & ~(r.PMCR_P | r.PMCR_C)


async def write_pmcr(context: PmuContext, register: int, value: int) -> None:
    """kvm_pmu_direct_pmcr_write: P from EL2 would reset the host's counters too, so the VM's are written one by one."""
    await check_access(context)
    await context.write(register, (await vm_pmcr(context) & ~PMCR_MASK | value & PMCR_MASK) & ~r.PMCR_P)
    if value & r.PMCR_P:
        for n in range(context.pmu.counters):
            await context.write(r.PMEVCNTR(n), 0)


# access_pmcnten, access_pminten


async def read_mask(context: PmuContext, register: int) -> int:
    await check_access(context)
    return await context.read(register) & context.on.mask


async def read_cnten(context: PmuContext, _: int) -> int:
    return await read_mask(context, r.PMCNTENSET_EL0)


async def read_inten(context: PmuContext, _: int) -> int:
    return await read_mask(context, r.PMINTENSET_EL1)


async def write_mask(context: PmuContext, register: int, value: int) -> None:
    await check_access(context)
    await context.write(register, value & context.pmu.mask)


# access_pmovs


async def read_overflows(context: PmuContext, _: int) -> int:
    await check_access(context)
    return context.pmu.ovs


async def clear_overflows(context: PmuContext, _: int, value: int) -> None:
    await check_access(context)
    await context.change_overflows_irqs_off(lambda flags: flags & ~(value & context.pmu.mask))


async def set_overflows(context: PmuContext, _: int, value: int) -> None:
    await check_access(context)
    await context.change_overflows_irqs_off(lambda flags: flags | value & context.pmu.mask)


# access_pmswinc


async def software_increment(context: PmuContext, _: int, value: int) -> None:
    """kvm_pmu_software_increment, the emulation's: it counts in memory, by PMCR_EL0 and PMCNTEN as the last put has
    left them there, and the next put writes over the counts. What overflows has its flag where flags are kept."""
    await check_access(context)
    pmu = context.pmu
    before = pmu.ovs
    pmu.increment(value, r.SW_INCR)
    overflowed = pmu.ovs & ~before
    if overflowed:
        pmu.ovs = before
        await context.change_overflows(lambda flags: flags | overflowed)


# access_pmselr, access_pmuserenr, access_pmceid, PMMIR_EL1


async def read_selr(context: PmuContext, register: int) -> int:
    await check_access(context)
    return await context.read(register) & 0x1F


async def write_selr(context: PmuContext, register: int, value: int) -> None:
    await check_access(context)
    await context.write(register, value)


async def read_userenr(context: PmuContext, register: int) -> int:
    return await context.read(register) & USERENR_ALL


async def write_userenr(context: PmuContext, register: int, value: int) -> None:
    await context.write(register, value & USERENR_ALL)


async def read_pmceid0(context: PmuContext, register: int) -> int:
    await check_access(context)
    return context.pmu.pmceid(0, await context.read(register))


async def read_pmceid1(context: PmuContext, register: int) -> int:
    await check_access(context)
    return context.pmu.pmceid(1, await context.read(register))


async def read_zero(context: PmuContext, register: int) -> int:
    return 0


async def ignore_write(context: PmuContext, register: int, value: int) -> None:
    """PMMIR_EL1 is read-only, and its trap leaves it at that."""


V8 = Accesses(
    reads={
        **by_counter(read_counter),
        **by_type(read_type),
        r.PMXEVCNTR_EL0: (read_selected_counter, 0),
        r.PMXEVTYPER_EL0: (read_selected_type, 0),
        **by_register(read_pmcr, r.PMCR_EL0),
        **by_register(read_cnten, r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0),
        **by_register(read_inten, r.PMINTENSET_EL1, r.PMINTENCLR_EL1),
        **by_register(read_overflows, r.PMOVSSET_EL0, r.PMOVSCLR_EL0),
        **by_register(read_selr, r.PMSELR_EL0),
        **by_register(read_userenr, r.PMUSERENR_EL0),
        **by_register(read_pmceid0, r.PMCEID0_EL0),
        **by_register(read_pmceid1, r.PMCEID1_EL0),
        **by_register(read_zero, r.PMMIR_EL1),
    },
    writes={
        **by_counter(write_counter),
        **by_type(checked_write_type),
        r.PMXEVCNTR_EL0: (write_selected_counter, 0),
        r.PMXEVTYPER_EL0: (write_selected_type, 0),
        **by_register(write_pmcr, r.PMCR_EL0),
        **by_register(write_mask, r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0, r.PMINTENSET_EL1, r.PMINTENCLR_EL1),
        **by_register(set_overflows, r.PMOVSSET_EL0),
        **by_register(clear_overflows, r.PMOVSCLR_EL0),
        **by_register(software_increment, r.PMSWINC_EL0),
        **by_register(write_selr, r.PMSELR_EL0),
        **by_register(write_userenr, r.PMUSERENR_EL0),
        **by_register(ignore_write, r.PMMIR_EL1),
    },
)
