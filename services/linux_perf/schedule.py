"""Scheduling events onto one CPU's PMU: contexts in and out, the reschedule. Functions over a `CpuContext`.

Within one reschedule all that goes out is posted, then one wait brings the counters' values, then all that goes in is
posted. An event that does not count at EL2 stands still while a host's handler runs: if it goes out in the entry in
which it went in, the counter has the value that was written, and nothing waits for it.
"""

from __future__ import annotations

from services._pmu import Burst
from services.costs import Cost
from services.cpu import ContextLock, Cpu, Notice, Timer
from services.durations import NS_PER_S
from services.linux_perf import notes, software
from services.linux_perf.cpu_context import CpuContext
from services.linux_perf.driver import GENERAL, REGISTERS
from services.linux_perf.event import (
    ACTIVE,
    ALL,
    CPU,
    ERROR,
    EVERY_PMU,
    FLEXIBLE,
    HARDWARE,
    INACTIVE,
    OFF,
    PINNED,
    SOFTWARE,
    SWEVENT,
    THROTTLED,
    TIME,
    Context,
    PerfEvent,
)
from services.registers import CYCLE_BIT, CYCLE_COUNTER, PMUSERENR_CR, PMUSERENR_ER, counter_mask

MUX = int(Timer.MUX)

# Values and time.


def now_ns(cc: CpuContext, cpu: Cpu) -> int:
    """perf_clock in ns, as of the entry or the last wait."""
    return cpu.now * NS_PER_S // cc.frequency_hz


def update_time(cc: CpuContext, cpu: Cpu, ctx: Context) -> None:
    """update_context_time of a context whose time runs."""
    if ctx.is_active & TIME:
        now = cpu.now * NS_PER_S // cc.frequency_hz
        ctx.time += now - ctx.stamp
        if cc.guest_loaded:
            ctx.guest_time += now - ctx.stamp
        ctx.stamp = now


async def ctx_lock(cc: CpuContext, cpu: Cpu, where: ContextLock) -> None:
    """perf_ctx_lock in an interrupt's handler: if what it interrupts on this CPU has the lock, it spins for ever."""
    if cc.ctx_locked:
        cpu.burst.notify(Notice.DEADLOCK, where)
        await cpu.wait()


async def wait(cc: CpuContext, cpu: Cpu) -> list[int]:
    """Have all that is posted executed, and account what was pending."""
    values = cpu.execute()
    if not isinstance(values, list):
        values = await values
    if cc.pending_outs:
        for event in cc.pending_outs:
            hw, slot = event.hw, event.slot
            raw = values[slot]
            if hw.chained and event.idx < CYCLE_COUNTER:
                raw = raw << 32 | values[slot + 1]
            delta = (raw - event.prev) & hw.mask
            event.count += delta
            event.period_left -= delta
        cc.pending_outs.clear()
    if cc.pending_truths:
        for event, slot, sign in cc.pending_truths:
            event.truth += sign * values[slot]
        cc.pending_truths.clear()
    if cc.pending_held:
        for event, slot, sign in cc.pending_held:
            event.held += sign * values[slot]
        cc.pending_held.clear()
    if cc.pending_withheld:
        for event, slot in cc.pending_withheld:
            event.withheld += values[slot]
        cc.pending_withheld.clear()
    return values


async def collect(cc: CpuContext, cpu: Cpu) -> None:
    """Wait for and account the values that are pending, if any."""
    if cc.pending_outs or cc.pending_truths or cc.pending_held:
        await wait(cc, cpu)


async def settle(cc: CpuContext, cpu: Cpu) -> None:
    """The end of a handler."""
    cc.entry += 1
    await collect(cc, cpu)


def truth_begins(cc: CpuContext, burst: Burst, event: PerfEvent) -> None:
    """Of what happens on its PMU's CPUs."""
    if event.hw.scope and event.wanted and not event.truth_open and event.hw.pmu == cc.config.arm_pmu:
        event.truth_open = True
        cc.pending_truths.append((event, burst.truth(event.hw.config, event.hw.scope), -1))


