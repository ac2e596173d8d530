"""read(2) of an event, alone or with its group (PERF_FORMAT_GROUP): perf_read_one, perf_read_group."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

from services.cpu import Cpu
from services.linux_perf import notes, software
from services.linux_perf.cpu_context import CpuContext
from services.linux_perf.driver import read_of
from services.linux_perf.event import ACTIVE, INACTIVE, PerfEvent
from services.linux_perf.lifecycle import is_here, update
from services.linux_perf.schedule import collect, update_time, wait


@dataclass(frozen=True, slots=True)
class Reading:
    """An event's values since it was opened, inherited events included: occurrences, and times in ns.

    `truth` is what really happened, where the event's filters admit it, while it was open and enabled; `held`, of that,
    what happened while it had a counter, whether that was running or not; `withheld`, of that, while it was throttled.
    """

    count: int
    truth: int
    held: int
    withheld: int
    enabled: int
    running: int


async def read_one(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> Reading:
    """__perf_event_read_value."""
    (reading,) = await _read(cc, cpu, event, ())
    return reading


async def read_group(cc: CpuContext, cpu: Cpu, leader: PerfEvent) -> list[Reading]:
    """perf_read_group: all of a group with one call, one after the other without interruption, the leader first.

    They have the leader's times.
    """
    return await _read(cc, cpu, leader, leader.siblings)


async def _read(cc: CpuContext, cpu: Cpu, leader: PerfEvent, siblings: Sequence[PerfEvent]) -> list[Reading]:
    """Of an inherited event or group each is read by itself: it may be on another CPU."""
    cpu.burst.extend(cc.pmu.read)
    sums = [[one.child_count, one.child_truth, one.child_held, one.child_withheld] for one in (leader, *siblings)]
    for one in (leader, *leader.children):
        group = (one, *one.siblings) if siblings else (one,)
        happened = await _refresh(cc, cpu, group)
        for event, passed, of in zip(group, happened, sums, strict=True):
            if event.hw.software:
                found = event.count, software.truth(event), event.count, 0
            else:
                truth = event.truth + (passed if event.truth_open else 0)
                held = event.held + (passed if event.state == ACTIVE else 0)
                found = event.count, truth, held, event.withheld + (passed if event.withheld_open else 0)
            of[:] = map(operator.add, of, found)
    enabled, running = leader.times()
    return [Reading(of[0], of[1], of[2], of[3], enabled, running) for of in sums]


async def _refresh(cc: CpuContext, cpu: Cpu, group: Sequence[PerfEvent]) -> list[int]:
    """__perf_event_read: one counter read of each that is on this CPU's PMU; what the clock of each one's truth shows.

    The Arm PMU has no transaction for it (pmu->start_txn): the counters are read in turn.
    """
    leader, ctx = group[0], group[0].ctx
    nothing: list[int | None] = [None] * len(group)
    counters, clocks = [*nothing], [*nothing]
    if ctx is not None:
        here = is_here(cc, ctx)
        if here:
            update_time(cc, cpu, ctx)
        for index, event in enumerate(group):
            hw, active = event.hw, here and event.state == ACTIVE
            if event.state == INACTIVE:  # perf_event_update_time
                event.tstamp = ctx.time_of(event)
            if active and leader.state == ACTIVE:
                if hw.software:
                    software.update(event, ctx.time)
                else:
                    counters[index] = read_of(cpu.burst, event)
            if hw.scope and (active or event.truth_open):
                clocks[index] = cpu.burst.truth(hw.config, hw.scope)
    if counters == clocks == nothing:
        await collect(cc, cpu)
        _note(cc, cpu, group)
        return [0] * len(group)
    values = await wait(cc, cpu)
    for event, slot in zip(group, counters, strict=True):
        if slot is not None:
            update(event, slot, values)
    _note(cc, cpu, group)
    return [0 if slot is None else values[slot] for slot in clocks]


def _note(cc: CpuContext, cpu: Cpu, group: Sequence[PerfEvent]) -> None:
    if cc.config.observed:
        for event in group:
            if not event.hw.software:
                notes.read(cpu.burst, event)
