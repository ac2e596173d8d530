"""What a trapped access does while the guest's registers are on the CPU (access_pmcr() ... access_pmuserenr()).

Tables, of which each version composes its own with `|`: what stands further right wins. Between two operations of a
handler, what is pending is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from services import registers as r
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.swap import HardwareType, enables, enforced
from services.kvm.errors import InjectUndef
from services.kvm.guest_pmu import USERENR_ALL, GuestPmu
from services.registers import CYCLE_BIT, CYCLE_COUNTER, MASK32, MASK64, bits

# They are given the register, or the number of the counter that it belongs to; a write, the value as well.
Read = Callable[[PmuContext, int], Coroutine[Any, Any, int]]
Write = Callable[[PmuContext, int, int], Coroutine[Any, Any, None]]
F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Accesses:
    """By register, the function that performs an access, and the register or number that it is given."""

    reads: Mapping[int, tuple[Read, int]] = field(default_factory=dict)
    writes: Mapping[int, tuple[Write, int]] = field(default_factory=dict)

    def __or__(self, other: Accesses) -> Accesses:
        return Accesses({**self.reads, **other.reads}, {**self.writes, **other.writes})

    async def perform(self, context: PmuContext, register: int, write: bool, value: int) -> int:
        """The value read, or the one written. Raises InjectUndef."""
        if write:
            try:
                perform_write, which = self.writes[register]
            except KeyError:
                raise InjectUndef from None
            await perform_write(context, which, value)
            return value
        try:
            perform_read, which = self.reads[register]
        except KeyError:
            raise InjectUndef from None
        return await perform_read(context, which)


def by_register(function: F, *registers: int) -> dict[int, tuple[F, int]]:
    """The entries of a function that is given the register."""
    return {register: (function, register) for register in registers}


def by_counter(function: F) -> dict[int, tuple[F, int]]:
    """The entries of a function of event counters and the cycle counter: of their values."""
    return {r.PMEVCNTR(n): (function, n) for n in range(r.EVENT_COUNTERS)} | {r.PMCCNTR_EL0: (function, CYCLE_COUNTER)}


def by_type(function: F) -> dict[int, tuple[F, int]]:
    """The entries of a function of event counters and the cycle counter: of what they count."""
    return {r.PMEVTYPER(n): (function, n) for n in range(r.EVENT_COUNTERS)} | {
        r.PMCCFILTR_EL0: (function, CYCLE_COUNTER)
    }


async def selected(context: PmuContext) -> int:
    """PMSELR_EL0.SEL."""
    return await context.read(r.PMSELR_EL0) & 0x1F


def selected_read(function: Read) -> tuple[Read, int]:
    """The entry of PMXEVCNTR_EL0 or PMXEVTYPER_EL0: `function` for the counter that is selected."""

    async def read(context: PmuContext, _: int) -> int:
        return await function(context, await selected(context))

    return read, 0


def selected_write(function: Write) -> tuple[Write, int]:
    """The entry of PMXEVCNTR_EL0 or PMXEVTYPER_EL0: `function` for the counter that is selected."""

    async def write(context: PmuContext, _: int, value: int) -> None:
        await function(context, await selected(context), value)

    return write, 0


def has_counter(context: PmuContext, n: int) -> None:
    """Raises InjectUndef for a counter that is not the guest's."""
    if n != CYCLE_COUNTER and n >= context.on.hpmn:
        raise InjectUndef


# Counters and their types.


async def read_counter(context: PmuContext, n: int) -> int:
    has_counter(context, n)
    return await context.read(r.counter_register(n)) & _width(context, n)


async def write_counter(context: PmuContext, n: int, value: int) -> None:
    has_counter(context, n)
    await context.write(r.counter_register(n), value & _width(context, n))


def _width(context: PmuContext, n: int) -> int:
    """What the guest's counter has, on a CPU of which it may have more."""
    return MASK64 if n == CYCLE_COUNTER else context.pmu.width


async def read_type(context: PmuContext, n: int) -> int:
    has_counter(context, n)
    return context.pmu.typer[n]


async def write_type(context: PmuContext, n: int, value: int) -> None:
    """Into memory: the CPU gets it at the next load."""
    has_counter(context, n)
    keep_type(context, n, value)


