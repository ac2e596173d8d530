"""`reservation=grow`: MDCR_EL2.HPMN covers what the guest uses of its counters, and more from the first use of another.

Counters are in use while PMCR_EL0.E is set and they are enabled, to count (PMCNTEN) or to interrupt (PMINTEN). All that
a guest writes to one above HPMN stays in memory, its enables while E is clear, too. At EL1 an access to it would be
UNDEFINED or without effect (Arm ARM, MDCR_EL2.HPMN), so what could meet one traps until HPMN is the VM's number of
counters (`trap_controls.UNTIL_FULL`); PMCR_EL0 does by TPMCR, as its N is to be that number from the beginning.
"""

from __future__ import annotations

from services import registers as r
from services._pmu import Burst
from services.experiment import CpuSpec
from services.kvm.designs.partitioned import accesses
from services.kvm.designs.partitioned.accesses import (
    Accesses,
    by_counter,
    by_register,
    by_type,
    selected_read,
    selected_write,
)
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.swap import enforced
from services.kvm.errors import InjectUndef
from services.kvm.guest_pmu import GuestPmu
from services.registers import CYCLE_COUNTER


def least(cpu: CpuSpec) -> int:
    """HPMN at first: without FEAT_HPMN0 a range of no counters cannot be split off."""
    return 0 if cpu.hpmn0 else 1


def used(pmu: GuestPmu) -> int:
    """HPMN that covers what is in use, of a guest whose registers are in memory."""
    return _covering(pmu.cnten | pmu.inten) if pmu.pmcr & r.PMCR_E else 0


def used_after(context: PmuContext, register: int, value: int) -> int:
    """HPMN that covers what is in use after a write that traps."""
    pmu = context.pmu  # PMCR_EL0 is there as it is on the CPU until HPMN has come to cover all
    enabled = pmu.cnten | pmu.inten
    pmcr = value if register == r.PMCR_EL0 else pmu.pmcr
    if register in (r.PMCNTENSET_EL0, r.PMINTENSET_EL1):
        enabled |= value
    return _covering(enabled & context.beyond) if pmcr & r.PMCR_E else 0


def _covering(counters: int) -> int:
    return (counters & r.CYCLE_BIT - 1).bit_length()


def counters_in(context: PmuContext, first: int) -> Burst:
    """Event counters from `first` on go from memory onto the CPU, when HPMN has come to cover them: with PMCR_EL0.E, so
    that flags of those that interrupt stay in memory, for injection, as at a load."""
    pmu, on, burst = context.pmu, context.on, Burst()
    for n in range(first, on.hpmn):
        burst.msr(r.PMEVTYPER(n), enforced(pmu, n))
        burst.msr(r.PMEVCNTR(n), pmu.value(n))
    new = on.mask & ~r.counter_mask(first)
    burst.msr(r.PMOVSCLR_EL0, new)
    quiet = pmu.ovs & new & ~pmu.inten
    if quiet:
        burst.msr(r.PMOVSSET_EL0, quiet)
        pmu.ovs &= ~quiet
    burst.msr(r.PMCNTENSET_EL0, pmu.cnten & new)
    burst.msr(r.PMINTENSET_EL1, pmu.inten & new)
    return burst


# Accesses: as a guest's whose counters are all on the CPU, but for those above HPMN.


def _on_cpu(context: PmuContext, n: int) -> bool:
    """Or in memory? Raises InjectUndef for a counter that the VM does not have."""
    if n == CYCLE_COUNTER or n < context.on.hpmn:
        return True
    if n >= context.most:
        raise InjectUndef
    return False


async def read_counter(context: PmuContext, n: int) -> int:
    return await accesses.read_counter(context, n) if _on_cpu(context, n) else context.pmu.value(n)


async def write_counter(context: PmuContext, n: int, value: int) -> None:
    if _on_cpu(context, n):
        await accesses.write_counter(context, n, value)
    else:
        context.pmu.counter[n] = value & context.pmu.width


async def read_type(context: PmuContext, n: int) -> int:
    _on_cpu(context, n)
    return context.pmu.typer[n]


async def write_type(context: PmuContext, n: int, value: int) -> None:
    there = _on_cpu(context, n)
    accesses.keep_type(context, n, value)
    if there:
        await context.write(r.type_register(n), enforced(context.pmu, n))


async def write_pmcr(context: PmuContext, register: int, value: int) -> None:
    await accesses.write_pmcr(context, register, value)
    context.pmu.pmcr = value & context.pmu.pmcr_writable
    if value & r.PMCR_P:
        for n in range(context.on.hpmn, context.most):
            context.pmu.counter[n] = 0


async def read_cnten(context: PmuContext, register: int) -> int:
    return await accesses.read_mask(context, register) | context.pmu.cnten & context.beyond


async def read_inten(context: PmuContext, register: int) -> int:
    return await accesses.read_mask(context, register) | context.pmu.inten & context.beyond


async def set_cnten(context: PmuContext, register: int, value: int) -> None:
    await accesses.write_mask(context, register, value)
    context.pmu.cnten |= value & context.beyond


async def clear_cnten(context: PmuContext, register: int, value: int) -> None:
    await accesses.write_mask(context, register, value)
    context.pmu.cnten &= ~(value & context.beyond)


async def set_inten(context: PmuContext, register: int, value: int) -> None:
    await accesses.write_mask(context, register, value)
    context.pmu.inten |= value & context.beyond


async def clear_inten(context: PmuContext, register: int, value: int) -> None:
    await accesses.write_mask(context, register, value)
    context.pmu.inten &= ~(value & context.beyond)


async def set_overflows(context: PmuContext, register: int, value: int) -> None:
    context.pmu.ovs |= value & (context.on.mask | context.beyond)


GROWING = Accesses(
    reads={
        **by_counter(read_counter),
        **by_type(read_type),
        r.PMXEVCNTR_EL0: selected_read(read_counter),
        r.PMXEVTYPER_EL0: selected_read(read_type),
        **by_register(read_cnten, r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0),
        **by_register(read_inten, r.PMINTENSET_EL1, r.PMINTENCLR_EL1),
    },
    writes={
        **by_counter(write_counter),
        **by_type(write_type),
        r.PMXEVCNTR_EL0: selected_write(write_counter),
        r.PMXEVTYPER_EL0: selected_write(write_type),
        **by_register(write_pmcr, r.PMCR_EL0),
        **by_register(set_cnten, r.PMCNTENSET_EL0),
        **by_register(clear_cnten, r.PMCNTENCLR_EL0),
        **by_register(set_inten, r.PMINTENSET_EL1),
        **by_register(clear_inten, r.PMINTENCLR_EL1),
        **by_register(set_overflows, r.PMOVSSET_EL0),
    },
)
