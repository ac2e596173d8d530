"""Inherited events: what fork and exit do."""

from __future__ import annotations

from services.cpu import Cpu
from services.linux_perf import notes, software
from services.linux_perf.cpu_context import CpuContext
from services.linux_perf.event import ALL, INACTIVE, OFF, Context, PerfEvent
from services.linux_perf.schedule import (
    add_to_context,
    collect,
    ctx_out,
    detach_from_group,
    leave_enabled,
    on_pmu,
    post_off,
    post_on,
    remove_from_context,
    truth_ends,
)
from services.linux_perf.shared import Shared


def fork(cc: CpuContext, cpu: Cpu, parent: int, child: int) -> None:
    """perf_event_init_task: the child inherits those of its parent's events that say so."""
    shared = cc.shared
    for follower in shared.followers:  # by the thread group
        if parent in follower.tasks:
            follower.tasks.append(child)
    ctx = shared.tasks.get(parent)
    if ctx is None:
        return
    child_ctx = shared.new_context(child)
    everything = True
    for leader in (*ctx.pinned, *ctx.flexible, *ctx.software):
        if not leader.attr.inherit:
            everything = False
            continue
        new_leader = _inherit(shared, leader, None, child_ctx)
        for sibling in leader.siblings:
            _inherit(shared, sibling, new_leader, child_ctx)
    if cc.config.observed:
        for event in child_ctx.events:
            notes.opened(cpu.burst, event)
    if child_ctx.events:
        shared.tasks[child] = child_ctx
        if everything:
            child_ctx.cloned_from(ctx)


def _inherit(shared: Shared, parent: PerfEvent, leader: PerfEvent | None, ctx: Context) -> PerfEvent:
    """inherit_event: what a new event takes over from the one that it is inherited from."""
    event = shared.new_event(parent.hw, parent.attr.period, leader)
    origin = parent.parent or parent
    event.parent = origin
    origin.children.append(event)
    event.state = INACTIVE if parent.state >= INACTIVE else OFF
    event.wanted = parent.wanted
    event.on_exec = origin.on_exec
    event.sample_period = event.last_period = event.period_left = origin.sample_period
    add_to_context(event, ctx)
    return event


async def task_exit(cc: CpuContext, cpu: Cpu, task: int) -> None:
    """perf_event_exit_task: the task's events are off for good; their counts remain until they are released."""
    ctx = cc.shared.tasks.pop(task, None)
    if ctx is None:
        return
    if ctx is cc.task_ctx:
        touches = on_pmu(cc, ctx)
        if touches:
            post_off(cc, cpu.burst)
        ctx_out(cc, cpu, ctx, ALL)
        if touches:
            post_on(cc, cpu.burst)
    for event in ctx.events:
        leave_enabled(event, ctx)
        event.state = OFF
        event.wanted = False
        truth_ends(cc, cpu.burst, event)
        if event.parent is not None:
            detach_from_group(event, ctx)
    await collect(cc, cpu)
    for event in list(ctx.events):
        if event.parent is not None:
            _exit_child(cc.shared, event, event.parent)
            if cc.config.observed:
                notes.closed(cpu.burst, event)
            remove_from_context(cc, event, ctx)


def _exit_child(shared: Shared, event: PerfEvent, parent: PerfEvent) -> None:
    """sync_child_event: an inherited event adds its result to its parent's and is gone."""
    enabled, running = event.times()
    parent.child_count += event.count
    parent.child_enabled += enabled
    parent.child_running += running
    parent.child_samples += event.samples
    parent.child_sampled += event.sampled
    parent.child_truth += software.truth(event) if event.hw.software else event.truth
    parent.child_held += event.held
    parent.child_missed += event.overflows_missed
    parent.child_throttles += event.throttles
    parent.child_withheld += event.withheld
    parent.children.remove(event)
    del shared.events[event.id]
