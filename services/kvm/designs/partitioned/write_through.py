"""Trapped accesses up to v5: what is written goes into memory and onto the CPU, what is read is the CPU's.

But event types and overflow flags, which are read from memory alone. kvm_hyp_handle_pmu_regs(), and the handlers of
sys_regs.c; whether EL0 may make an access is asked of the PMUSERENR_EL0 in memory.
"""

from __future__ import annotations

from collections.abc import Callable

from services import registers as r
from services.kvm.designs.partitioned import accesses
from services.kvm.designs.partitioned.accesses import Accesses, Write, by_counter, by_register, by_type
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.swap import HardwareType
from services.kvm.errors import InjectUndef
from services.kvm.guest_pmu import PMCR_MASK, USERENR_ALL
from services.registers import CYCLE_COUNTER


def _exists(context: PmuContext, n: int) -> None:
    if n != CYCLE_COUNTER and n >= context.n:
        raise InjectUndef


def _selected(context: PmuContext) -> int:
    return context.read(r.PMSELR_EL0) & 0x1F


def read_counter(context: PmuContext, n: int) -> int:
    _exists(context, n)
    return context.read(r.PMCCNTR_EL0 if n == CYCLE_COUNTER else r.PMEVCNTR(n))


def write_counter(context: PmuContext, n: int, value: int) -> None:
    _exists(context, n)
    context.pmu.counter[n] = value
    context.write(r.PMCCNTR_EL0 if n == CYCLE_COUNTER else r.PMEVCNTR(n), value)


def read_selected_counter(context: PmuContext, register: int) -> int:
    _exists(context, _selected(context))
    return context.read(register)


def write_selected_counter(context: PmuContext, register: int, value: int) -> None:
    n = _selected(context)
    _exists(context, n)
    context.pmu.counter[n] = value
    context.write(register, value)


def read_type(context: PmuContext, n: int) -> int:
    _exists(context, n)
    return context.pmu.typer[n]


def read_selected_type(context: PmuContext, _: int) -> int:
    return read_type(context, _selected(context))


def read_pmcr(context: PmuContext, register: int) -> int:
    return context.read(register) & ~r.PMCR_N | context.n << r.PMCR_N_SHIFT


def write_pmcr(context: PmuContext, register: int, value: int) -> None:
    """Raw, so that P, from EL2, resets the host's counters too; what the CPU has kept goes into memory (v4)."""
    context.write(register, value & PMCR_MASK)
    context.pmu.write(register, context.read(register))


def write_pmcr_v5(context: PmuContext, register: int, value: int) -> None:
    context.write(register, value)
    context.pmu.write(register, value)


def read_register(context: PmuContext, register: int) -> int:
    return context.read(register)


def write_selr(context: PmuContext, register: int, value: int) -> None:
    context.pmu.write(register, value)
    context.write(register, value & 0x1F)


def write_userenr(context: PmuContext, register: int, value: int) -> None:
    context.pmu.write(register, value)
    context.write(register, value & USERENR_ALL)


def read_mask(context: PmuContext, register: int) -> int:
    return context.read(register) & context.pmu.mask


def write_mask(context: PmuContext, register: int, value: int) -> None:
    context.pmu.write(register, value)
    context.write(register, value & context.pmu.mask)


def read_overflows(context: PmuContext, _: int) -> int:
    return context.pmu.ovs


def _write_type(hardware_type: HardwareType) -> Write:
    def write(context: PmuContext, n: int, value: int) -> None:
        _exists(context, n)
        context.pmu.typer[n] = value & context.pmu.event_mask
        register = r.PMCCFILTR_EL0 if n == CYCLE_COUNTER else r.PMEVTYPER(n)
        context.write(register, hardware_type(context.pmu, n))

    return write


def write_through(hardware_type: HardwareType, pmcr: Callable[[PmuContext, int, int], None] = write_pmcr) -> Accesses:
    """With what the CPU gets for an event type, and how PMCR_EL0 is written."""
    write_type = _write_type(hardware_type)
    masks = (r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0, r.PMINTENSET_EL1, r.PMINTENCLR_EL1)
    return accesses.ON_CPU | Accesses(
        reads={
            **by_counter(read_counter),
            **by_type(read_type),
            **by_register(read_selected_counter, r.PMXEVCNTR_EL0),
            **by_register(read_selected_type, r.PMXEVTYPER_EL0),
            **by_register(read_pmcr, r.PMCR_EL0),
            **by_register(read_mask, *masks),
            **by_register(read_overflows, r.PMOVSSET_EL0, r.PMOVSCLR_EL0),
            **by_register(read_register, r.PMSELR_EL0, r.PMUSERENR_EL0),
        },
        writes={
            **by_counter(write_counter),
            **by_type(write_type),
            **by_register(write_selected_counter, r.PMXEVCNTR_EL0),
            r.PMXEVTYPER_EL0: (lambda context, _, value: write_type(context, _selected(context), value), 0),
            **by_register(pmcr, r.PMCR_EL0),
            **by_register(write_mask, *masks, r.PMOVSSET_EL0, r.PMOVSCLR_EL0),
            **by_register(write_selr, r.PMSELR_EL0),
            **by_register(write_userenr, r.PMUSERENR_EL0),
        },
    )