def truth_ends(cc: CpuContext, burst: Burst, event: PerfEvent) -> None:
    if event.truth_open:
        event.truth_open = False
        cc.pending_truths.append((event, burst.truth(event.hw.config, event.hw.scope), 1))


# The PMU as a whole.


def off(cc: CpuContext) -> Burst:
    """perf_pmu_disable: the outermost one; callers do not nest."""
    return cc.pmu.off_range if cc.range_only else cc.pmu.off


def on(cc: CpuContext) -> Burst:
    """perf_pmu_enable. In interrupt context with a vCPU loaded, KVM hears of it (kvm_vcpu_pmu_resync_el0)."""
    pmu = cc.pmu
    if cc.shared.user_access and not pmu.none:
        return _start_beside_users(cc)
    if cc.range_only:
        return pmu.on_range_irq if cc.in_interrupt else pmu.on_range
    if _userenr_is_guest_s(cc):
        return pmu.on_vcpu_irq if cc.in_interrupt else pmu.on_vcpu
    return pmu.on


def _userenr_is_guest_s(cc: CpuContext) -> bool:
    """PMUSERENR_ON_CPU, as kvm_set_pmuserenr asks: a pseudo-NMI amid vcpu_put comes after the thread's sched_out."""
    return cc.pmuserenr_on_cpu or cc.range_only or cc.kept_on


def _start_beside_users(cc: CpuContext) -> Burst:
    """armv8pmu_start where kernel.perf_user_access is set: the current task's events decide who may read."""
    pmu, ctx = cc.pmu, cc.task_ctx
    userenr = PMUSERENR_ER | PMUSERENR_CR if ctx is not None and ctx.users else 0
    unused = pmu.cntr_mask & ~pmu.used if userenr else 0
    changed, pmu.userenr = pmu.hyp and userenr != pmu.userenr, userenr
    loaded = _userenr_is_guest_s(cc)
    resync = loaded and (cc.in_interrupt or pmu.resync_in_process)
    return pmu.user_starts[userenr, unused, changed, loaded, cc.range_only, resync, cc.config.observed]


def post_off(cc: CpuContext, burst: Burst) -> None:
    burst.extend(off(cc))


def on_pmu(cc: CpuContext, ctx: Context) -> bool:
    """Has a context groups on this CPU's PMU? For others alone that is neither disabled nor enabled (perf_ctx_disable,
    armpmu_disable).
    """
    if cc.config.heterogeneous:
        return any(leader.pmu == cc.config.arm_pmu for leader in (*ctx.pinned, *ctx.flexible))
    return bool(ctx.pinned or ctx.flexible)


def groups_of(cc: CpuContext, event: PerfEvent) -> int:
    """Which of HARDWARE and SOFTWARE an event's group is among here; neither if it is another PMU's."""
    if event.pmu == SWEVENT:
        return SOFTWARE
    return HARDWARE if event.pmu == cc.config.arm_pmu else 0


def of_pmu(cc: CpuContext, leaders: list[PerfEvent]) -> list[PerfEvent]:
    """Those that may go on this CPU's PMU: armpmu_filter."""
    return [leader for leader in leaders if leader.pmu == cc.config.arm_pmu]


def post_on(cc: CpuContext, burst: Burst) -> None:
    """Nothing is switched on for no event, but where a guest's counters need it."""
    if cc.pmu.used or cc.kept_on:
        burst.extend(on(cc))


# Events out and in.


