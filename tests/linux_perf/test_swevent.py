"""Sampling by software events: clocks by an hrtimer, the others as they happen (kernel/events/core.c, Linux 6.12)."""

from __future__ import annotations

from typing import Any

import pytest

from services.cpu import NEVER, Timer
from services.events import Software
from services.linux_perf import EventAttr, PerfEvent, State
from tests.linux_perf.bench import COSTS, INSTRUCTIONS, Kernel

PERIOD = 1_000_000  # ns, which are cycles here
OTHER = 99  # a task without events


def due(kernel: Kernel) -> int:
    return kernel.bench.timers.get(Timer.SWEVENT, NEVER)


async def expire(kernel: Kernel, *, user: bool = True) -> None:
    """The program runs up to the next expiry, which is served; the IPI that it may raise is not."""
    kernel.bench.work(max(0, due(kernel) - kernel.cpu.now))
    await kernel.perf.hrtimers_expired(kernel.cpu, user=user)
    await kernel.done()


async def clock(kernel: Kernel, kind: Software = Software.TASK_CLOCK, **attributes: Any) -> PerfEvent:
    return await kernel.open(kind, software=True, **attributes)


@pytest.mark.parametrize("kind", [Software.CPU_CLOCK, Software.TASK_CLOCK])
@pytest.mark.parametrize("attributes", [{"period": PERIOD}, {"frequency": 1000}])
async def test_a_clock_samples_once_a_period_and_a_frequency_is_one(kind: Software, attributes: dict[str, int]) -> None:
    """perf_swevent_init_hrtimer: the tick finds nothing to adjust."""
    kernel = await Kernel.boot()
    event = await clock(kernel, kind, **attributes)
    began = kernel.cpu.now
    for sample in range(1, 10):
        await expire(kernel)
        await kernel.tick()
        assert event.samples == sample
        assert kernel.cpu.now - began == pytest.approx(sample * PERIOD, abs=100)
    assert event.sample_period == event.last_period == PERIOD
    assert kernel.accesses() == []


async def test_an_hrtimer_takes_ten_microseconds_at_least() -> None:
    kernel = await Kernel.boot()
    event = await clock(kernel, period=100)
    await expire(kernel)  # the first is by period_left, 100 ns
    began = due(kernel)
    await expire(kernel)
    assert event.samples == 2
    assert due(kernel) - began == 10_000


async def test_what_is_late_is_sampled_once() -> None:
    """hrtimer_forward_now."""
    kernel = await Kernel.boot()
    event = await clock(kernel, period=PERIOD)
    first = due(kernel)
    kernel.bench.work(5 * PERIOD)
    await expire(kernel)
    assert event.samples == 1
    assert due(kernel) == first + 5 * PERIOD


