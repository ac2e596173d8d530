"""Trapped accesses up to v5: what is written goes into memory and onto the CPU, what is read is the CPU's.

But event types and overflow flags, which are read from memory alone: these have handlers in sys_regs.c. What
fine-grained traps leave to the hardware is completed in the hypervisor where it traps all the same, FEAT_FGT or not
(kvm_hyp_handle_pmu_regs). v5 injects its exceptions there, too. Before, it checks nothing: whichever counter the guest
names is accessed, from EL2 and so beyond HPMN, and what it writes to a mask, or finds there, are all counters' bits;
nor is EL0 asked for (`Vpmu.el0_checked_fast`). v5's changelog says so of v4, and v2 and v3 have the same fast path.
"""

from __future__ import annotations

from services import registers as r
from services._pmu import Burst
from services.cpu import awaited
from services.kvm.designs.partitioned import accesses
from services.kvm.designs.partitioned.accesses import Accesses, Write, by_counter, by_register, by_type, selected
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.swap import HardwareType
from services.kvm.errors import InjectUndef
from services.kvm.guest_pmu import PMCR_MASK, USERENR_ALL
from services.registers import CYCLE_COUNTER

# What kvm_hyp_handle_pmu_regs() knows.
FAST = frozenset(
    (
        *(r.PMCR_EL0, r.PMSELR_EL0, r.PMUSERENR_EL0, r.PMSWINC_EL0, r.PMCCNTR_EL0, r.PMXEVCNTR_EL0),
        *(r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0, r.PMINTENSET_EL1, r.PMINTENCLR_EL1),
        *map(r.PMEVCNTR, range(r.EVENT_COUNTERS)),
    )
)


def _exists(context: PmuContext, n: int) -> None:
    if n != CYCLE_COUNTER and n >= context.n:
        raise InjectUndef


async def read_counter(context: PmuContext, n: int) -> int:
    _exists(context, n)
    return await context.read(r.counter_register(n))


async def write_counter(context: PmuContext, n: int, value: int) -> None:
    _exists(context, n)
    context.pmu.counter[n] = value
    await context.write(r.counter_register(n), value)


async def read_selected_counter(context: PmuContext, register: int) -> int:
    _exists(context, await selected(context))
    return await read_unchecked(context, register)


async def write_selected_counter(context: PmuContext, register: int, value: int) -> None:
    n = await selected(context)
    _exists(context, n)
    context.pmu.counter[n] = value
    await write_unchecked(context, register, value)


async def read_unchecked(context: PmuContext, register: int) -> int:
    """It may be UNDEFINED at EL2, too (`PCpu.oops`)."""
    burst = Burst()
    burst.mrs(register)
    return (await awaited(context.vcpu.kvm(burst)))[0]


async def write_unchecked(context: PmuContext, register: int, value: int) -> None:
    burst = Burst()
    burst.msr(register, value)
    await awaited(context.vcpu.kvm(burst))


async def read_any_counter(context: PmuContext, n: int) -> int:
    return await read_unchecked(context, r.counter_register(n))


async def write_any_counter(context: PmuContext, n: int, value: int) -> None:
    context.pmu.counter[n] = value
    await write_unchecked(context, r.counter_register(n), value)


async def write_any_selected_counter(context: PmuContext, register: int, value: int) -> None:
    context.pmu.counter[await selected(context)] = value
    await write_unchecked(context, register, value)


async def read_type(context: PmuContext, n: int) -> int:
    _exists(context, n)
    return context.pmu.typer[n]


async def read_selected_type(context: PmuContext, _: int) -> int:
    return await read_type(context, await selected(context))


async def read_pmcr(context: PmuContext, register: int) -> int:
    return await context.read(register) & ~r.PMCR_N | context.n << r.PMCR_N_SHIFT