def post_outs(cc: CpuContext, burst: Burst, ctx: Context, active: list[PerfEvent]) -> None:
    """group_sched_out of every group in `active`."""
    times, entry = (ctx.time, ctx.time - ctx.guest_time), cc.entry
    pmu = cc.pmu
    if pmu.stopped:
        for leader in active:
            for event in (leader, *leader.siblings):
                post_out(cc, burst, ctx, event)
        active.clear()
        return
    extend, free, outs, observed = burst.extend, pmu.free, cc.pending_outs, cc.config.observed
    for leader in active:
        hw = leader.hw
        if hw.software:
            software.goes_out(cc, burst, ctx, leader)
            for event in leader.siblings:
                post_out(cc, burst, ctx, event)
            continue
        leader.state = INACTIVE
        leader.slot = extend(leader.out)
        if observed:
            notes.off_counter(burst, leader)
        if hw.reported:
            leader.running += times[hw.attr.exclude_guest]
            if hw.scope:
                slot = burst.truth(hw.config, hw.scope)
                cc.pending_held.append((leader, slot, 1))
                if leader.withheld_open:
                    leader.withheld_open = False
                    cc.pending_withheld.append((leader, slot))
        free(leader)
        if leader.placed != entry:
            outs.append(leader)
        for event in leader.siblings:
            post_out(cc, burst, ctx, event)
    if cc.exclusive:
        cc.exclusive = pmu.used != 0 and not any(leader.hw.exclusive for leader in active)
    active.clear()


def post_out(cc: CpuContext, burst: Burst, ctx: Context, event: PerfEvent) -> None:
    """event_sched_out of one event; its group's place in the active list is the caller's."""
    if event.state == ACTIVE:
        hw = event.hw
        if hw.software:
            software.goes_out(cc, burst, ctx, event)
            return
        event.state = INACTIVE
        if event.stopped:  # armpmu_stop has nothing to do
            burst.charge(Cost.EVENT_OUT, cc.shared.costs[Cost.EVENT_OUT])
        else:
            event.slot = burst.extend(event.out)
        if cc.config.observed:
            notes.off_counter(burst, event)
        if hw.reported:
            event.running += ctx.time_of(event)
            if hw.scope:
                slot = burst.truth(hw.config, hw.scope)
                cc.pending_held.append((event, slot, 1))
                if event.withheld_open:
                    event.withheld_open = False
                    cc.pending_withheld.append((event, slot))
        cc.pmu.free(event)
        if cc.exclusive:
            cc.exclusive = cc.pmu.used != 0 and not hw.exclusive
        if event.stopped:
            event.stopped = False
        elif event.placed != cc.entry:
            cc.pending_outs.append(event)


def _post_in(cc: CpuContext, burst: Burst, ctx: Context, event: PerfEvent) -> bool:
    """event_sched_in of one event; False if there is no counter for it."""
    if event.state <= OFF:
        return True
    pmu, hw = cc.pmu, event.hw
    if hw.software:
        software.goes_in(cc, burst, ctx, event)
        return True
    if not pmu.allocate(event):
        return False
    if event.interrupts == THROTTLED:
        event.interrupts = 0
    if event.period_left <= 0 or event.sample_period < 0:
        event.missed += event.sampling
        event.renew_period()
    left = event.period_left
    if left > hw.half or left < 0:
        left = hw.half
    event.prev = -left
    if hw.reported:
        event.running -= ctx.time_of(event)
        if hw.scope:
            cc.pending_held.append((event, burst.truth(hw.config, hw.scope), -1))
    if cc.config.observed:
        notes.on_counter(burst, event)
    pmu.write(burst, event, left)
    burst.extend(hw.starts[event.idx])
    event.out = pmu.out_of(event)
    if hw.still:
        event.placed = cc.entry
    event.state = ACTIVE
    return True


def _post_group_in(cc: CpuContext, burst: Burst, ctx: Context, leader: PerfEvent, active: list[PerfEvent]) -> bool:
    """group_can_go_on, group_sched_in: all of the group or, after those that fitted went out again, nothing."""
    exclusive, ran = leader.hw.exclusive, leader.bits
    if cc.exclusive or (exclusive and active) or not _post_in(cc, burst, ctx, leader):
        return False
    cc.exclusive = exclusive  # before its siblings: they go with it
    for index, event in enumerate(leader.siblings):
        if not _post_in(cc, burst, ctx, event):
            for placed in leader.siblings[:index]:
                post_out(cc, burst, ctx, placed)
            post_out(cc, burst, ctx, leader)
            if not ran:  # it has yet to
                for placed in (leader, *leader.siblings):
                    placed.bits = 0
            return False
    return True


