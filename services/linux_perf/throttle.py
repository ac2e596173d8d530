"""Throttling: what overflows too often stands still until the next tick; and pmu.stop and pmu.start, by which it does.

Up to Linux 6.15 that is the event alone: the driver disables it after its overflow. Since 6.16 it is its whole group,
stopped before that (perf_event_throttle_group), and the driver has no part in it.
"""

from __future__ import annotations

from services.cpu import Cpu
from services.linux_perf import software
from services.linux_perf.cpu_context import CpuContext
from services.linux_perf.driver import REGISTERS
from services.linux_perf.event import ACTIVE, THROTTLED, PerfEvent
from services.linux_perf.lifecycle import truth_now, update


async def stop(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> None:
    """armpmu_stop of an event that is started again in the same handler, or has been stopped by its group."""
    if event.stopped:
        return
    slot = cpu.burst.extend(cc.pmu.stop_of(event))
    values = cpu.execute()
    update(event, slot, values if isinstance(values, list) else await values)


def start(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> None:
    """armpmu_start."""
    event.stopped = False
    set_period(cc, cpu, event)
    cpu.burst.extend(event.hw.restarts[event.idx])


def set_period(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> bool:
    """armpmu_event_set_period; whether a new period has begun."""
    left, hw, renewed = event.period_left, event.hw, False
    if left <= 0 or left <= -event.sample_period:
        renewed = event.renew_period()
        left = event.period_left
    if left > hw.half or left < 0:  # compared as u64
        left = hw.half
    event.prev = -left
    if hw.chained:
        cc.pmu.write(cpu.burst, event, left)
    else:
        idx = event.idx
        cpu.burst.msr(REGISTERS[idx], -left & cc.pmu.write_masks[idx])
    return renewed


def account_interrupt(cc: CpuContext, event: PerfEvent) -> None:
    """The first part of __perf_event_account_interrupt: the event's overflows since the last tick."""
    if event.interrupts_seq != cc.throttled_seq:
        event.interrupts_seq = cc.throttled_seq
        event.interrupts = 1
    else:
        event.interrupts += 1


def throttles(cc: CpuContext, event: PerfEvent) -> bool:
    """__perf_event_account_interrupt, of an overflow of perf_event_overflow: is the event to be throttled?"""
    account_interrupt(cc, event)
    if event.interrupts < cc.shared.limits.max_samples_per_tick:
        return False
    cc.throttled_count += 1
    event.interrupts = THROTTLED
    event.restarted = False
    event.throttles += 1
    cc.pmu.throttled = True
    return True


async def throttle_group(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> None:
    """perf_event_throttle_group (Linux 6.16): the event and all others of its group stop.

    A clock among them is not brought up to date (cpu_clock_event_stop without PERF_EF_UPDATE).
    """
    leader = event.leader
    for one in (leader, *leader.siblings):
        if one.state == ACTIVE:
            one.interrupts = THROTTLED
            if one.hw.software:
                software.stop(cc, cpu.burst, one)
                continue
            await stop(cc, cpu, one)
            cc.pmu.stopped = True
            await withheld_begins(cc, cpu, one)
            one.stopped = True


async def unthrottle(cc: CpuContext, cpu: Cpu, leader: PerfEvent) -> None:
    """What perf_adjust_freq_unthr_events does of it, at the tick after: perf_event_unthrottle_group since 6.16.

    A leader that goes by frequency is started when it has been adjusted.
    """
    if not cc.pmu.group_throttle:
        leader.interrupts = 0
        await withheld_ends(cc, cpu, leader)
        if leader.hw.software:
            software.restart(cc, cpu, leader)
        elif not leader.attr.frequency:
            start(cc, cpu, leader)
        return
    for one in (leader, *leader.siblings):
        if one.state == ACTIVE:
            one.interrupts = 0
            await withheld_ends(cc, cpu, one)
            if one.hw.software:
                software.restart(cc, cpu, one)
            elif one is not leader or not leader.attr.frequency:
                start(cc, cpu, one)


async def withheld_begins(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> None:
    """What happens from here on is withheld from the event, until it is started again or goes out."""
    if event.hw.scope and not event.withheld_open:
        event.withheld_open = True
        event.withheld -= await truth_now(cc, cpu, event)


async def withheld_ends(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> None:
    if event.withheld_open:
        event.withheld_open = False
        event.withheld += await truth_now(cc, cpu, event)
