"""Software events: kernel/events/core.c's perf_swevent, perf_cpu_clock and perf_task_clock. They take no counter.

A group of them alone has lists of its own in its context: it always goes on, is never rotated, and the PMU is not
touched for it. In a group with hardware events, led by them or not, they go on and off with the group.
"""

from __future__ import annotations

from services._pmu import Burst
from services.costs import Cost
from services.events import Software
from services.linux_perf.cpu_context import CpuContext
from services.linux_perf.event import ACTIVE, FLEXIBLE, INACTIVE, PINNED, Context, PerfEvent

CLOCKS = (Software.CPU_CLOCK, Software.TASK_CLOCK)


def goes_in(cc: CpuContext, burst: Burst, ctx: Context, event: PerfEvent) -> None:
    """event_sched_in."""
    burst.charge(Cost.EVENT_IN, cc.shared.costs[Cost.EVENT_IN])
    event.state = ACTIVE
    event.running -= ctx.time_of(event)
    if event.hw.config in CLOCKS:
        event.prev = ctx.time


def goes_out(cc: CpuContext, burst: Burst, ctx: Context, event: PerfEvent) -> None:
    """event_sched_out."""
    burst.charge(Cost.EVENT_OUT, cc.shared.costs[Cost.EVENT_OUT])
    event.state = INACTIVE
    event.stopped = False
    event.running += ctx.time_of(event)
    update(event, ctx)


def restart(event: PerfEvent) -> None:
    """perf_swevent_start, cpu_clock_event_start, task_clock_event_start: a clock goes on from the context's time."""
    event.stopped = False
    if event.hw.config in CLOCKS and event.ctx is not None:
        event.prev = event.ctx.time


def update(event: PerfEvent, ctx: Context) -> None:
    """task_clock_event_update, cpu_clock_event_update. Both clocks pass with the context's time."""
    if event.hw.config in CLOCKS:
        event.count += ctx.time - event.prev
        event.prev = ctx.time


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


def happened(kind: Software, *contexts: Context | None) -> None:
    """perf_sw_event_sched: one more of `kind` in these contexts, where it is the kernel that does it."""
    for ctx in contexts:
        if ctx is None or not ctx.swevents:
            continue
        for event in ctx.events:
            hw = event.hw
            if hw.software and hw.config == kind and not event.attr.exclude_kernel:
                event.count += event.state == ACTIVE and not event.stopped  # perf_exclude_event
                event.truth += event.wanted


def truth(event: PerfEvent) -> int:
    """What really happened while it was enabled, inherited events aside."""
    if event.hw.config not in CLOCKS:
        return event.truth
    return event.enabled + (event.ctx.time_of(event) if event.timed and event.ctx is not None else 0)