def post_ins(cc: CpuContext, cpu: Cpu, ctx: Context, leaders: list[PerfEvent], active: list[PerfEvent]) -> None:
    """pmu_groups_sched_in with merge_sched_in: place the groups in order until one does not fit."""
    if cc.config.heterogeneous:
        leaders = of_pmu(cc, leaders)
    burst = cpu.burst
    times = ctx.time, ctx.time - ctx.guest_time
    pmu = cc.pmu
    mask, used, events = pmu.cntr_mask, pmu.used, pmu.events
    write_masks, outs, high_to_low = pmu.write_masks, pmu.outs, pmu.high_to_low
    place, entry, exclusive, observed = burst.place, cc.entry, cc.exclusive, cc.config.observed
    for event in leaders:
        if event.state < INACTIVE:
            continue
        hw = event.hw
        if event.siblings or hw.uncommon or exclusive:
            pmu.used = used
            placed = _post_group_in(cc, burst, ctx, event, active)
            exclusive = cc.exclusive
            used = pmu.used
            if not placed:
                break
            active.append(event)
            continue
        # What follows is _post_in of a lone event, open-coded: it runs millions of times.
        if hw.on_pmccntr and mask & ~used & CYCLE_BIT:
            idx, bit = CYCLE_COUNTER, CYCLE_BIT
        else:
            free = mask & ~used & GENERAL
            if not free:
                break
            if high_to_low:
                idx = free.bit_length() - 1
                bit = 1 << idx
            else:
                bit = free & -free
                idx = bit.bit_length() - 1
        used |= bit
        pmu.guest_only |= bit & hw.guest_only
        pmu.host_only |= bit & hw.host_only
        event.idx = idx
        event.bits = bit
        events[idx] = event
        if event.interrupts == THROTTLED:
            event.interrupts = 0
        left = event.period_left
        if left <= 0 or event.sample_period < 0:
            event.missed += event.sampling  # armpmu_del has cleared the flag: armpmu_start begins a period anew
            event.renew_period()
            left = event.period_left
        if left > hw.half or left < 0:  # compared as u64
            left = hw.half
        event.prev = -left
        if hw.reported:
            event.running -= times[hw.attr.exclude_guest]
            if hw.scope:
                cc.pending_held.append((event, burst.truth(hw.config, hw.scope), -1))
        if observed:
            notes.on_counter(burst, event)
        place(REGISTERS[idx], -left & write_masks[idx], hw.starts[idx])
        event.out = outs[idx]
        if hw.still:
            event.placed = entry
        event.state = ACTIVE
        active.append(event)
    else:
        pmu.used = used
        return
    pmu.used = used
    if event.hw.reported and not event.running and cc.config.hyp:
        _starves(cc, event, leaders)
    if active is ctx.flexible_active:
        ctx.rotate_necessary = True
        _restart_mux(cc, cpu)
    elif cc.lent:
        cc.waiting = True
    else:
        for event in leaders:  # none after the one that did not fit is tried
            if event.state == INACTIVE:
                leave_enabled(event, ctx)
                event.state = ERROR
                if observed:
                    notes.in_error(burst, event)


def _starves(cc: CpuContext, unplaced: PerfEvent, leaders: list[PerfEvent]) -> None:
    """Remember who has the counters that an event of the host's, and those behind it, have never had one of."""
    pmu = cc.pmu
    every = counter_mask(cc.counters)
    withheld = every & ~pmu.cntr_mask
    owners = [f"range:{withheld.bit_count()}/{every.bit_count()}"] if withheld else []
    owners += [
        f"thread:{other.handle >> 5}" if other.is_kvm else f"event:{other.attr.name}"
        for other in pmu.events
        if other is not None and other.state == ACTIVE
    ]
    for leader in leaders[leaders.index(unplaced) :]:
        for event in (leader, *leader.siblings):
            if event.state == INACTIVE and not event.bits:
                known = cc.starved.setdefault(event.id, [])
                known += [owner for owner in dict.fromkeys(owners) if owner not in known]


# Contexts.