async def test_the_rest_of_a_period_is_kept_while_the_task_is_out() -> None:
    """perf_swevent_cancel_hrtimer, perf_swevent_start_hrtimer."""
    kernel = await Kernel.boot()
    event = await clock(kernel, period=PERIOD)
    kernel.bench.work(PERIOD // 4)
    left = due(kernel) - kernel.cpu.now
    await kernel.perf.task_out(kernel.cpu, Kernel.TASK)
    await kernel.done()
    assert due(kernel) == NEVER
    kernel.bench.work(3 * PERIOD)
    await kernel.perf.task_in(kernel.cpu, Kernel.TASK)
    await kernel.done()
    assert due(kernel) - kernel.cpu.now == pytest.approx(left, abs=100)
    await expire(kernel)
    assert event.samples == 1


@pytest.mark.parametrize(
    ("excluded", "user", "samples"),
    [("exclude_user", True, 0), ("exclude_user", False, 1), ("exclude_kernel", True, 1), ("exclude_kernel", False, 0)],
)
async def test_a_sample_is_of_the_level_that_is_interrupted(excluded: str, user: bool, samples: int) -> None:
    """perf_exclude_event: the clock itself runs on."""
    kernel = await Kernel.boot()
    event = await clock(kernel, Software.TASK_CLOCK, period=PERIOD, **{excluded: True})
    await expire(kernel, user=user)
    assert event.samples == samples
    assert event.count == pytest.approx(PERIOD, abs=100)
    assert due(kernel) > kernel.cpu.now


async def test_idle_time_is_sampled_unless_it_is_excluded() -> None:
    kernel = await Kernel.boot()
    every = await clock(kernel, period=PERIOD, task=None)
    busy = await clock(kernel, period=PERIOD, task=None, exclude_idle=True)
    await kernel.perf.task_out(kernel.cpu, Kernel.TASK)
    await kernel.done()
    await expire(kernel, user=False)
    assert (every.samples, busy.samples) == (1, 0)
    await kernel.perf.task_in(kernel.cpu, Kernel.TASK, from_idle=True)
    await expire(kernel, user=False)
    assert (every.samples, busy.samples) == (2, 1)


async def test_the_reader_is_woken_by_irq_work() -> None:
    kernel = await Kernel.boot()
    buffer = kernel.perf.new_buffer(1, 0)
    event = kernel.perf.open(EventAttr(Software.CPU_CLOCK, period=PERIOD, software=True), None, buffer)
    await kernel.perf.install(kernel.cpu, event, Kernel.TASK)
    await kernel.done()
    while not kernel.bench.ipis:
        await expire(kernel)
    assert event.samples == buffer.watermark // kernel.perf.config.record_bytes + 1
    assert kernel.perf.irq_work() == [buffer]


async def test_a_record_costs_what_one_of_the_pmu_costs() -> None:
    kernel = await Kernel.boot(costs={**COSTS, "sample": 700})
    await clock(kernel, period=PERIOD)
    kernel.bench.work(due(kernel) - kernel.cpu.now)
    before = kernel.cpu.now
    await kernel.perf.hrtimers_expired(kernel.cpu, user=True)
    await kernel.done()
    assert kernel.bench.machine.now(0) - before == 700


# Throttling.


async def throttled(kind: Software, *, group_throttle: bool = False) -> tuple[Kernel, PerfEvent, int]:
    """A clock whose second sample within a tick throttles it, and what it had counted by then."""
    kernel = await Kernel.boot(group_throttle=group_throttle)
    kernel.all_perf.limits.max_samples_per_tick = 2
    event = await clock(kernel, kind, period=PERIOD // 4)
    await kernel.tick()
    await expire(kernel)
    await expire(kernel)
    assert (event.samples, event.throttles) == (2, 1)
    assert due(kernel) == NEVER
    return kernel, event, event.count


@pytest.mark.parametrize("group_throttle", [False, True])
async def test_a_throttled_cpu_clock_stands_still_up_to_the_tick(group_throttle: bool) -> None:
    """cpu_clock_event_start takes the present for where it goes on."""
    kernel, event, counted = await throttled(Software.CPU_CLOCK, group_throttle=group_throttle)
    kernel.bench.work(PERIOD)
    await kernel.tick()
    assert due(kernel) - kernel.cpu.now == pytest.approx(PERIOD // 4, abs=100)
    await expire(kernel)
    assert event.samples == 3
    assert event.count - counted == pytest.approx(PERIOD // 4, abs=100)


async def test_the_tick_starts_a_throttled_one_with_ten_microseconds_at_least() -> None:
    kernel = await Kernel.boot()
    kernel.all_perf.limits.max_samples_per_tick = 1
    event = await clock(kernel, period=100)
    await expire(kernel)
    assert event.throttled
    await kernel.tick()
    assert due(kernel) - kernel.cpu.now == pytest.approx(10_000, abs=10)


async def test_a_throttled_task_clock_counts_twice_what_it_had_counted() -> None:
    """task_clock_event_start goes on from ctx->time, which the tick leaves where the task's switch had it."""
    kernel, event, counted = await throttled(Software.TASK_CLOCK)
    kernel.bench.work(PERIOD)
    await kernel.tick()
    await expire(kernel)
    assert counted == pytest.approx(PERIOD // 2, abs=100)
    assert event.count - counted == pytest.approx(PERIOD // 2 + PERIOD + PERIOD // 4, abs=200)


async def test_going_out_ends_throttling() -> None:
    """event_sched_in; the hrtimer of 6.12 has been forwarded all the same, and what was left of that counts."""
    kernel, event, _ = await throttled(Software.CPU_CLOCK)
    kernel.bench.work(PERIOD)
    await kernel.switch()
    assert not event.throttled
    assert due(kernel) - kernel.cpu.now == pytest.approx(10_000, abs=100), "it is past"
    assert event.count == pytest.approx(PERIOD // 2 + PERIOD, abs=200), "cpu_clock_event_del counts it"


# What counts.


async def test_a_counting_event_samples_each_time_its_period_is_full() -> None:
    """perf_swevent_event, perf_swevent_set_period."""
    kernel = await Kernel.boot()
    every = await kernel.open(Software.CONTEXT_SWITCHES, software=True, period=1)
    third = await kernel.open(Software.CONTEXT_SWITCHES, software=True, period=3)
    user = await kernel.open(Software.CONTEXT_SWITCHES, software=True, period=1, exclude_kernel=True)
    for switches in range(1, 11):
        await kernel.switch()
        assert (every.samples, third.samples, user.samples) == (switches, switches // 3, 0)
    assert (every.count, third.count) == (10, 10)
    assert third.overflows_missed == 0


async def test_a_migration_is_sampled_where_the_task_arrives() -> None:
    kernel = await Kernel.boot()
    event = await kernel.open(Software.CPU_MIGRATIONS, software=True, period=1)
    kernel.perf.shared.last_cpu[Kernel.TASK] = 5
    await kernel.switch()
    await kernel.switch()
    assert event.samples == 1


async def test_a_frequency_of_what_counts_is_adjusted_by_samples_and_ticks() -> None:
    """__perf_event_account_interrupt and perf_adjust_freq_unthr_context, which touches no PMU for it."""
    kernel = await Kernel.boot()
    event = await kernel.open(Software.CONTEXT_SWITCHES, software=True, frequency=1000, task=None)
    for _ in range(200):
        for _ in range(40):
            kernel.bench.work(50_000)
            await kernel.perf.task_out(kernel.cpu, Kernel.TASK, OTHER)
            await kernel.perf.task_in(kernel.cpu, OTHER)
            await kernel.perf.task_out(kernel.cpu, OTHER, Kernel.TASK)
            await kernel.perf.task_in(kernel.cpu, Kernel.TASK)
            await kernel.done()
        await kernel.tick()
    assert event.sample_period == pytest.approx(40, abs=10), "two switches in 50 µs: 40 in a millisecond"
    assert kernel.accesses() == []


async def test_events_of_the_kernel_throttle_none_that_counts() -> None:
    """perf_swevent_overflow throttles from the second overflow at a time on."""
    kernel = await Kernel.boot()
    kernel.all_perf.limits.max_samples_per_tick = 1
    event = await kernel.open(Software.CONTEXT_SWITCHES, software=True, period=1)
    for _ in range(5):
        await kernel.switch()
    assert (event.samples, event.throttles) == (5, 0)


# Groups.


async def test_a_clock_that_leads_a_group_reads_it_in_each_sample() -> None:
    """PERF_SAMPLE_READ by a software leader: {cpu-clock,instructions}:S."""
    kernel = await Kernel.boot()
    leader = await clock(kernel, Software.CPU_CLOCK, period=PERIOD, sample_read=True, disabled=True)
    member = await kernel.open(INSTRUCTIONS, leader=leader, sample_read=True)
    await kernel.enable(leader)
    kernel.accesses()
    await expire(kernel)
    assert kernel.accesses() == ["r PMEVCNTR0_EL0"]
    assert leader.sampled == leader.count
    assert member.sampled == pytest.approx(PERIOD, abs=100)
    kernel.bench.work(PERIOD // 2)
    assert (await kernel.perf.read(kernel.cpu, member)).count > member.sampled


async def test_a_switch_reads_the_group_that_it_leads_while_that_is_on() -> None:
    kernel = await Kernel.boot()
    leader = await kernel.open(Software.CONTEXT_SWITCHES, software=True, period=1, sample_read=True, disabled=True)
    member = await kernel.open(INSTRUCTIONS, leader=leader, sample_read=True)
    await kernel.enable(leader)
    kernel.bench.work(PERIOD)
    await kernel.switch()
    assert leader.samples == 1
    assert PERIOD <= member.sampled <= member.count


async def test_a_clock_samples_while_its_group_has_its_counters() -> None:
    kernel = await Kernel.boot(counters=1)
    await kernel.open(INSTRUCTIONS)
    leader = await clock(kernel, period=PERIOD, disabled=True)
    await kernel.open(INSTRUCTIONS, leader=leader)
    await kernel.enable(leader)
    assert (leader.state, due(kernel)) == (State.INACTIVE, NEVER)
    await kernel.rotate()
    assert leader.state == State.ACTIVE
    await expire(kernel)
    assert leader.samples == 1
    await kernel.rotate()
    assert due(kernel) == NEVER


async def test_the_hrtimers_are_state() -> None:
    kernel = await Kernel.boot()
    of_task = await clock(kernel, period=PERIOD)
    of_cpu = await clock(kernel, period=PERIOD // 3, task=None)
    await expire(kernel)
    saved, deadline, running = kernel.all_perf.state(), due(kernel), [*kernel.perf.hrtimers]
    await expire(kernel)
    await kernel.perf.task_out(kernel.cpu, Kernel.TASK)
    await kernel.done()
    kernel.all_perf.restore(saved)
    assert kernel.perf.hrtimers == running
    assert kernel.perf.hrtimers_due == deadline
    assert (of_task.samples, of_cpu.samples) == (0, 1)
