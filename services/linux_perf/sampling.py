"""Samples, of hardware and software events alike: the record, what it reads, and how a frequency becomes a period."""

from __future__ import annotations

from services.cpu import Cpu
from services.durations import NS_PER_S
from services.linux_perf import software
from services.linux_perf.cpu_context import CpuContext
from services.linux_perf.driver import read_of
from services.linux_perf.event import ACTIVE, PerfEvent
from services.linux_perf.lifecycle import update
from services.linux_perf.schedule import now_ns, wait

VALUE_BYTES = 24  # of one event's count in a sample: the count, the event's id and its lost samples


def sample(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> None:
    """perf_event_output: one record; the reader of the buffer is woken each time the watermark is crossed."""
    opened = event.parent or event
    rb = opened.rb
    assert rb is not None
    size = cc.config.record_bytes
    if event.attr.sample_read:
        members = 1 + len(event.leader.siblings)
        size += VALUE_BYTES * members + (8 if members > 1 else 0)
    wakes = rb.output(size)
    if wakes is None:
        opened.lost += 1
        opened.lost_count += event.last_period
        return
    event.samples += 1
    cpu.burst.extend(cc.pmu.sample)
    if wakes and rb not in cc.wakeups:
        cc.wakeups.append(rb)


async def read_group(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> None:
    """perf_outputread_group: the sample has the counts of the whole group, each read for it.

    perf report takes what each has grown by since the sample before (deliver_sample_value): in all, the last one.
    """
    leader = event.leader
    for one in (leader, *leader.siblings):
        if one is not event and one.state == ACTIVE:
            if one.hw.software:
                await wait(cc, cpu)  # after what was read before it
                software.read(cc, cpu, one)
            else:
                slot = read_of(cpu.burst, one)
                values = cpu.execute()
                update(one, slot, values if isinstance(values, list) else await values)
        one.sampled = one.count


def raise_wakeup(cc: CpuContext, cpu: Cpu) -> None:
    """irq_work_queue, where readers are to be woken: one IPI to this CPU, up to `irq_work`."""
    if cc.wakeups and not cc.wakeup_raised:
        cc.wakeup_raised = True
        cpu.burst.ipi(cc.config.cpu)


def period_over(cc: CpuContext, cpu: Cpu, event: PerfEvent) -> bool:
    """__perf_event_account_interrupt of a frequency event: its period follows from the time since its last overflow.

    Is the present one so long that it is to end now?
    """
    now = now_ns(cc, cpu)
    elapsed = now - event.freq_time_stamp
    event.freq_time_stamp = now
    return 0 < elapsed < 2 * cc.shared.tick_ns and adjust_period(event, elapsed, event.last_period)


def adjust_period(event: PerfEvent, ns: int, count: int) -> bool:
    """perfadjust_period: `count` occurrences took `ns`; is the present period so long that it is to end now?"""
    event.sample_period = adapted_period(event.sample_period, event.attr.frequency, ns, count)
    return event.period_left > 8 * event.sample_period


def adapted_period(period: int, frequency: int, ns: int, count: int) -> int:
    """perf_calculate_period and the low-pass filter of perfadjust_period: an eighth of the way to the ideal period.

    `count` occurrences took `ns`; `frequency` samples per second are wanted.
    """
    gap = count * NS_PER_S // (ns * frequency) - period
    step = (gap + 7) // 8 if gap >= 0 else -((7 - gap) // 8)
    return period + step or 1
