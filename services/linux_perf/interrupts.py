"""The PMU interrupt, the tick and the mux timer: overflows, frequency events, rotation.

Functions over a `CpuContext`. A handler begins with nothing pending, and needs at once what it reads of a counter: but
for rotation, which takes events off, it waits for what it has posted and no more (`cpu.execute`).
"""

from __future__ import annotations

from services.cpu import ContextLock, Cpu, Notice
from services.durations import NS_PER_S
from services.linux_perf.cpu_context import CpuContext
from services.linux_perf.driver import read_of
from services.linux_perf.event import ACTIVE, THROTTLED, Context, PerfEvent, signed64
from services.linux_perf.lifecycle import update
from services.linux_perf.ring_buffer import RingBuffer
from services.linux_perf.sampling import adjust_period, period_over, raise_wakeup, read_group, sample
from services.linux_perf.schedule import (
    ctx_lock,
    forward_mux,
    of_pmu,
    off,
    on,
    post_ins,
    post_off,
    post_on,
    post_outs,
    update_time,
    wait,
)
from services.linux_perf.throttle import (
    set_period,
    start,
    stop,
    throttle_group,
    throttles,
    unthrottle,
    withheld_begins,
    withheld_ends,
)
from services.registers import (
    MASK32,
    MASK64,
    MDCR_EL2,
    MDCR_EL2_HPMN,
    PMINTENSET_EL1,
    PMOVSCLR_EL0,
    counter_mask,
)

# As plain integers: an enum's member is looked up each time.
COUNTER_OVERFLOW, GUEST_OVERFLOW = int(Notice.COUNTER_OVERFLOW), int(Notice.GUEST_OVERFLOW)
ACCUMULATED_SAMPLES = 128  # window of the running average of the handler's length

# The PMU interrupt.


async def handle_irq(cc: CpuContext, cpu: Cpu) -> bool:
    """armv8pmu_handle_irq; False if no overflow flag was set (IRQ_NONE).

    Flags in `guest_mask` are not the host's: they are posted as Notice.GUEST_OVERFLOW. KVM's counters that
    overflow are posted as Notice.COUNTER_OVERFLOW. A crossed ring-buffer watermark posts one IPI to this CPU
    after the handler (irq_work); `irq_work()` is what the SGI's handler calls. It leaves nothing pending, so that its
    entry needs no `settle`.
    """
    cc.entry += 1
    pmu = cc.pmu
    burst = cpu.burst
    burst.extend(pmu.host_pmi)
    if cc.split_irq:
        slot, enabled = burst.mrs(PMOVSCLR_EL0), burst.mrs(PMINTENSET_EL1)
        if cc.hpmn_flags:
            burst.mrs(MDCR_EL2)
    else:
        slot = enabled = burst.extend(pmu.clear_flags)
    values = cpu.execute()
    if not isinstance(values, list):
        values = await values
    flags = values[slot] & values[enabled]
    if not flags:
        return False
    if cc.hpmn_flags:  # nothing is a guest's where HPMN is N, as for the host
        hpmn = values[-1] & MDCR_EL2_HPMN
        cc.guest_mask = counter_mask(hpmn) if hpmn < cc.counters else 0
    if cc.split_irq:
        cpu.burst.msr(PMOVSCLR_EL0, flags & cc.own_flags & ~cc.guest_mask)
    cpu.burst.extend(off(cc))
    pending = flags & pmu.cntr_mask
    while pending:
        idx = (pending & -pending).bit_length() - 1
        pending &= pending - 1
        event = pmu.events[idx]
        if event is None:
            continue
        slot = read_of(cpu.burst, event)
        values = cpu.execute()
        update(event, slot, values if isinstance(values, list) else await values)
        if not set_period(cc, cpu, event) or not event.sampling:
            continue
        throttle = throttles(cc, event)
        if throttle and pmu.group_throttle:
            await throttle_group(cc, cpu, event)
            throttle = False
        if event.attr.frequency and period_over(cc, cpu, event):
            await stop(cc, cpu, event)
            await withheld_ends(cc, cpu, event)
            event.period_left = 0
            start(cc, cpu, event)
        if event.is_kvm:
            await _kvm_overflow(cc, cpu, event)
        else:
            if event.attr.sample_read:
                await read_group(cc, cpu, event)
            sample(cc, cpu, event)
        if throttle:
            cpu.burst.extend(pmu.disable_of(event))
            await withheld_begins(cc, cpu, event)
    guest = flags & cc.guest_mask
    if guest or cc.fixed_flags:  # kvm_pmu_handle_guest_irq
        if cc.split_irq:
            cpu.burst.msr(PMOVSCLR_EL0, guest)
        cpu.burst.notify(GUEST_OVERFLOW, guest)
    cpu.burst.extend(on(cc))
    raise_wakeup(cc, cpu)
    return True


