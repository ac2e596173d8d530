"""What KVM has the host's perf do: perf_event_create_kernel_counter and its kin, EL0 filters, the guest's range.

A kernel counter is pinned, stands alone and does not count while the host runs. Each function has the accesses that its
calls make one after the other, in their order; several calls of one trap are one list of operations.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from functools import cache
from typing import Any

from services._pmu import Burst
from services.costs import Cost
from services.cpu import CounterFlag, Cpu, Eventual
from services.linux_perf import guest_context, notes
from services.linux_perf.cpu_context import CpuContext
from services.linux_perf.driver import GENERAL, Driver
from services.linux_perf.event import ACTIVE, ALL, INACTIVE, OFF, THROTTLED, Context, PerfEvent
from services.linux_perf.lifecycle import disable, enable, read_counter, release
from services.linux_perf.schedule import off, on, on_pmu, resched_update, update_time, wait
from services.registers import CYCLE_COUNTER, MASK64

DISABLED, LONG_OVERFLOW = int(CounterFlag.DISABLED), int(CounterFlag.LONG_OVERFLOW)


def create(
    cc: CpuContext, cpu: Cpu, handle: int, event: int, flags: int, period: int, pmu: Driver | None = None
) -> PerfEvent:
    """perf_event_create_kernel_counter, up to its installation; the other half of the cost is `destroy`'s.

    `flags` are `CounterFlag`s, `period` occurrences up to the first overflow. `pmu` is the VM's where it is not
    this CPU's: the event stands still here.
    """
    cost = cc.shared.costs[Cost.PERF_RELEASE_CREATE]
    cpu.burst.charge(Cost.PERF_RELEASE_CREATE, cost - cost // 2)
    hw = (pmu or cc.pmu).hw_kernel_counter(event, flags & ~LONG_OVERFLOW)
    made = cc.shared.new_event(hw, period, None, handle)
    made.long_overflow = bool(flags & LONG_OVERFLOW)
    return made


def recreate(
    cc: CpuContext, cpu: Cpu, event: PerfEvent, number: int, flags: int, period: int, pmu: Driver | None = None
) -> bool:
    """`destroy` of a counter, then `create` and `install` of one in its place, in the same object.

    False, and nothing done, unless neither of the two is enabled, which makes no access.
    """
    ctx = event.ctx
    if event.state != OFF or not flags & DISABLED or ctx is None or len(ctx.events) == 1:
        return False
    hw = (pmu or cc.pmu).hw_kernel_counter(number, flags & ~LONG_OVERFLOW)
    if not (hw.alone and event.hw.alone) or ctx is not cc.task_ctx:
        return False
    if cc.pending_outs or cc.pending_truths or cc.pending_held:
        return False
    cpu.burst.extend(cc.pmu.recreate)
    update_time(cc, cpu, ctx)
    shared, events, pinned = cc.shared, ctx.events, ctx.pinned
    before = event.id
    del shared.events[before]
    events.remove(event)
    events.append(event)
    pinned.remove(event)
    pinned.append(event)
    ctx.clone_of = None
    ctx.generation += 2
    event.id = shared.opened
    shared.events[event.id] = event
    shared.opened += 1
    event.made_anew(hw, period)
    event.long_overflow = bool(flags & LONG_OVERFLOW)
    if cc.config.observed:
        notes.recreated(cpu.burst, before, event)
    return True


def read(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> Eventual[int]:
    """perf_event_read_value of a counter that nobody inherits."""
    cpu.burst.extend(cc.pmu.read)
    ctx = event.ctx
    if ctx is not None and ctx is cc.task_ctx:
        update_time(cc, cpu, ctx)
        if event.state == ACTIVE:
            return _read_active(cc, cpu, event)
    if cc.pending_outs or cc.pending_truths or cc.pending_held:
        return _read_pending(cc, cpu, event)
    return event.count


async def _read_active(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> int:
    await read_counter(cc, cpu, event)
    if cc.config.observed:
        notes.read(cpu.burst, event)
    return event.count


async def _read_pending(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> int:
    await wait(cc, cpu)
    return event.count


async def destroy(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> None:
    """perf_event_release_kernel."""
    cpu.burst.charge(Cost.PERF_RELEASE_CREATE, cc.shared.costs[Cost.PERF_RELEASE_CREATE] // 2)
    await release(cc, cpu, event)


def disable_each(cc: CpuContext, cpu: Cpu, events: Sequence[PerfEvent]) -> None:
    """perf_event_disable of one after the other, of each once."""
    ctx = cc.task_ctx
    if ctx is not None and ctx.pinned_active and _disable_alone(cc, cpu, ctx, events):
        return
    extend, call = cpu.burst.extend, cc.pmu.call
    for event in events:
        if event.state == OFF:
            extend(call)
        else:
            disable(cc, cpu, event)


def _disable_alone(cc: CpuContext, cpu: Cpu, ctx: Context, events: Sequence[PerfEvent]) -> bool:
    """`disable_each` of counters where nothing else is on the PMU; False elsewhere."""
    if ctx.alone != len(ctx.events):
        return False
    outs: list[Burst | None] = []
    there = []
    gone = 0
    for event in events:
        state = event.state
        if state == ACTIVE:
            outs.append(event.out)
            there.append(event)
            gone |= event.bits
        elif state == INACTIVE:
            return False
        else:
            outs.append(None)
    if there:
        update_time(cc, cpu, ctx)
    pmu, entry, active = cc.pmu, cc.entry, ctx.pinned_active
    pmu.used &= ~gone
    pmu.guest_only &= ~gone
    slots = cpu.burst.disable_in_turn(pmu.call, off(cc), on(cc), outs, pmu.used != 0)
    if cc.config.observed:
        notes.off_counters(cpu.burst, there)
    for event, event.slot in zip(there, slots, strict=True):
        event.state = OFF
        pmu.events[event.idx] = None
        if event.placed != entry:
            cc.pending_outs.append(event)
    if len(there) == len(active):
        active.clear()
    else:
        for event in there:
            active.remove(event)
    return True


def enable_each(cc: CpuContext, cpu: Cpu, events: Sequence[PerfEvent]) -> Coroutine[Any, Any, None] | None:
    """perf_event_enable of one after the other, each of which puts every event on the PMU back where it was.

    At once, or when this is awaited.
    """
    return None if _enable_alone(cc, cpu, events) else _enable_in_turn(cc, cpu, events)


async def _enable_in_turn(cc: CpuContext, cpu: Cpu, events: Sequence[PerfEvent]) -> None:
    for turn, event in enumerate(events):
        if turn and _enable_alone(cc, cpu, events[turn:]):
            return
        await enable(cc, cpu, event)


def _enable_alone(cc: CpuContext, cpu: Cpu, events: Sequence[PerfEvent]) -> bool:
    """`enable_each` of counters where nothing else is on the PMU, and nothing has to be read; False elsewhere.

    They stand still, so what was read or written of a counter in this entry is what it has.
    """
    ctx = cc.task_ctx
    if ctx is None or ctx.alone != len(ctx.events) or cc.ctx.events or cc.pending_outs or not on_pmu(cc, ctx):
        return False
    pmu, entry = cc.pmu, cc.entry
    wanted = set(events)
    masks = pmu.write_masks[0], MASK64
    there: list[PerfEvent] = []
    values = []
    rank = active = cycles = 0
    for event in ctx.pinned:
        state, hw = event.state, event.hw
        if state == ACTIVE:
            if event.placed != entry:
                return False
            active |= 1 << rank
            idx = event.idx
        elif event not in wanted:
            if state == INACTIVE:
                return False
            continue
        else:
            idx = 0
            if event.period_left <= 0 or event.sample_period < 0:
                event.renew_period()
            left, half = event.period_left, hw.half
            event.prev = -left if 0 <= left < half else -half
        event.rank = rank
        rank += 1
        there.append(event)
        cycle_counter = hw.on_pmccntr
        cycles += cycle_counter
        values.append((event.prev & masks[cycle_counter], cycle_counter, hw.starts, idx))
    free = _in_order(pmu.cntr_mask & GENERAL, pmu.high_to_low)
    if cycles > 1 or rank - cycles > len(free) or not wanted.issubset(there):
        return False
    fresh = active + 1 != 1 << rank  # some of them are not on the PMU yet
    if fresh:
        update_time(cc, cpu, ctx)
    turns = [event.rank for event in events]
    placed = cpu.burst.enable_in_turn(pmu.call, off(cc), on(cc), pmu.outs, free, values, active, turns)
    if not fresh:
        return True
    outs, on_counters = pmu.outs, pmu.events
    moved = []
    if cc.config.observed:
        moved = [one for one, idx in zip(there, placed, strict=True) if one.state != ACTIVE or one.idx != idx]
        notes.off_counters(cpu.burst, [event for event in moved if event.state == ACTIVE])
    for event in ctx.pinned_active:
        on_counters[event.idx] = None
    used = guest_only = 0
    for event, idx in zip(there, placed, strict=True):
        event.state = ACTIVE
        event.placed = entry
        event.idx = idx
        event.bits = bit = 1 << idx
        event.out = outs[idx]
        on_counters[idx] = event
        used |= bit
        guest_only |= bit & event.hw.guest_only
        if event.interrupts == THROTTLED:
            event.interrupts = 0
    if moved:
        notes.on_counters(cpu.burst, moved)
    pmu.used, pmu.guest_only = used, guest_only
    ctx.pinned_active = there
    ctx.is_active |= ALL
    ctx.rotate_necessary = False
    return True


@cache
def _in_order(counters: int, high_to_low: bool) -> list[int]:
    """The event counters in the order in which they are allocated."""
    found = [idx for idx in range(CYCLE_COUNTER) if counters >> idx & 1]
    return found[::-1] if high_to_low else found


def el0_filter(cc: CpuContext, cpu: Cpu, guest: bool) -> None:
    """kvm_vcpu_pmu_restore_guest (True) or _host (False).

    VHE hardware cannot tell host EL0 from guest EL0: events that want only one of them have their EL0 filter
    flipped (`kvm_pmu_events`), first those that count from now on, then those that stop.
    """
    pmu = cc.pmu
    of_guest, of_host = pmu.guest_only, pmu.host_only
    if pmu.throttled:
        running = ~pmu.throttled_counters()
        of_guest &= running
        of_host &= running
    cpu.burst.extend(pmu.el0_flips[(of_guest, of_host) if guest else (of_host, of_guest)])


async def set_counters(cc: CpuContext, cpu: Cpu, mask: int, reschedule: bool, guest_loaded: bool = False) -> None:
    """Change cntr_mask; with `reschedule` as perf_pmu_resched_update does, between all out and all in.

    `guest_loaded`: until the next time, time is that of a guest which has what the mask leaves out.
    """
    if reschedule:
        await resched_update(cc, cpu, mask, guest_loaded)
        return
    cc.pmu.cntr_mask = mask
    if guest_loaded != cc.guest_loaded:
        guest_context.set_loaded(cc, cpu, guest_loaded)


def keep_on(cc: CpuContext, cpu: Cpu, kept_on: bool) -> None:
    """From now on the PMU is on for no event, too, as a guest's counters need PMCR_EL0.E; or is not."""
    if kept_on != cc.kept_on:
        cc.kept_on = kept_on
        if not cc.pmu.used:
            cpu.burst.extend(on(cc) if kept_on else off(cc))
