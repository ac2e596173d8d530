"""What KVM has the host's perf do: perf_event_create_kernel_counter and its kin, EL0 filters, the guest's range.

A kernel counter is pinned, stands alone and does not count while the host runs. Each function has the accesses that its
calls make one after the other, in their order; several calls of one trap are one list of operations.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from services._pmu import Burst
from services.costs import Cost
from services.cpu import Cpu
from services.linux_perf.attr import EventAttr
from services.linux_perf.cpu_context import CpuContext
from services.linux_perf.driver import CYCLE_BIT, GENERAL, REGISTERS
from services.linux_perf.event import ACTIVE, ALL, CPU, INACTIVE, OFF, THROTTLED, Context, PerfEvent
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


async def disable_each(cc: CpuContext, cpu: Cpu, events: Sequence[PerfEvent]) -> None:
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
    if any(event.state < INACTIVE for event in events):
        update_time(cc, cpu, ctx)
    time = ctx.time
    call, pmu_off, pmu_on = pmu.call, off(cc), on(cc)
    write_masks, outs_by_idx = pmu.write_masks, pmu.outs
    free = _in_order(pmu.cntr_mask & GENERAL, pmu.high_to_low)
    for rank, event in enumerate(ctx.pinned):
        event.rank = rank
    active = ctx.pinned_active
    ranks = [event.rank for event in active]
    pieces: list[Burst | tuple[int, int]] = []
    outs: list[Burst] = [event.out for event in active]
    ins: list[Burst | tuple[int, int]] = []
    for event in active:
        if event.interrupts == THROTTLED:
            event.interrupts = 0
        idx = event.idx
        ins += ((REGISTERS[idx], event.prev & write_masks[idx]), event.hw.starts[idx] or pmu.start_of(event, idx))
    enabled = False
    for event in events:
        pieces.append(call)
        if event.state >= INACTIVE:
            continue
        enabled = True
        event.wanted = True
        enter_enabled(event, time)
        pieces.append(pmu_off)
        pieces += outs
        if event.interrupts == THROTTLED:
            event.interrupts = 0
        if event.period_left <= 0:
            event.renew_period()
        left = event.period_left
        if left > event.hw.half:
            left = event.hw.half
        event.prev = -left
        event.placed = entry
        event.state = ACTIVE
        event.running -= time
        at = bisect_left(ranks, event.rank)
        ranks.insert(at, event.rank)
        active.insert(at, event)
        # From there on each has the next counter.
        del outs[at:], ins[2 * at :]
        general = at
        for before in range(at):
            if active[before].idx == CYCLE_COUNTER:
                general -= 1
        for moved in active[at:]:
            hw = moved.hw
            if hw.on_pmccntr:
                idx = CYCLE_COUNTER
            else:
                idx = free[general]
                general += 1
            moved.idx = idx
            outs.append(outs_by_idx[idx])
            ins.append((REGISTERS[idx], moved.prev & write_masks[idx]))
            ins.append(hw.starts[idx] or pmu.start_of(moved, idx))
        pieces += ins
        pieces.append(pmu_on)
    cpu.burst.extend_all(pieces)
    if not enabled:
        return
    used, on_counters = 0, pmu.events
    for idx in free:
        on_counters[idx] = None
    on_counters[CYCLE_COUNTER] = None
    for event in active:
        idx = event.idx
        event.bits = bit = 1 << idx
        event.out = outs_by_idx[idx]
        used |= bit
        on_counters[idx] = event
    pmu.used = used
    ctx.is_active |= ALL
    ctx.rotate_necessary = False


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
