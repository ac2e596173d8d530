"""The life of an event: what perf_event_open, ioctl, read and close do. Functions over a `CpuContext`.

`task` is a task's id, None: the CPU's own context.
"""

from __future__ import annotations

from services._pmu import Burst
from services.cpu import Cpu
from services.linux_perf import notes
from services.linux_perf.attr import EventAttr
from services.linux_perf.cpu_context import CpuContext
from services.linux_perf.driver import Driver, read_of
from services.linux_perf.event import ACTIVE, EVERY_PMU, INACTIVE, OFF, Context, PerfEvent
from services.linux_perf.pmu import admit
from services.linux_perf.ring_buffer import RECORDS_PAGE, RingBuffer
from services.linux_perf.schedule import (
    add_to_context,
    collect,
    enter_enabled,
    groups_of,
    leave_enabled,
    post_off,
    post_on,
    post_out,
    remove_from_context,
    resched,
    truth_begins,
    truth_ends,
    update_time,
    wait,
)
from services.registers import CYCLE_COUNTER


def open_event(
    cc: CpuContext,
    attr: EventAttr,
    leader: PerfEvent | None = None,
    output: RingBuffer | None = None,
    *,
    of_task: bool = True,
    pmu: Driver | None = None,
) -> PerfEvent:
    """perf_event_alloc: the event exists; `install` makes it known to a context. Raises OpenError.

    Its samples go to `output` (PERF_EVENT_IOC_SET_OUTPUT), or to a buffer of its own. `pmu`: if not this CPU's.
    """
    pmu = pmu or cc.pmu
    members = () if leader is None else (leader, *leader.siblings)
    attr = admit(pmu, attr, [(one.hw, one.state, one.attr) for one in members], of_task=of_task)
    event = cc.shared.new_event(pmu.hw_event(attr), attr.period, leader)
    if event.sampling:
        event.rb = output or cc.shared.new_buffer(2 * cc.config.watermark_bytes)
    return event


def new_buffer(cc: CpuContext, pages: int, reader: int) -> RingBuffer:
    """perf_mmap of so many pages, by the perf process with that number."""
    return cc.shared.new_buffer(pages * RECORDS_PAGE, reader)


async def install(cc: CpuContext, cpu: Cpu, event: PerfEvent, task: int | None) -> None:
    """perf_install_in_context: reschedules unless the event is off (a leader in ERROR is not) and not the first."""
    shared = cc.shared
    if task is None:
        ctx = cc.ctx
    else:
        found = shared.tasks.get(task)
        if found is None:
            found = shared.tasks[task] = shared.new_context(task)
        ctx = found
    here = task is None or task == cc.current
    leader = event.leader
    off = (leader.state if leader.state <= OFF else event.state) == OFF  # __perf_effective_state
    reschedules = here and not (off and ctx.events)
    if reschedules:
        update_time(cc, cpu, ctx)
    add_to_context(event, ctx)
    if cc.config.observed:
        notes.opened(cpu.burst, event)
    if here:
        truth_begins(cc, cpu.burst, event)
        if reschedules:
            await resched(cc, cpu, cc.task_ctx if task is None else ctx, event.group_type(), groups_of(cc, event), ctx)