async def _kvm_overflow(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> None:
    """kvm_pmu_perf_overflow.

    As in the kernel the next period is taken from the *event's* count, not the guest's counter: right for
    a Linux guest, which rewrites its counter in the handler and so has the event made anew.
    """
    await stop(cc, cpu, event)
    event.sample_period = signed64(-event.count & (MASK64 if event.long_overflow else MASK32))
    event.sampling = event.sample_period != 0
    event.period_left = 0
    cpu.burst.notify(COUNTER_OVERFLOW, event.handle)
    start(cc, cpu, event)


def irq_work(cc: CpuContext) -> list[RingBuffer]:
    """perf_pending_irq: the ring buffers whose readers are to be woken (perf_event_wakeup)."""
    woken, cc.wakeups = cc.wakeups, []
    cc.wakeup_raised = False
    return woken


def handler_took(cc: CpuContext, start: int, end: int) -> None:
    """perf_sample_event_took, with the times in cycles between which handle_irq ran (Entry.previous_done)."""
    allowed = cc.shared.limits.allowed_ns
    if not allowed:
        return
    length = (end - start) * NS_PER_S // cc.frequency_hz
    running = cc.running_sample_length
    cc.running_sample_length = running - running // ACCUMULATED_SAMPLES + length
    average = cc.running_sample_length // ACCUMULATED_SAMPLES
    if average > allowed:
        cc.shared.limits.lower(average)


# The tick.


async def tick(cc: CpuContext, cpu: Cpu) -> None:
    """perf_event_task_tick: frequency adjustment and unthrottling, CPU context, then the current task's."""
    cc.throttled_seq += 1
    unthrottle, cc.throttled_count = cc.throttled_count > 0, 0
    await _adjust_context(cc, cpu, cc.ctx, unthrottle)
    if cc.task_ctx is not None:
        await _adjust_context(cc, cpu, cc.task_ctx, unthrottle)
    if cc.pmu.stopped:
        cc.pmu.stopped = any(event is not None and event.stopped for event in cc.pmu.events)


async def _adjust_context(cc: CpuContext, cpu: Cpu, ctx: Context, unthrottle: bool) -> None:
    """perf_adjust_freq_unthr_context."""
    leaders = ctx.pinned_active + ctx.flexible_active
    if leaders and (unthrottle or any(_has_frequency(leader) for leader in leaders)):
        await ctx_lock(cc, cpu, ContextLock.TICK)
        post_off(cc, cpu.burst)
        for event in leaders:  # only leaders: perf_adjust_freq_unthr_events walks the active groups
            await _adjust_event(cc, cpu, event)
        post_on(cc, cpu.burst)
    for event in ctx.software_active:
        await _adjust_event(cc, cpu, event)


async def _adjust_event(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> None:
    frequency = event.attr.frequency
    if event.interrupts == THROTTLED:
        await unthrottle(cc, cpu, event)
    if not frequency:
        return
    of_pmu = not event.hw.software
    if of_pmu:
        await stop(cc, cpu, event)
        event.missed += event.period_left <= 0  # its flag is cleared
    delta = event.count - event.freq_count_stamp
    event.freq_count_stamp = event.count
    if delta > 0 and adjust_period(event, cc.shared.tick_ns, delta):
        event.period_left = 0
    if of_pmu:
        start(cc, cpu, event)


def _has_frequency(leader: PerfEvent) -> bool:
    return bool(leader.attr.frequency) or any(
        event.attr.frequency and event.state == ACTIVE for event in leader.siblings
    )


# Rotation.


async def mux_timer(cc: CpuContext, cpu: Cpu) -> None:
    """perf_mux_hrtimer_handler: rotate, and re-arm Timer.MUX if there was something to rotate."""
    if await _rotate(cc, cpu):
        forward_mux(cc, cpu)
    else:
        cc.mux_active = False


async def _rotate(cc: CpuContext, cpu: Cpu) -> bool:
    """perf_rotate_context: the first flexible group goes last, and all flexible groups out and in."""
    ctx, task = cc.ctx, cc.task_ctx
    cpu_rotates = ctx.rotate_necessary
    task_rotates = task is not None and task.rotate_necessary
    if not cpu_rotates and not task_rotates:
        return False
    await ctx_lock(cc, cpu, ContextLock.MUX)
    post_off(cc, cpu.burst)
    cpu_event = _event_to_rotate(cc, ctx) if cpu_rotates else None
    task_event = _event_to_rotate(cc, task) if task is not None and task_rotates else None
    if task is not None and (task_event or cpu_event):
        update_time(cc, cpu, task)
        post_outs(cc, cpu.burst, task, task.flexible_active)
        task.rotate_necessary = False
    if cpu_event:
        update_time(cc, cpu, ctx)
        post_outs(cc, cpu.burst, ctx, ctx.flexible_active)
        ctx.rotate_necessary = False
    if cc.pending_outs:
        await wait(cc, cpu)
    if cpu_event:
        ctx.flexible.remove(cpu_event)
        ctx.flexible.append(cpu_event)
        post_ins(cc, cpu, ctx, ctx.flexible, ctx.flexible_active)
    if task is not None:
        if task_event:
            task.flexible.remove(task_event)
            task.flexible.append(task_event)
        if task_event or cpu_event:
            post_ins(cc, cpu, task, task.flexible, task.flexible_active)
    post_on(cc, cpu.burst)
    return True


def _event_to_rotate(cc: CpuContext, ctx: Context) -> PerfEvent | None:
    """ctx_event_to_rotate: the first group on the PMU, or the first of those that may be."""
    ctx.rotate_necessary = False
    if ctx.flexible_active:
        return ctx.flexible_active[0]
    return next(iter(of_pmu(cc, ctx.flexible)), None)