def keep_type(context: PmuContext, n: int, value: int) -> None:
    """What memory keeps of it: of the cycle counter's no event, as on the CPU, where a mediated PMU looks for it."""
    mask = context.pmu.event_mask
    context.pmu.typer[n] = value & (mask if n != CYCLE_COUNTER else mask & ~r.PMEVTYPER_EVTCOUNT)


def types_written_through(hardware_type: HardwareType = enforced) -> Accesses:
    """An event type that is written goes into memory, and onto the CPU at once."""

    async def write(context: PmuContext, n: int, value: int) -> None:
        await write_type(context, n, value)
        await context.write(r.type_register(n), hardware_type(context.pmu, n))

    return Accesses(writes={**by_type(write), r.PMXEVTYPER_EL0: selected_write(write)})


# Overflow flags: in memory, where the host's interrupt handler puts them, and on the CPU until it runs.


async def read_overflows(context: PmuContext, register: int) -> int:
    on_cpu = await context.read(register) & context.on.mask
    return context.pmu.ovs | on_cpu


async def clear_overflows(context: PmuContext, register: int, value: int) -> None:
    """On the CPU first: an interrupt in between finds nothing there that it would put into memory again."""
    await context.write(register, value & context.on.mask)
    context.pmu.ovs &= ~value


async def read_overflows_in_memory(context: PmuContext, register: int) -> int:
    await context.read(register)
    return context.pmu.ovs


async def clear_overflows_in_memory(context: PmuContext, register: int, value: int) -> None:
    context.pmu.ovs &= ~value


async def set_overflows(context: PmuContext, register: int, value: int) -> None:
    context.pmu.ovs |= value & context.on.mask


# PMSWINC_EL0: executed again at EL2, where the guest's counters do not count, it would do nothing.


async def software_increment(context: PmuContext, register: int, value: int) -> None:
    """What the hardware would do for the guest: count, overflow, and chain."""
    pmu, on = context.pmu, context.on
    if on.split:
        pmcr, cnten = await context.read(r.PMCR_EL0), await context.read(r.PMCNTENSET_EL0)
    else:
        pmcr, cnten = pmu.pmcr, pmu.cnten
    counting = cnten & on.mask & CYCLE_BIT - 1 if pmcr & r.PMCR_E else 0  # event counters: PMICNTR_EL0 has no type
    long = on.cpu.pmuver >= r.PMUVER_P5 and pmcr & r.PMCR_LP
    overflows = MASK64 if long else MASK32
    for n in bits(value & counting):
        if _counts_at_el1(pmu, n, r.SW_INCR) and await _increment(context, n, overflows):
            above = n + 1
            chains = not long and n % 2 == 0 and counting >> above & 1 and _counts_at_el1(pmu, above, r.CHAIN)
            if chains:
                await _increment(context, above, overflows)


def _counts_at_el1(pmu: GuestPmu, n: int, event: int) -> bool:
    """Does counter `n` have that event, and its filters let it count where the access was made?"""
    filters = enforced(pmu, n)
    return pmu.event(n) == event and bool(filters & r.PMEVTYPER_P) is bool(filters & r.PMEVTYPER_NSK)


async def _increment(context: PmuContext, n: int, overflows: int) -> bool:
    """Has it overflowed? Its flag is set as the hardware's own would be."""
    count = await context.read(r.PMEVCNTR(n)) + 1 & context.pmu.width
    await context.write(r.PMEVCNTR(n), count)
    if count & overflows:
        return False
    await context.write(r.PMOVSSET_EL0, 1 << n)
    return True


# The others.


async def read_register(context: PmuContext, register: int) -> int:
    return await context.read(register)


async def read_mask(context: PmuContext, register: int) -> int:
    """A register with a bit for each counter."""
    return await context.read(register) & context.on.mask


async def write_mask(context: PmuContext, register: int, value: int) -> None:
    await context.write(register, value & context.on.mask)


async def write_userenr(context: PmuContext, register: int, value: int) -> None:
    await context.write(register, value & USERENR_ALL)


async def write_selr(context: PmuContext, register: int, value: int) -> None:
    context.pmu.selr = value & 0x1F
    await context.write(register, value)


async def read_pmcr(context: PmuContext, register: int) -> int:
    return await context.read(register) & ~r.PMCR_N | context.n << r.PMCR_N_SHIFT


async def write_pmcr(context: PmuContext, register: int, value: int) -> None:
    await context.write(register, value & context.pmu.pmcr_writable)
    await reset_counters(context, value)