async def enable(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> None:
    """perf_event_enable: reschedules the context; an event in ERROR gets another chance."""
    cpu.burst.extend(cc.pmu.call)
    ctx = event.ctx
    if ctx is None or event.state >= INACTIVE:
        return
    event.wanted = event.hw.reported
    here = is_here(cc, ctx)
    if here:
        truth_begins(cc, cpu.burst, event)
        update_time(cc, cpu, ctx)
    enter_enabled(event, ctx)
    if cc.config.observed and event.hw.reported:
        notes.enabled(cpu.burst, event)
    if here and (event.leader is event or event.leader.state == ACTIVE):
        await resched(cc, cpu, cc.task_ctx, event.group_type(), groups_of(cc, event), ctx)


def disable(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> None:
    """perf_event_disable: the event's or group's bracket, no reschedule. The count is there after `settle`.

    If its task does not run the bracket is around nothing, on the CPU of whoever asks (event_function_call).
    """
    burst = cpu.burst
    burst.extend(cc.pmu.call)
    ctx = event.ctx
    if ctx is None:
        return
    if event.state >= INACTIVE:
        here = is_here(cc, ctx)
        touches = event.pmu == cc.config.arm_pmu
        if touches:
            post_off(cc, burst)
        if here:
            update_time(cc, cpu, ctx)
            _group_out(cc, burst, ctx, event)
        leave_enabled(event, ctx)
        event.state = OFF
        if touches:
            post_on(cc, burst)
        if cc.config.observed and event.hw.reported:
            notes.disabled(burst, event)
    event.wanted = False
    truth_ends(cc, burst, event)


async def enable_on_exec(cc: CpuContext, cpu: Cpu) -> None:
    """perf_event_enable_on_exec of the current task: all its events that ask for it, in one reschedule."""
    ctx = cc.task_ctx
    if ctx is None or ctx.task != cc.current:
        return
    which = 0
    update_time(cc, cpu, ctx)
    enabled = False
    for event in ctx.events:
        which |= event.group_type()
        if event.on_exec:
            event.on_exec = False
            if event.state < INACTIVE:
                enabled = True
                event.wanted = True
                truth_begins(cc, cpu.burst, event)
                enter_enabled(event, ctx)
                if cc.config.observed:
                    notes.enabled(cpu.burst, event)
    if enabled:
        ctx.unclone()
        await resched(cc, cpu, ctx, which, EVERY_PMU, ctx)


async def read_counter(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> None:
    """armpmu_read."""
    slot = read_of(cpu.burst, event)
    update(event, slot, await wait(cc, cpu))


def update(event: PerfEvent, slot: int, values: list[int]) -> None:
    """armpmu_event_update with what was read of its counter, or pair of counters, into `slot`."""
    raw = values[slot]
    if event.hw.chained and event.idx < CYCLE_COUNTER:
        raw = raw << 32 | values[slot + 1]
    delta = (raw - event.prev) & event.hw.mask
    event.count += delta
    event.period_left -= delta
    event.prev = raw


async def truth_now(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> int:
    """What has really happened so far where the event's filters admit it, open or not."""
    slot = cpu.burst.truth(event.hw.config, event.hw.scope)
    return (await wait(cc, cpu))[slot]


async def release(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> None:
    """perf_event_release_kernel, inherited events included; the siblings of a leader become events of their own."""
    for one in (event, *event.children):
        _detach(cc, cpu, one)
        if cc.config.observed:
            notes.closed(cpu.burst, one)
        del cc.shared.events[one.id]
        cc.starved.pop(one.id, None)
    event.children = []
    await collect(cc, cpu)


def _detach(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> None:
    """perf_remove_from_context: a bracket of its own for an event that is on the PMU."""
    burst, ctx = cpu.burst, event.ctx
    if ctx is None:
        return
    if is_here(cc, ctx):
        update_time(cc, cpu, ctx)
    if event.state == ACTIVE:
        of_pmu = not event.hw.software
        if of_pmu:
            post_off(cc, burst)
        post_out(cc, burst, ctx, event)
        if of_pmu:
            post_on(cc, burst)
    leave_enabled(event, ctx)
    event.state = OFF
    if cc.config.observed:
        notes.disabled(burst, event)
    event.wanted = False
    truth_ends(cc, burst, event)
    remove_from_context(cc, event, ctx)


async def exit_cpu(cc: CpuContext, cpu: Cpu) -> None:
    """perf_event_exit_cpu: the CPU's events are off for good. They stay open, and have counted what they have.

    None comes back when the CPU does.
    """
    for event in list(cc.ctx.events):
        _detach(cc, cpu, event)
    cc.mux_active = False
    await collect(cc, cpu)


def is_here(cc: CpuContext, ctx: Context) -> bool:
    """Does it concern this CPU: is it the CPU's own context, or the one of the task that runs?"""
    return ctx is cc.ctx or ctx is cc.task_ctx


def _group_out(cc: CpuContext, burst: Burst, ctx: Context, event: PerfEvent) -> None:
    """group_sched_out of a leader, event_sched_out of a sibling."""
    if event.state != ACTIVE:
        return
    post_out(cc, burst, ctx, event)
    if event.leader is event:
        ctx.groups(event)[1].remove(event)
        for sibling in event.siblings:
            post_out(cc, burst, ctx, sibling)
