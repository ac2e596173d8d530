"""The scheduler's hooks: perf_event_task_sched_in and perf_event_task_sched_out."""

from __future__ import annotations

from services.cpu import Cpu
from services.linux_perf.cpu_context import CpuContext
from services.linux_perf.event import ALL, FLEXIBLE, Context
from services.linux_perf.schedule import (
    collect,
    ctx_out,
    on_pmu,
    post_off,
    post_on,
    sched_in,
    truth_begins,
    truth_ends,
    wait,
)


async def task_in(cc: CpuContext, cpu: Cpu, task: int) -> None:
    """perf_event_task_sched_in."""
    cc.current = task
    ctx = cc.shared.tasks.get(task)
    if ctx is None:
        return
    burst = cpu.burst
    if cc.task_ctx is ctx:  # swapped in by task_out
        if on_pmu(cc, ctx):
            post_off(cc, burst)
            post_on(cc, burst)
        return
    if not ctx.events:
        return
    await collect(cc, cpu)  # what is pending may be this context's
    burst = cpu.burst
    for event in ctx.events:
        truth_begins(cc, burst, event)
    of_cpu = bool(ctx.pinned and cc.ctx.events)
    touches = of_cpu or on_pmu(cc, ctx)
    if touches:
        post_off(cc, burst)
    if of_cpu:
        ctx_out(cc, cpu, cc.ctx, FLEXIBLE)
        if cc.pending_outs:
            await wait(cc, cpu)
    sched_in(cc, cpu, ctx)
    if touches:
        post_on(cc, cpu.burst)


async def task_out(cc: CpuContext, cpu: Cpu, task: int, following: int | None = None) -> None:
    """perf_event_task_sched_out, with the task that runs next. Counts are there after `settle`."""
    cc.current = None
    ctx = cc.task_ctx
    if ctx is None or ctx.task != task:
        return
    burst = cpu.burst
    touches = on_pmu(cc, ctx)
    if touches:
        post_off(cc, burst)
    next_ctx = cc.shared.tasks.get(following) if following is not None else None
    if next_ctx is not None and ctx.equivalent(next_ctx):
        _swap(cc.shared.tasks, ctx, next_ctx)
    else:
        ctx_out(cc, cpu, ctx, ALL)
    if touches:
        post_on(cc, burst)
    if cc.task_ctx is None:
        for event in ctx.events:
            truth_ends(cc, burst, event)


def _swap(tasks: dict[int, Context], running: Context, following: Context) -> None:
    """The next task takes over the context that is on the PMU: no event is touched."""
    assert running.task is not None
    assert following.task is not None
    running.task, following.task = following.task, running.task
    tasks[running.task] = running
    tasks[following.task] = following
