"""A guest has the whole PMU: perf_load_guest_context and perf_put_guest_context (PMU_CAP_MEDIATED_VPMU, Linux 7.0).

No event is then on the PMU that does not exclude guests, or perf_event_open has refused it; those that do stand still,
and so does their clock (`Context.guest_time`).
"""

from __future__ import annotations

from services._pmu import Burst
from services.costs import Cost
from services.cpu import Cpu
from services.linux_perf.cpu_context import CpuContext
from services.linux_perf.event import Context
from services.linux_perf.schedule import on_pmu, post_ins, post_off, post_on, post_outs, update_time, wait


async def load(cc: CpuContext, cpu: Cpu) -> None:
    """Events off: ctx_sched_out with EVENT_GUEST, after which a context is as active as before."""
    burst, cost = cpu.burst, cc.shared.costs[Cost.PERF_RESCHED]
    burst.charge(Cost.PERF_RESCHED, cost - cost // 2)
    contexts = _contexts(cc)
    touches = _disable(cc, burst, contexts)
    for ctx in reversed(contexts):
        update_time(cc, cpu, ctx)
        post_outs(cc, burst, ctx, ctx.pinned_active)
        post_outs(cc, burst, ctx, ctx.flexible_active)
        ctx.rotate_necessary = False
    cc.guest_loaded = True
    if cc.pending_outs:
        await wait(cc, cpu)
    if touches:
        post_on(cc, cpu.burst)


def put(cc: CpuContext, cpu: Cpu) -> None:
    """And on again: perf_event_sched_in with EVENT_GUEST."""
    burst = cpu.burst
    burst.charge(Cost.PERF_RESCHED, cc.shared.costs[Cost.PERF_RESCHED] // 2)
    contexts = _contexts(cc)
    touches = _disable(cc, burst, contexts)
    for ctx in contexts:
        update_time(cc, cpu, ctx)
    cc.guest_loaded = False
    for ctx in contexts:
        if ctx.pinned:
            post_ins(cc, cpu, ctx, ctx.pinned, ctx.pinned_active)
    for ctx in contexts:
        if ctx.flexible:
            post_ins(cc, cpu, ctx, ctx.flexible, ctx.flexible_active)
    if touches:
        post_on(cc, burst)


def set_loaded(cc: CpuContext, cpu: Cpu, loaded: bool) -> None:
    """From now on the contexts' time is a guest's, too, or is no more."""
    for ctx in _contexts(cc):
        update_time(cc, cpu, ctx)
    cc.guest_loaded = loaded


def _contexts(cc: CpuContext) -> list[Context]:
    """Those with events, the CPU's own first."""
    return [ctx for ctx in (cc.ctx, cc.task_ctx) if ctx is not None and ctx.events]


def _disable(cc: CpuContext, burst: Burst, contexts: list[Context]) -> bool:
    """perf_ctx_disable of each."""
    touches = any(on_pmu(cc, ctx) for ctx in contexts)
    if touches:
        post_off(cc, burst)
    return touches
