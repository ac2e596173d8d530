"""What KVM has the host's perf do: perf_event_create_kernel_counter and its kin, EL0 filters, the guest's range.

A kernel counter is pinned, stands alone and does not count while the host runs. Each function has the accesses that its
calls make one after the other, in their order; several calls of one trap are one list of operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from services._pmu import Burst
from services.costs import Cost
from services.cpu import Cpu
from services.linux_perf.attr import EventAttr
from services.linux_perf.cpu_context import CpuContext
from services.linux_perf.driver import CYCLE_BIT, GENERAL
from services.linux_perf.event import ACTIVE, ALL, CPU, INACTIVE, MASK64, OFF, THROTTLED, Context, PerfEvent
from services.linux_perf.lifecycle import disable, enable, release
from services.linux_perf.schedule import enter_enabled, leave_enabled, off, on, resched, update_time
from services.registers import CYCLE_COUNTER


def create(cc: CpuContext, cpu: Cpu, handle: int, event: int, flags: int, period: int) -> PerfEvent:
    """perf_event_create_kernel_counter, up to its installation; the other half of the cost is `destroy`'s.

    `flags` are `CounterFlag`s, `period` occurrences up to the first overflow.
    """
    cost = cc.shared.costs[Cost.PERF_RELEASE_CREATE]
    cpu.burst.charge(Cost.PERF_RELEASE_CREATE, cost - cost // 2)
    attr = EventAttr.of_kernel_counter(event, flags)
    made = cc.shared.new_event(attr, cc.pmu.hw_kernel_counter(attr), None, handle)
    made.set_sample_period(period)
    return made


async def destroy(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> None:
    """perf_event_release_kernel."""
    cpu.burst.charge(Cost.PERF_RELEASE_CREATE, cc.shared.costs[Cost.PERF_RELEASE_CREATE] // 2)
    await release(cc, cpu, event)


def disable_each(cc: CpuContext, cpu: Cpu, events: Sequence[PerfEvent]) -> None:
    """perf_event_disable of one after the other."""
    pmu, entry, ctx = cc.pmu, cc.entry, cc.task_ctx
    if ctx is None or any(event.ctx is not ctx or event.hw.chained for event in events):
        for event in events:
            disable(cc, cpu, event)
        return
    if any(event.state >= INACTIVE for event in events):
        update_time(cc, cpu, ctx)
    time = ctx.time
    call, pmu_off, pmu_on = pmu.call, off(cc), on(cc)
    pieces: list[Burst] = []
    slots: list[tuple[PerfEvent, int]] = []
    slot = 0  # each of off, out and on reads one value
    for event in events:
        pieces.append(call)
        state = event.state
        event.wanted = False
        if state < INACTIVE:
            continue
        pieces.append(pmu_off)
        slot += 1
        if state == ACTIVE:
            event.running += time
            pieces.append(event.out)
            if event.placed != entry:
                slots.append((event, slot))
            slot += 1
            pmu.used ^= event.bits
            pmu.events[event.idx] = None
            ctx.pinned_active.remove(event)
        leave_enabled(event, time)
        event.state = OFF
        if pmu.used:
            pieces.append(pmu_on)
            slot += 1
    base = cpu.burst.extend_all(pieces)
    for event, slot in slots:
        event.slot = base + slot
        cc.pending_outs.append(event)


async def enable_each(cc: CpuContext, cpu: Cpu, events: Sequence[PerfEvent]) -> None:
    """perf_event_enable of one after the other, each of which puts every event on the PMU back where it was."""
    ctx = cc.task_ctx
    first = 0
    while ctx is not None and first < len(events) and not _known(cc, ctx):
        await enable(cc, cpu, events[first])
        first += 1
    events = events[first:]
    if ctx is None or not _alone(cc, ctx, events):
        for event in events:
            await enable(cc, cpu, event)
        return
    _enable_alone(cc, cpu, ctx, events)


def _known(cc: CpuContext, ctx: Context) -> bool:
    """Is the value of every counter known? They stand still: what was read or written in this entry is there."""
    entry = cc.entry
    return not cc.pending_outs and all(event.placed == entry for event in ctx.pinned_active)


def _alone(cc: CpuContext, ctx: Context, events: Sequence[PerfEvent]) -> bool:
    """Is there a counter for each of `events` beside those that are on the PMU, and is nothing else there?"""
    if cc.ctx.events or ctx.flexible:
        return False
    if any(event.state == INACTIVE for event in ctx.pinned):
        return False
    wanted = cycles = 0
    mask = cc.pmu.cntr_mask
    for event in ctx.pinned_active:
        hw = event.hw
        if not hw.still or event.siblings:
            return False
        if hw.on_pmccntr:
            cycles += 1
        elif hw.chained or hw.on_pmicntr:
            return False
        else:
            wanted += 1
    for event in events:
        hw = event.hw
        if event.ctx is not ctx or not hw.still or event.siblings or event.leader is not event:
            return False
        if hw.on_pmccntr:
            cycles += 1
        elif hw.chained or hw.on_pmicntr:
            return False
        else:
            wanted += 1
    return cycles <= 1 and bool(mask & CYCLE_BIT) and wanted <= (mask & GENERAL).bit_count()


def _enable_alone(cc: CpuContext, cpu: Cpu, ctx: Context, events: Sequence[PerfEvent]) -> None:
    """`enable_each` of counters that are alone on the PMU and have room there: nothing has to be read."""
    pmu, entry = cc.pmu, cc.entry
    active = ctx.pinned_active
    for event in active:
        event.rank = 1
    fresh = False
    for event in events:
        if event.state >= INACTIVE:
            continue
        if not fresh:
            fresh = True
            update_time(cc, cpu, ctx)
        time = ctx.time
        event.rank = 0
        event.wanted = True
        enter_enabled(event, time)
        event.state = ACTIVE
        event.running -= time
        event.placed = entry
        if event.interrupts == THROTTLED:
            event.interrupts = 0
        left = event.period_left
        if left <= 0:
            event.renew_period()
            left = event.period_left
        half = event.hw.half
        event.prev = -left if left < half else -half
    there: list[PerfEvent] = []
    active_there = 0
    for event in ctx.pinned:
        if event.state == ACTIVE:
            active_there |= event.rank << len(there)
            event.rank = len(there)
            there.append(event)
    narrow = pmu.write_masks[0]
    placed = cpu.burst.enable_in_turn(
        pmu.call,
        off(cc),
        on(cc),
        pmu.outs,
        _in_order(pmu.cntr_mask & GENERAL, pmu.high_to_low),
        [
            (event.prev & (MASK64 if (cycles := event.hw.on_pmccntr) else narrow), cycles, event.hw.starts)
            for event in there
        ],
        active_there,
        [event.rank for event in events],
    )
    if not fresh:
        return
    used, outs, on_counters = 0, pmu.outs, pmu.events
    for event in active:
        on_counters[event.idx] = None
        if event.interrupts == THROTTLED:
            event.interrupts = 0
    for event, idx in zip(there, placed, strict=True):
        event.idx = idx
        event.bits = bit = 1 << idx
        event.out = outs[idx]
        used |= bit
        on_counters[idx] = event
    pmu.used = used
    active[:] = there
    ctx.is_active |= ALL
    ctx.rotate_necessary = False


@cache
def _in_order(counters: int, high_to_low: bool) -> list[int]:
    """The event counters in the order in which they are allocated."""
    found = [idx for idx in range(CYCLE_COUNTER) if counters >> idx & 1]
    return found[::-1] if high_to_low else found


def el0_filter(cc: CpuContext, cpu: Cpu, guest: bool) -> None:
    """kvm_vcpu_pmu_restore_guest (True) or _host (False).

    VHE hardware cannot tell host EL0 from guest EL0: events that want only one of them have their EL0 filter
    flipped, first those that count from now on, then those that stop.
    """
    of_guest, of_host = cc.pmu.el0_switched()
    cpu.burst.extend(cc.pmu.el0_flips(of_guest, of_host) if guest else cc.pmu.el0_flips(of_host, of_guest))


async def set_counters(cc: CpuContext, cpu: Cpu, mask: int, reschedule: bool) -> None:
    """Change cntr_mask; with `reschedule` as perf_pmu_resched_update does, between all out and all in."""
    if reschedule:
        await resched(cc, cpu, cc.task_ctx, ALL | CPU, counters=mask)
    else:
        cc.pmu.cntr_mask = mask