async def reset_counters(context: PmuContext, pmcr: int) -> None:
    """P from EL2 would reset the host's counters too, so the guest's are written one by one."""
    if pmcr & r.PMCR_P:
        for n in range(context.on.hpmn):
            await context.write(r.PMEVCNTR(n), 0)
    if pmcr & r.PMCR_C:
        await context.write(r.PMCCNTR_EL0, 0)


async def read_pmceid0(context: PmuContext, register: int) -> int:
    return context.pmu.pmceid(0, await context.read(register))


async def read_pmceid1(context: PmuContext, register: int) -> int:
    return context.pmu.pmceid(1, await context.read(register))


async def read_zero(context: PmuContext, register: int) -> int:
    return 0


async def ignore_write(context: PmuContext, register: int, value: int) -> None:
    """PMMIR_EL1 is read-only, and its trap leaves it at that."""


ON_CPU = Accesses(
    reads={
        **by_counter(read_counter),
        **by_type(read_type),
        r.PMXEVCNTR_EL0: selected_read(read_counter),
        r.PMXEVTYPER_EL0: selected_read(read_type),
        **by_register(read_overflows, r.PMOVSSET_EL0, r.PMOVSCLR_EL0),
        **by_register(read_pmcr, r.PMCR_EL0),
        **by_register(read_mask, r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0, r.PMINTENSET_EL1, r.PMINTENCLR_EL1),
        **by_register(read_register, r.PMSELR_EL0, r.PMUSERENR_EL0),
        **by_register(read_pmceid0, r.PMCEID0_EL0),
        **by_register(read_pmceid1, r.PMCEID1_EL0),
        **by_register(read_zero, r.PMMIR_EL1),
    },
    writes={
        **by_counter(write_counter),
        **by_type(write_type),
        r.PMXEVCNTR_EL0: selected_write(write_counter),
        r.PMXEVTYPER_EL0: selected_write(write_type),
        **by_register(clear_overflows, r.PMOVSCLR_EL0),
        **by_register(set_overflows, r.PMOVSSET_EL0),
        **by_register(write_pmcr, r.PMCR_EL0),
        **by_register(write_mask, r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0, r.PMINTENSET_EL1, r.PMINTENCLR_EL1),
        **by_register(software_increment, r.PMSWINC_EL0),
        **by_register(write_selr, r.PMSELR_EL0),
        **by_register(write_userenr, r.PMUSERENR_EL0),
        **by_register(ignore_write, r.PMMIR_EL1),
    },
)

OVERFLOWS_IN_MEMORY = Accesses(
    reads=by_register(read_overflows_in_memory, r.PMOVSSET_EL0, r.PMOVSCLR_EL0),
    writes=by_register(clear_overflows_in_memory, r.PMOVSCLR_EL0),
)


# Where HPMN cannot be 0 nothing is split off, and PMCR_EL0 is the host's: what the guest wants is in memory.


async def read_pmcr_in_memory(context: PmuContext, register: int) -> int:
    await context.read(register)
    return context.pmu.pmcr & context.pmu.pmcr_writable | context.n << r.PMCR_N_SHIFT


async def write_pmcr_in_memory(context: PmuContext, register: int, value: int) -> None:
    context.pmu.pmcr = value & context.pmu.pmcr_writable
    await apply_enables(context)
    await reset_counters(context, value)


async def read_cnten_in_memory(context: PmuContext, register: int) -> int:
    await context.read(register)
    return context.pmu.cnten


async def set_cnten_in_memory(context: PmuContext, register: int, value: int) -> None:
    context.pmu.cnten |= value & context.on.mask
    await apply_enables(context)


async def clear_cnten_in_memory(context: PmuContext, register: int, value: int) -> None:
    context.pmu.cnten &= ~(value & context.on.mask)
    await apply_enables(context)


async def apply_enables(context: PmuContext) -> None:
    value = enables(context)
    await context.write(r.PMCNTENSET_EL0, value)
    await context.write(r.PMCNTENCLR_EL0, ~value & context.on.mask)


UNSPLIT = Accesses(
    reads={
        **by_register(read_pmcr_in_memory, r.PMCR_EL0),
        **by_register(read_cnten_in_memory, r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0),
    },
    writes={
        **by_register(write_pmcr_in_memory, r.PMCR_EL0),
        **by_register(set_cnten_in_memory, r.PMCNTENSET_EL0),
        **by_register(clear_cnten_in_memory, r.PMCNTENCLR_EL0),
    },
)
