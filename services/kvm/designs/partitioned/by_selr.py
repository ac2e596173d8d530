"""Trapped accesses in v7 and v6: event counters are reached through PMSELR_EL0, which is put back.

V7: the handlers of sys_regs.c, otherwise as v8's. HYP: kvm_hyp_handle_pmu_regs() of v6, in the hypervisor's fast path,
which has read PMUSERENR_EL0 once before.
"""

from __future__ import annotations

from services import registers as r
from services._pmu import Burst
from services.kvm.designs.partitioned.accesses import Accesses, by_counter, by_register, by_type
from services.kvm.designs.partitioned.accessors import (
    V8,
    check_access,
    exists,
    read_userenr,
    selected,
    vm_pmcr,
    write_type,
    write_userenr,
)
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.guest_pmu import PMCR_MASK
from services.registers import CYCLE_COUNTER


def _through_selr(context: PmuContext, n: int, value: int | None) -> int:
    burst = Burst()
    selr = burst.mrs(r.PMSELR_EL0)
    burst.msr(r.PMSELR_EL0, n)
    if value is None:
        burst.mrs(r.PMXEVCNTR_EL0)
    else:
        burst.msr(r.PMXEVCNTR_EL0, value)
    burst.write_back(r.PMSELR_EL0, selr, r.MASK64, 0)
    return context.vcpu.kvm_irqs_off(burst)[-1]


def _v7_counter(context: PmuContext, n: int, value: int | None) -> int:
    exists(context, n)
    if value is not None:
        check_access(context)
    if n != CYCLE_COUNTER:
        return _through_selr(context, n, value)
    if value is None:
        return context.read(r.PMCCNTR_EL0)
    context.write(r.PMCCNTR_EL0, value)
    return value


def v7_read_counter(context: PmuContext, n: int) -> int:
    check_access(context)
    return _v7_counter(context, n, None)


def v7_write_counter(context: PmuContext, n: int, value: int) -> None:
    check_access(context)
    _v7_counter(context, n, value)


def v7_read_selected_counter(context: PmuContext, _: int) -> int:
    check_access(context)
    return _v7_counter(context, selected(context), None)


def v7_write_selected_counter(context: PmuContext, _: int, value: int) -> None:
    check_access(context)
    _v7_counter(context, selected(context), value)


def v7_write_pmcr(context: PmuContext, register: int, value: int) -> None:
    """P and C are written as they come: from EL2, P resets the host's counters too."""
    check_access(context)
    context.write(register, vm_pmcr(context) & ~PMCR_MASK | value & PMCR_MASK)


def v7_read_mask(context: PmuContext, register: int) -> int:
    """The host's bits, too."""
    check_access(context)
    return context.read(register)


def v7_read_cnten(context: PmuContext, _: int) -> int:
    return v7_read_mask(context, r.PMCNTENSET_EL0)


def v7_read_inten(context: PmuContext, _: int) -> int:
    return v7_read_mask(context, r.PMINTENSET_EL1)


V7 = V8 | Accesses(
    reads={
        **by_counter(v7_read_counter),
        r.PMXEVCNTR_EL0: (v7_read_selected_counter, 0),
        **by_register(v7_read_cnten, r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0),
        **by_register(v7_read_inten, r.PMINTENSET_EL1, r.PMINTENCLR_EL1),
    },
    writes={
        **by_counter(v7_write_counter),
        r.PMXEVCNTR_EL0: (v7_write_selected_counter, 0),
        **by_register(v7_write_pmcr, r.PMCR_EL0),
    },
)


def _v6_counter(context: PmuContext, n: int, value: int | None) -> int:
    exists(context, n)
    return _through_selr(context, n, value)


def v6_read_counter(context: PmuContext, n: int) -> int:
    return _v6_counter(context, n, None)


def v6_write_counter(context: PmuContext, n: int, value: int) -> None:
    _v6_counter(context, n, value)


def v6_read_selected_counter(context: PmuContext, _: int) -> int:
    return _v6_counter(context, selected(context), None)


def v6_write_selected_counter(context: PmuContext, _: int, value: int) -> None:
    _v6_counter(context, selected(context), value)


def v6_read_pmcr(context: PmuContext, _: int) -> int:
    return vm_pmcr(context)


def v6_write_pmcr(context: PmuContext, register: int, value: int) -> None:
    context.write(register, value & PMCR_MASK)


def v6_read_mask(context: PmuContext, register: int) -> int:
    return context.read(register) & context.pmu.mask


def v6_write_mask(context: PmuContext, register: int, value: int) -> None:
    context.write(register, value & context.pmu.mask)


def v6_read_overflows(context: PmuContext, _: int) -> int:
    return context.pmu.ovs & context.pmu.mask


def v6_clear_overflows(context: PmuContext, _: int, value: int) -> None:
    context.pmu.ovs &= ~(value & context.pmu.mask)


def v6_set_overflows(context: PmuContext, _: int, value: int) -> None:
    context.pmu.ovs |= value & context.pmu.mask


def v6_read_type(context: PmuContext, n: int) -> int:
    exists(context, n)
    return context.pmu.typer[n]


def v6_read_selected_type(context: PmuContext, _: int) -> int:
    return v6_read_type(context, selected(context))


def v6_write_selected_type(context: PmuContext, _: int, value: int) -> None:
    write_type(context, selected(context), value)


def v6_read_selr(context: PmuContext, register: int) -> int:
    return context.read(register) & 0x1F


def v6_write_selr(context: PmuContext, register: int, value: int) -> None:
    context.write(register, value & 0x1F)


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