def ctx_out(cc: CpuContext, cpu: Cpu, ctx: Context, which: int, pmus: int = EVERY_PMU) -> None:
    """ctx_sched_out of a context with events, with `which` of PINNED and FLEXIBLE, of HARDWARE and SOFTWARE."""
    update_time(cc, cpu, ctx)
    before = ctx.is_active
    after = before & ~which
    if not after & ALL:
        after = 0
        if ctx.task is not None:
            cc.task_ctx = None
    ctx.is_active = after
    changed = before ^ after
    if pmus & HARDWARE:
        if changed & PINNED and ctx.pinned_active:
            post_outs(cc, cpu.burst, ctx, ctx.pinned_active)
        if changed & FLEXIBLE:
            if ctx.flexible_active:
                post_outs(cc, cpu.burst, ctx, ctx.flexible_active)
            ctx.rotate_necessary = False
    if ctx.software_active and pmus & SOFTWARE:
        software.groups_out(cc, cpu.burst, ctx, changed)


def _ctx_in(cc: CpuContext, cpu: Cpu, ctx: Context, which: int, pmus: int) -> None:
    """ctx_sched_in of a context with events."""
    before = ctx.is_active
    if not before & TIME:
        ctx.stamp = now_ns(cc, cpu)
    ctx.is_active = after = before | which | TIME
    if ctx.task is not None and not before & ALL:
        cc.task_ctx = ctx
    changed = before ^ after
    if pmus & HARDWARE:
        if changed & PINNED and ctx.pinned:
            post_ins(cc, cpu, ctx, ctx.pinned, ctx.pinned_active)
        if changed & FLEXIBLE and ctx.flexible:
            post_ins(cc, cpu, ctx, ctx.flexible, ctx.flexible_active)
    if ctx.software and pmus & SOFTWARE:
        software.groups_in(cc, cpu.burst, ctx, changed)


def sched_in(cc: CpuContext, cpu: Cpu, task_ctx: Context | None, pmus: int = EVERY_PMU) -> None:
    """perf_event_sched_in: CPU-pinned, task-pinned, CPU-flexible, task-flexible."""
    ctx = cc.ctx if cc.ctx.events else None
    if ctx is not None:
        _ctx_in(cc, cpu, ctx, PINNED, pmus)
    if task_ctx is not None:
        _ctx_in(cc, cpu, task_ctx, PINNED, pmus)
    if ctx is not None:
        _ctx_in(cc, cpu, ctx, FLEXIBLE, pmus)
    if task_ctx is not None:
        _ctx_in(cc, cpu, task_ctx, FLEXIBLE, pmus)


async def resched(cc: CpuContext, cpu: Cpu, task_ctx: Context | None, which: int, pmus: int, frozen: Context) -> None:
    """ctx_resched with `which` of FLEXIBLE, PINNED and CPU, of the groups of `pmus`.

    The time of `frozen`, the context of the event that is the reason, stands still meanwhile and then makes up for it
    (ctx_time_freeze): what goes out and in again has run on. The other's clock is stopped while it is wholly out.
    """
    if which & PINNED:
        which |= FLEXIBLE
    ctx = cc.ctx
    touches = pmus & HARDWARE and (on_pmu(cc, ctx) or (task_ctx is not None and on_pmu(cc, task_ctx)))
    if touches:
        post_off(cc, cpu.burst)
    if task_ctx is not None and cc.task_ctx is task_ctx:
        _out_for_resched(cc, cpu, task_ctx, which & ALL, pmus, frozen)
    if ctx.events and which & (CPU | PINNED):
        _out_for_resched(cc, cpu, ctx, which & ALL if which & CPU else FLEXIBLE, pmus, frozen)
    if cc.pending_outs:
        await wait(cc, cpu)
    sched_in(cc, cpu, task_ctx, pmus)
    if touches:
        post_on(cc, cpu.burst)


def _out_for_resched(cc: CpuContext, cpu: Cpu, ctx: Context, which: int, pmus: int, frozen: Context) -> None:
    running = ctx.is_active & TIME
    ctx_out(cc, cpu, ctx, which, pmus)
    if ctx is frozen:
        ctx.is_active |= running


