"""The scheduler's hooks: perf_event_task_sched_in and perf_event_task_sched_out."""

from __future__ import annotations

from services.cpu import Cpu
from services.events import Software
from services.linux_perf import bperf
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
from services.linux_perf.swevent import happened


async def task_in(cc: CpuContext, cpu: Cpu, task: int, *, from_idle: bool = False) -> None:
    """perf_event_task_sched_in, and of the idle task that was there before, `from_idle`, the sched_out."""
    shared = cc.shared
    if shared.leaders:
        if from_idle:
            await bperf.on_switch(cc, cpu, None)
        bperf.switched_in(cc, task)
    cc.current = task
    if from_idle:
        await happened(cc, cpu, Software.CONTEXT_SWITCHES, cc.ctx)
    migrated = shared.last_cpu.get(task, cc.config.cpu) != cc.config.cpu
    shared.last_cpu[task] = cc.config.cpu
    ctx = shared.tasks.get(task)
    if ctx is not None:
        await _context_in(cc, cpu, ctx)
    if migrated:
        await happened(cc, cpu, Software.CPU_MIGRATIONS, cc.ctx, ctx)


async def _context_in(cc: CpuContext, cpu: Cpu, ctx: Context) -> None:
    """perf_event_context_sched_in."""
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
    flips = bool(cc.ctx.events) and (bool(ctx.pinned) or any(leader.attr.pinned for leader in ctx.software))
    touches = on_pmu(cc, ctx) or (flips and on_pmu(cc, cc.ctx))
    if touches:
        post_off(cc, burst)
    if flips:
        ctx_out(cc, cpu, cc.ctx, FLEXIBLE)
        if cc.pending_outs:
            await wait(cc, cpu)
    sched_in(cc, cpu, ctx)
    if touches:
        post_on(cc, cpu.burst)


async def task_out(cc: CpuContext, cpu: Cpu, task: int, following: int | None = None) -> None:
    """perf_event_task_sched_out, with the task that runs next. Counts are there after `settle`."""
    if cc.shared.leaders:
        await bperf.on_switch(cc, cpu, task)
    cc.current = None
    ctx = cc.task_ctx
    await happened(cc, cpu, Software.CONTEXT_SWITCHES, cc.ctx, ctx)
    if ctx is None or ctx.task != task:
        return
    burst = cpu.burst
    touches = on_pmu(cc, ctx)
    if touches:
        post_off(cc, burst)
    next_ctx = cc.shared.tasks.get(following) if following is not None else None
    if next_ctx is not None and ctx.equivalent(next_ctx) and not (ctx.no_switch_fast or next_ctx.no_switch_fast):
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
