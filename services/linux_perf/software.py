"""Software events: kernel/events/core.c's perf_swevent, perf_cpu_clock and perf_task_clock. They take no counter.

A group of them alone has lists of its own in its context: it always goes on, is never rotated, and the PMU is not
touched for it. In a group with hardware events, led by them or not, they go on and off with the group.

What samples by a clock has an hrtimer, which runs while the event is on; what samples by the others counts up to 0.
`services.linux_perf.swevent` has what becomes of that. Where an event goes on or off, its context's time is up to date:
`Context.stamp` is the present.
"""

from __future__ import annotations

from dataclasses import replace

from services._pmu import Burst
from services.costs import Cost
from services.cpu import NEVER, Cpu, Timer
from services.durations import NS_PER_S
from services.events import Software
from services.linux_perf.attr import EventAttr
from services.linux_perf.cpu_context import CpuContext
from services.linux_perf.event import ACTIVE, FLEXIBLE, INACTIVE, PINNED, THROTTLED, TIME, Context, PerfEvent

CLOCKS = (Software.CPU_CLOCK, Software.TASK_CLOCK)
MIN_PERIOD = 10_000  # ns, of an hrtimer's
SWEVENT_TIMER = int(Timer.SWEVENT)


def event_init(attr: EventAttr) -> EventAttr:
    """perf_swevent_init_hrtimer: an hrtimer has a fixed rate, so a clock's frequency is a period from the start."""
    if attr.event in CLOCKS and attr.frequency:
        return replace(attr, frequency=0, period=NS_PER_S // attr.frequency)
    return attr


def goes_in(cc: CpuContext, burst: Burst, ctx: Context, event: PerfEvent) -> None:
    """event_sched_in."""
    burst.charge(Cost.EVENT_IN, cc.shared.costs[Cost.EVENT_IN])
    event.state = ACTIVE
    event.running -= ctx.time_of(event)
    if event.interrupts == THROTTLED:
        event.interrupts = 0
    if event.hw.config in CLOCKS:
        event.prev = ctx.time
        if event.sampling:
            _start_hrtimer(cc, burst, event, ctx.stamp)
    elif event.sampling:  # perf_swevent_add
        event.last_period = event.sample_period
        set_period(event)


def goes_out(cc: CpuContext, burst: Burst, ctx: Context, event: PerfEvent) -> None:
    """event_sched_out."""
    burst.charge(Cost.EVENT_OUT, cc.shared.costs[Cost.EVENT_OUT])
    event.state = INACTIVE
    event.running += ctx.time_of(event)
    if event.hw.config in CLOCKS and event.sampling:
        if not event.stopped:  # perf_swevent_cancel_hrtimer; a throttled one's has expired, or would have
            event.period_left = event.expires - ctx.stamp
        cancel_hrtimer(cc, burst, event)
    event.stopped = False
    update(event, ctx.time)


def stop(cc: CpuContext, burst: Burst, event: PerfEvent) -> None:
    """perf_swevent_stop, and that of the clocks without PERF_EF_UPDATE: of an event whose group is throttled."""
    event.stopped = True
    cancel_hrtimer(cc, burst, event)


def restart(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> None:
    """perf_swevent_start, cpu_clock_event_start, task_clock_event_start: what has passed since a clock was stopped is
    not counted.

    task-clock goes on from its context's time, which the tick has not brought up to date: it counts a second time what
    it had counted since that was.
    """
    event.stopped = False
    ctx = event.ctx
    if event.hw.config in CLOCKS and ctx is not None:
        event.prev = _now(cc, cpu, ctx) if event.hw.config == Software.CPU_CLOCK else ctx.time
        if event.sampling:
            _start_hrtimer(cc, cpu.burst, event, cpu.now * NS_PER_S // cc.frequency_hz)


def read(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> None:
    """cpu_clock_event_read, task_clock_event_read: the present, of which the context's time is not told."""
    assert event.ctx is not None
    update(event, _now(cc, cpu, event.ctx))


def update(event: PerfEvent, now: int) -> None:
    """task_clock_event_update, cpu_clock_event_update. Both clocks pass with the context's time."""
    if event.hw.config in CLOCKS:
        event.count += now - event.prev
        event.prev = now


def _now(cc: CpuContext, cpu: Cpu, ctx: Context) -> int:
    """The time of a context, up to the last wait."""
    return ctx.time + (cpu.now * NS_PER_S // cc.frequency_hz - ctx.stamp if ctx.is_active & TIME else 0)


def set_period(event: PerfEvent) -> int:
    """perf_swevent_set_period: `period_left` counts up to 0. How many periods are over."""
    period, event.last_period = event.last_period, event.sample_period
    if event.period_left < 0:
        return 0
    over = (period + event.period_left) // period
    event.period_left -= over * period
    return over


# The hrtimers of clocks that sample.


def _start_hrtimer(cc: CpuContext, burst: Burst, event: PerfEvent, now: int) -> None:
    """perf_swevent_start_hrtimer, at `now` ns: what was left when it was last cancelled, or a whole period."""
    left, event.period_left = event.period_left, 0
    if left < 0:
        left = MIN_PERIOD
    event.expires = now + (left or max(MIN_PERIOD, event.sample_period))
    cc.hrtimers.append(event)
    program_hrtimers(cc, burst)


def cancel_hrtimer(cc: CpuContext, burst: Burst, event: PerfEvent) -> None:
    """Of a throttled event none runs."""
    if event in cc.hrtimers:
        cc.hrtimers.remove(event)
        program_hrtimers(cc, burst)


def program_hrtimers(cc: CpuContext, burst: Burst) -> None:
    """Have Timer.SWEVENT expire with the earliest of them."""
    due = NEVER
    if cc.hrtimers:
        due = -(-min(event.expires for event in cc.hrtimers) * cc.frequency_hz // NS_PER_S)
    if due != cc.hrtimers_due:
        cc.hrtimers_due = due
        burst.timer(SWEVENT_TIMER, due)


# Groups of software events alone.


def groups_in(cc: CpuContext, burst: Burst, ctx: Context, which: int) -> None:
    """Of the groups of software events alone, those that are to go on: `which` of PINNED and FLEXIBLE."""
    for leader in ctx.software:
        if leader.state == INACTIVE and _kind(leader) & which:
            ctx.software_active.append(leader)
            for event in (leader, *leader.siblings):
                if event.state == INACTIVE:
                    goes_in(cc, burst, ctx, event)


def groups_out(cc: CpuContext, burst: Burst, ctx: Context, which: int) -> None:
    """Likewise those that are to go off."""
    for leader in list(ctx.software_active):
        if _kind(leader) & which:
            ctx.software_active.remove(leader)
            for event in (leader, *leader.siblings):
                if event.state == ACTIVE:
                    goes_out(cc, burst, ctx, event)


def _kind(leader: PerfEvent) -> int:
    return PINNED if leader.attr.pinned else FLEXIBLE


def truth(event: PerfEvent) -> int:
    """What really happened while it was enabled, inherited events aside."""
    if event.hw.config not in CLOCKS:
        return event.truth
    return event.enabled + (event.ctx.time_of(event) if event.timed and event.ctx is not None else 0)
