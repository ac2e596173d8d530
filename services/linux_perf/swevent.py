"""Software events as they happen: perf_sw_event_sched and, of clocks that sample, perf_swevent_hrtimer."""

from __future__ import annotations

from services.cpu import Cpu
from services.events import Software
from services.linux_perf import software
from services.linux_perf.cpu_context import CpuContext
from services.linux_perf.event import ACTIVE, Context, PerfEvent
from services.linux_perf.sampling import period_over, raise_wakeup, read_group, sample
from services.linux_perf.schedule import collect, now_ns
from services.linux_perf.throttle import account_interrupt, throttle_group, throttles


async def happened(cc: CpuContext, cpu: Cpu, kind: Software, *contexts: Context | None) -> None:
    """perf_sw_event_sched: one more of `kind` in these contexts, where it is the kernel that does it."""
    for ctx in contexts:
        if ctx is None or not ctx.swevents:
            continue
        for event in ctx.events:
            hw = event.hw
            if hw.software and hw.config == kind and not event.attr.exclude_kernel:  # perf_exclude_event
                event.truth += event.wanted
                if event.state == ACTIVE and not event.stopped:
                    event.count += 1
                    if event.sampling:
                        await _counted(cc, cpu, event)


async def _counted(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> None:
    """perf_swevent_event, perf_swevent_overflow. It is one overflow at a time, and that throttles no event."""
    if event.sample_period != 1 or event.attr.frequency:
        event.period_left += 1
        if event.period_left < 0:
            return
        software.set_period(event)
    account_interrupt(cc, event)
    if event.attr.frequency:
        period_over(cc, cpu, event)
    await collect(cc, cpu)  # its group's counters are read at once
    await _overflow(cc, cpu, event)


async def hrtimers_expired(cc: CpuContext, cpu: Cpu, *, user: bool) -> None:
    """perf_swevent_hrtimer of each event whose hrtimer has expired, the earliest first. `user`: they have interrupted
    this kernel's own user space."""
    now = now_ns(cc, cpu)
    due = sorted((event for event in cc.hrtimers if event.expires <= now), key=lambda event: event.expires)
    for event in due:
        if event not in cc.hrtimers:  # throttled with its group
            continue
        software.read(cc, cpu, event)
        throttled = False
        attr = event.attr
        excluded = event.stopped or (attr.exclude_user if user else attr.exclude_kernel)  # perf_exclude_event
        if not excluded and not (attr.exclude_idle and cc.current is None):
            throttled = throttles(cc, event)
            if throttled and cc.pmu.group_throttle:
                await throttle_group(cc, cpu, event)
            await _overflow(cc, cpu, event)
        period = max(software.MIN_PERIOD, event.sample_period)
        behind = max(0, now_ns(cc, cpu) - event.expires)
        event.expires += (behind // period + 1) * period  # hrtimer_forward_now
        if throttled:
            software.cancel_hrtimer(cc, cpu.burst, event)
    software.program_hrtimers(cc, cpu.burst)


async def _overflow(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> None:
    """What __perf_event_overflow leaves to do: the record, and its reader's wake-up by irq_work."""
    if event.attr.sample_read:
        await read_group(cc, cpu, event)
    sample(cc, cpu, event)
    raise_wakeup(cc, cpu)