async def resched_update(cc: CpuContext, cpu: Cpu, counters: int, guest_loaded: bool) -> None:
    """perf_pmu_resched_update: cntr_mask becomes `counters` while everything is out. It freezes no context's time."""
    cpu.burst.charge(Cost.PERF_RESCHED, cc.shared.costs[Cost.PERF_RESCHED])
    post_off(cc, cpu.burst)
    await wait(cc, cpu)  # the clocks stop when the PMU is off
    task_ctx = cc.task_ctx
    if task_ctx is not None:
        ctx_out(cc, cpu, task_ctx, ALL, HARDWARE)
    if cc.ctx.events:
        ctx_out(cc, cpu, cc.ctx, ALL, HARDWARE)
    if cc.pending_outs:
        await wait(cc, cpu)
    cc.pmu.cntr_mask = counters
    cc.guest_loaded = guest_loaded
    sched_in(cc, cpu, task_ctx, HARDWARE)
    post_on(cc, cpu.burst)


# Enabled times and states.


def enter_enabled(event: PerfEvent, ctx: Context) -> None:
    """The event becomes INACTIVE: time_enabled runs, for siblings only with their leader."""
    event.state = INACTIVE
    if event.hw.reported:
        event.tstamp = ctx.time_of(event)
        if event.leader.state >= INACTIVE:
            _start_enabled(event, event.tstamp)
        for sibling in event.siblings:
            if sibling.state >= INACTIVE:
                _start_enabled(sibling, ctx.time_of(sibling))


def _start_enabled(event: PerfEvent, time: int) -> None:
    if not event.timed:
        event.timed = True
        event.enabled -= time


def leave_enabled(event: PerfEvent, ctx: Context) -> None:
    """The event falls below INACTIVE, and with a leader its siblings' time_enabled stops."""
    if event.timed:
        event.timed = False
        event.enabled += ctx.time_of(event)
    for sibling in event.siblings:
        if sibling.timed:
            sibling.timed = False
            sibling.tstamp = ctx.time_of(sibling)
            sibling.enabled += sibling.tstamp


# Events into contexts and out of them.


def add_to_context(event: PerfEvent, ctx: Context) -> None:
    """add_event_to_ctx."""
    ctx.add(event)
    if event.state >= INACTIVE:
        enter_enabled(event, ctx)


def detach_from_group(event: PerfEvent, ctx: Context) -> None:
    """perf_group_detach: the siblings of a leader become events of their own.

    Their own state counts from then on, and the next update of their times is from the last one: a sibling that is
    INACTIVE below a leader that is off or in ERROR has been enabled since that was.
    """
    leader = event.leader
    if leader is not event:
        leader.siblings.remove(event)
        event.leader = event
        ctx.groups(event)[0].append(event)
        return
    for sibling in event.siblings:
        sibling.leader = sibling
        groups, active = ctx.groups(sibling)  # by its own attributes, not its late leader's
        groups.append(sibling)
        if sibling.state == ACTIVE:
            active.append(sibling)
        if sibling.state >= INACTIVE:
            _start_enabled(sibling, sibling.tstamp)
    event.siblings = []


def remove_from_context(cc: CpuContext, event: PerfEvent, ctx: Context) -> None:
    """perf_group_detach and list_del_event."""
    detach_from_group(event, ctx)
    groups, active = ctx.groups(event)
    groups.remove(event)
    if event in active:
        active.remove(event)
    ctx.drop(event)
    if not ctx.events:
        ctx.rotate_necessary = False
        ctx.is_active = 0
        if ctx is cc.task_ctx:
            cc.task_ctx = None


# The mux timer's start.


def _restart_mux(cc: CpuContext, cpu: Cpu) -> None:
    """perf_mux_hrtimer_restart."""
    if not cc.mux_active:
        cc.mux_active = True
        forward_mux(cc, cpu)


def forward_mux(cc: CpuContext, cpu: Cpu) -> None:
    """hrtimer_forward_now: whole intervals from the last expiry, which began at 0."""
    if cc.mux_expires <= cpu.now:
        missed = (cpu.now - cc.mux_expires) // cc.mux_interval
        cc.mux_expires += (missed + 1) * cc.mux_interval
    cpu.burst.timer(MUX, cc.mux_expires)