async def write_pmcr(context: PmuContext, register: int, value: int) -> None:
    """Raw, so that P, from EL2, resets the host's counters too; what the CPU has kept goes into memory (v4)."""
    await context.write(register, value & PMCR_MASK)
    context.pmu.write(register, await context.read(register))


async def write_pmcr_v5(context: PmuContext, register: int, value: int) -> None:
    await context.write(register, value)
    context.pmu.write(register, value)


async def read_register(context: PmuContext, register: int) -> int:
    return await context.read(register)


async def write_selr(context: PmuContext, register: int, value: int) -> None:
    context.pmu.write(register, value)
    await context.write(register, value & 0x1F)


async def write_userenr(context: PmuContext, register: int, value: int) -> None:
    context.pmu.write(register, value)
    await context.write(register, value & USERENR_ALL)


async def read_mask(context: PmuContext, register: int) -> int:
    return await context.read(register) & context.pmu.mask


async def write_mask(context: PmuContext, register: int, value: int) -> None:
    context.pmu.write(register, value)
    await context.write(register, value & context.pmu.mask)


async def write_any_mask(context: PmuContext, register: int, value: int) -> None:
    context.pmu.write(register, value)
    await context.write(register, value)


async def read_overflows(context: PmuContext, _: int) -> int:
    return context.pmu.ovs


async def clear_overflows(context: PmuContext, register: int, value: int) -> None:
    await context.change_overflows(lambda flags: flags & ~(value & context.pmu.mask))
    await context.write(register, value & context.pmu.mask)


async def set_overflows(context: PmuContext, register: int, value: int) -> None:
    await context.change_overflows(lambda flags: flags | value & context.pmu.mask)
    await context.write(register, value & context.pmu.mask)


def _write_type(hardware_type: HardwareType) -> Write:
    async def write(context: PmuContext, n: int, value: int) -> None:
        _exists(context, n)
        context.pmu.typer[n] = value & context.pmu.event_mask
        register = r.type_register(n)
        await context.write(register, hardware_type(context.pmu, n))

    return write


MASKS = (r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0, r.PMINTENSET_EL1, r.PMINTENCLR_EL1)

# kvm_hyp_handle_pmu_regs() up to v4.
UNCHECKED = Accesses(
    reads={
        **by_counter(read_any_counter),
        **by_register(read_unchecked, r.PMXEVCNTR_EL0),
        **by_register(read_register, *MASKS),
    },
    writes={
        **by_counter(write_any_counter),
        **by_register(write_any_selected_counter, r.PMXEVCNTR_EL0),
        **by_register(write_any_mask, *MASKS),
    },
)


def write_through(hardware_type: HardwareType, pmcr: Write = write_pmcr) -> Accesses:
    """With what the CPU gets for an event type, and how PMCR_EL0 is written."""
    write_type = _write_type(hardware_type)
    return accesses.ON_CPU | Accesses(
        reads={
            **by_counter(read_counter),
            **by_type(read_type),
            **by_register(read_selected_counter, r.PMXEVCNTR_EL0),
            **by_register(read_selected_type, r.PMXEVTYPER_EL0),
            **by_register(read_pmcr, r.PMCR_EL0),
            **by_register(read_mask, *MASKS),
            **by_register(read_overflows, r.PMOVSSET_EL0, r.PMOVSCLR_EL0),
            **by_register(read_register, r.PMSELR_EL0, r.PMUSERENR_EL0),
        },
        writes={
            **by_counter(write_counter),
            **by_type(write_type),
            **by_register(write_selected_counter, r.PMXEVCNTR_EL0),
            r.PMXEVTYPER_EL0: accesses.selected_write(write_type),
            **by_register(pmcr, r.PMCR_EL0),
            **by_register(write_mask, *MASKS),
            **by_register(set_overflows, r.PMOVSSET_EL0),
            **by_register(clear_overflows, r.PMOVSCLR_EL0),
            **by_register(write_selr, r.PMSELR_EL0),
            **by_register(write_userenr, r.PMUSERENR_EL0),
        },
    )
