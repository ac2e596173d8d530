"""Throttling of a whole group, perf_event_throttle_group of Linux 6.16, beside what 6.12 does with the event alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import pmulab
from services.cpu import CounterFlag
from services.events import Software
from services.linux_perf import PerfEvent
from tests.linux_perf.bench import INSTRUCTIONS, Kernel

TICK = 4_000_000  # cycles, which are ns here, at HZ=250
PERIOD = 100_000
SPECULATED = 0x1B
BRANCHES = 0x21


def stop(counter: int) -> list[str]:
    return ["w PMCNTENCLR_EL0", "w PMINTENCLR_EL1", "w PMOVSCLR_EL0", f"r PMEVCNTR{counter}_EL0"]


def start(counter: int) -> list[str]:
    enable = ["w PMCNTENCLR_EL0", f"w PMEVTYPER{counter}_EL0", "w PMINTENSET_EL1", "w PMCNTENSET_EL0"]
    return [f"w PMEVCNTR{counter}_EL0", *enable]


async def group(
    throttles: bool, *, period: int = PERIOD, frequency: int = 0, of_sibling: int = 0
) -> tuple[Kernel, PerfEvent, PerfEvent]:
    """A leader and a sibling, of which the former samples, or the latter alone; the first sample throttles."""
    kernel = await Kernel.boot(group_throttle=throttles)
    kernel.all_perf.limits.max_samples_per_tick = 1
    leader = await kernel.open(INSTRUCTIONS, period=period, frequency=frequency, disabled=True)
    sibling = await kernel.open(SPECULATED, leader=leader, period=of_sibling)
    await kernel.enable(leader)
    kernel.accesses()
    return kernel, leader, sibling


async def read(kernel: Kernel, *events: PerfEvent) -> list[int]:
    return [(await kernel.perf.read(kernel.cpu, event)).count for event in events]


async def test_the_whole_group_is_stopped_and_restarted_at_the_tick() -> None:
    kernel, leader, sibling = await group(throttles=True)
    assert await kernel.bench.work_until_interrupt(kernel.perf)
    assert kernel.accesses()[6:-3] == [*stop(0), *stop(1)]
    before = await read(kernel, leader, sibling)
    kernel.bench.work(10 * TICK)
    assert await read(kernel, leader, sibling) == before
    kernel.accesses()
    await kernel.tick()
    assert kernel.accesses()[2:-3] == [*start(0), *start(1)]
    kernel.bench.work(PERIOD // 2)
    after = await read(kernel, leader, sibling)
    assert [new - old for new, old in zip(after, before, strict=True)] == pytest.approx([PERIOD // 2] * 2, abs=100)


async def test_what_is_withheld_from_the_whole_group_is_said() -> None:
    kernel, leader, sibling = await group(throttles=True)
    assert await kernel.bench.work_until_interrupt(kernel.perf)
    kernel.bench.work(777_777)
    await kernel.tick()
    kernel.bench.work(PERIOD // 2)
    for reading in await kernel.perf.read_group(kernel.cpu, leader):
        assert 777_777 <= reading.withheld < 777_777 + 50  # and the accesses around it
    assert (leader.throttles, sibling.throttles) == (1, 0)


async def test_up_to_6_15_its_siblings_count_on() -> None:
    kernel, leader, sibling = await group(throttles=False)
    assert await kernel.bench.work_until_interrupt(kernel.perf)
    before = await read(kernel, leader, sibling)
    kernel.bench.work(10 * TICK)
    after = await read(kernel, leader, sibling)
    assert (after[0], after[1] >= before[1] + 10 * TICK) == (before[0], True)


@pytest.mark.parametrize("throttles", [False, True])
async def test_a_sibling_that_is_throttled_goes_on_at_the_tick_with_its_group_alone(throttles: bool) -> None:
    """perf_adjust_freq_unthr_events looks at leaders: in 6.12 a sibling waits until its group goes off and on."""
    kernel, leader, sibling = await group(throttles, period=0, of_sibling=PERIOD)
    assert await kernel.bench.work_until_interrupt(kernel.perf)
    assert sibling.throttled
    assert leader.throttled is throttles
    await kernel.tick()
    assert sibling.throttled is not throttles
    assert await kernel.bench.work_until_interrupt(kernel.perf, 2 * PERIOD) is throttles


async def test_a_leader_by_frequency_is_not_stopped_twice() -> None:
    """armpmu_stop does nothing more with what is stopped; perf_event_unthrottle_group leaves its start to the rest."""
    kernel, _, _ = await group(throttles=True, period=0, frequency=1000)
    assert await kernel.bench.work_until_interrupt(kernel.perf)
    kernel.accesses()
    await kernel.tick()
    assert kernel.accesses()[2:-3] == [*start(1), *start(0)]


async def test_what_is_stopped_goes_out_without_an_access() -> None:
    kernel, leader, sibling = await group(throttles=True)
    assert await kernel.bench.work_until_interrupt(kernel.perf)
    before = await read(kernel, leader, sibling)
    kernel.accesses()
    await kernel.perf.task_out(kernel.cpu, Kernel.TASK)
    await kernel.done()
    assert kernel.accesses() == ["r PMCR_EL0", "w PMCR_EL0"]
    assert [leader.count, sibling.count] == before
    await kernel.perf.task_in(kernel.cpu, Kernel.TASK)
    await kernel.done()
    assert await kernel.bench.work_until_interrupt(kernel.perf, 2 * PERIOD)


async def test_software_events_stop_with_their_group() -> None:
    """perf_swevent_stop; cpu_clock_event_stop leaves what has passed uncounted, and the start begins anew."""
    kernel = await Kernel.boot(group_throttle=True)
    kernel.all_perf.limits.max_samples_per_tick = 1
    leader = await kernel.open(INSTRUCTIONS, period=PERIOD, disabled=True)
    clock = await kernel.open(Software.CPU_CLOCK, leader=leader, software=True)
    switches = await kernel.open(Software.CONTEXT_SWITCHES, leader=leader, software=True)
    await kernel.enable(leader)
    assert await kernel.bench.work_until_interrupt(kernel.perf)
    assert clock.stopped
    await kernel.perf.task_out(kernel.cpu, Kernel.TASK)
    await kernel.done()
    assert switches.count == 0
    assert clock.count > 0  # cpu_clock_event_del brings it up to date
    await kernel.perf.task_in(kernel.cpu, Kernel.TASK)
    await kernel.done()
    before = clock.count
    assert await kernel.bench.work_until_interrupt(kernel.perf)
    await read(kernel, leader)
    await kernel.tick()
    assert not clock.stopped
    await kernel.perf.task_out(kernel.cpu, Kernel.TASK)
    await kernel.done()
    assert switches.count == 1
    assert clock.count - before < PERIOD // 2


async def test_kvm_starts_its_counter_again_at_once() -> None:
    """kvm_pmu_perf_overflow stops, which is done already, and starts; in 6.12 the driver disables it after that."""
    for throttles in (False, True):
        kernel = await Kernel.boot(hyp=True, group_throttle=throttles)
        kernel.all_perf.limits.max_samples_per_tick = 1
        await kernel.create(0, BRANCHES, CounterFlag.EXCLUDE_USER, 1 << 20)
        kernel.bench.machine.set_running(0, 1, 1, 0)
        kernel.bench.machine.run(0, 1 << 21)
        kernel.bench.kernel_runs()
        kernel.accesses()
        assert await kernel.perf.handle_irq(kernel.cpu)
        await kernel.bench.flush()
        handled = kernel.accesses()[6:-3]
        assert handled == ([*stop(0), *start(0)] if throttles else [*stop(0), *start(0), *stop(0)[:3]])


GUEST = """
[[guest]]
pin = [0]
perf_event_max_sample_rate = 1000
[[guest.task]]
workload = "gzip-random"
seconds = 0.04
[guest.task.perf]
verb = "record"
events = "{instructions:u,cycles:u}"
period = 200000
"""


def test_a_guests_group_stands_still_for_the_rest_of_the_tick(tmp_path: Path) -> None:
    path = tmp_path / "record.toml"
    path.write_text(GUEST)
    alone, group = (
        pmulab.run(path, overrides={"guest.perf_throttle": what}).runs[0].guests[0].events
        for what in ("event", "group")
    )
    assert [event.samples for event in alone] == [44, 4]  # in the first tick, and nothing takes it off and on again
    assert group[0].samples == 44  # four in each tick; the cycles, which come slower, stand still with them
    assert 30 < group[1].samples < 44
