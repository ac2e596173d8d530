"""Sampling by period and by frequency, throttling, wake-ups, and KVM's counters at their overflow."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cpu import CounterFlag, Notice
from services.events import Software
from services.experiment import PerfSysctls
from services.linux_perf import PerfEvent, State
from services.linux_perf.sampling import adapted_period
from services.linux_perf.shared import SampleLimits
from services.registers import PMEVCNTR
from tests.linux_perf.bench import COSTS, INSTRUCTIONS, Kernel

TICK = 4_000_000  # cycles, which are ns here, at HZ=250
THROTTLE = ["w PMCNTENCLR_EL0", "w PMINTENCLR_EL1", "w PMOVSCLR_EL0"]
STOP = [*THROTTLE, "r PMEVCNTR0_EL0"]
START = ["w PMEVCNTR0_EL0", "w PMCNTENCLR_EL0", "w PMEVTYPER0_EL0", "w PMINTENSET_EL1", "w PMCNTENSET_EL0"]


async def run(kernel: Kernel, ticks: int) -> None:
    """The program runs, with its ticks and PMU interrupts."""
    for _ in range(ticks):
        end = kernel.bench.machine.now(0) // TICK * TICK + TICK
        while (left := end - kernel.bench.machine.now(0)) > 0:
            await kernel.bench.work_until_interrupt(kernel.perf, left)
        await kernel.tick()


async def test_a_period_samples_each_time_it_is_over() -> None:
    kernel = await Kernel.boot()
    event = await kernel.open(INSTRUCTIONS, period=100_000)
    await run(kernel, 10)
    count = (await kernel.perf.read(kernel.cpu, event)).count
    assert event.samples == count // 100_000


@pytest.mark.parametrize("frequency", [1000, 4000])
async def test_a_frequency_converges_from_a_period_of_one(frequency: int) -> None:
    # Handlers take their time: the very first interrupts come as fast as they are handled.
    kernel = await Kernel.boot(costs={**COSTS, "host_pmi": 1500, "sample": 1000})
    event = await kernel.open(INSTRUCTIONS, frequency=frequency)
    assert event.sample_period == 1
    await run(kernel, 50)
    wanted = 1_000_000_000 // frequency  # occurrences between two samples, at one a ns
    assert abs(event.sample_period - wanted) * 50 < wanted
    before = event.samples
    await run(kernel, 250)
    assert abs(event.samples - before - frequency) * 50 < frequency


@given(period=st.integers(1, 1 << 40), frequency=st.integers(1, 100_000), ns=st.integers(1, 10**7))
def test_the_period_moves_an_eighth_of_the_way(period: int, frequency: int, ns: int) -> None:
    count = 1_000_000
    ideal = count * 10**9 // (ns * frequency)
    adapted = adapted_period(period, frequency, ns, count)
    assert abs(8 * (adapted - period) - (ideal - period)) < 8 or adapted == 1
    assert min(period, ideal) <= adapted <= max(period, ideal) or adapted == 1


async def test_a_period_that_shrinks_much_ends_the_current_one_early() -> None:
    kernel = await Kernel.boot()
    event = await kernel.open(INSTRUCTIONS, frequency=1000)
    await run(kernel, 50)
    event.period_left = 100 * event.sample_period
    await kernel.tick()
    assert event.period_left <= event.sample_period


async def test_an_early_end_at_an_overflow_adds_a_stop_and_a_start() -> None:
    kernel = await Kernel.boot()
    event = await kernel.open(INSTRUCTIONS, frequency=1000)
    await kernel.bench.work_until_interrupt(kernel.perf)
    event.sample_period = 1_000_000  # what the next interval begins with, before it turns out to be far too long
    event.last_period = 1
    event.freq_time_stamp -= 7_000_000
    event.attr = replace(event.attr, frequency=1 << 40)
    kernel.accesses()
    await kernel.bench.work_until_interrupt(kernel.perf)
    assert len(kernel.accesses()) in (7 + 2, 7 + 2 + 9)


async def test_a_sample_of_a_group_has_all_its_counts() -> None:
    """perf_output_read_group: with the leader's interrupt the counters of the others are read."""
    kernel = await Kernel.boot()
    leader = await kernel.open(INSTRUCTIONS, period=100_000, sample_read=True, disabled=True)
    member = await kernel.open(0x21, leader=leader)
    await kernel.enable(leader)
    kernel.accesses()
    assert await kernel.bench.work_until_interrupt(kernel.perf)
    counters = [access for access in kernel.accesses() if access.startswith("r PMEVCNTR")]
    assert counters == ["r PMEVCNTR0_EL0", "r PMEVCNTR1_EL0"]
    assert member.count >= 100_000
    assert (leader.samples, member.samples) == (1, 0)
    assert leader.rb is not None
    assert leader.rb.head == 48 + 8 + 2 * 24


async def test_the_counts_in_a_sample_are_those_of_its_instant() -> None:
    """perf_output_read_group: of a clock, too (task_clock_event_read); what comes after the last is in no sample."""
    kernel = await Kernel.boot()
    leader = await kernel.open(INSTRUCTIONS, period=100_000, sample_read=True, disabled=True)
    member = await kernel.open(0x21, leader=leader)
    clock = await kernel.open(Software.TASK_CLOCK, leader=leader, software=True)
    await kernel.enable(leader)
    for _ in range(3):
        kernel.accesses()
        assert await kernel.bench.work_until_interrupt(kernel.perf)
        assert "r PMICNTR_EL0" not in kernel.accesses(), "a software event has no counter"
    sampled = leader.sampled, member.sampled, clock.sampled
    assert sampled == (leader.count, member.count, clock.count)
    assert sampled == pytest.approx((300_000,) * 3, rel=0.01)
    kernel.bench.work(50_000)
    await kernel.perf.read_group(kernel.cpu, leader)
    assert (leader.sampled, member.sampled, clock.sampled) == sampled
    assert min(leader.count, member.count, clock.count) >= 350_000


async def test_tasks_whose_samples_have_counts_of_their_own_are_switched_in_full() -> None:
    """nr_no_switch_fast: equivalent contexts are not swapped if an inherited event has PERF_SAMPLE_READ."""
    for sample_read in (False, True):
        kernel = await Kernel.boot()
        await kernel.open(INSTRUCTIONS, period=100_000, inherit=True, sample_read=sample_read)
        kernel.perf.fork(kernel.cpu, Kernel.TASK, 8)
        kernel.accesses()
        await kernel.switch(Kernel.TASK, 8)
        counters = [access for access in kernel.accesses() if access.startswith("r PMEVCNTR")]
        assert counters == (["r PMEVCNTR0_EL0"] if sample_read else [])


async def test_more_samples_in_a_tick_than_allowed_throttle_until_the_next() -> None:
    kernel = await Kernel.boot()
    kernel.all_perf.limits.max_samples_per_tick = 3
    event = await kernel.open(INSTRUCTIONS, period=100_000)
    kernel.accesses()
    for _ in range(2):
        assert await kernel.bench.work_until_interrupt(kernel.perf)
        assert len(kernel.accesses()) == 9
    assert await kernel.bench.work_until_interrupt(kernel.perf)
    accesses = kernel.accesses()
    assert len(accesses) == 9 + 3
    assert accesses[6:9] == THROTTLE
    assert event.throttled
    assert not await kernel.bench.work_until_interrupt(kernel.perf, 10 * TICK)
    await kernel.tick()
    assert kernel.accesses() == ["r PMCR_EL0", "w PMCR_EL0", *START, "w PMUSERENR_EL0", "r PMCR_EL0", "w PMCR_EL0"]
    assert not event.throttled
    assert await kernel.bench.work_until_interrupt(kernel.perf)


async def test_a_throttled_frequency_event_is_stopped_adjusted_and_started() -> None:
    kernel = await Kernel.boot()
    kernel.all_perf.limits.max_samples_per_tick = 1
    event = await kernel.open(INSTRUCTIONS, frequency=1000)
    await kernel.bench.work_until_interrupt(kernel.perf)
    assert event.throttled
    kernel.accesses()
    await kernel.tick()
    assert kernel.accesses()[2:-3] == [*STOP, *START]


async def test_going_out_and_in_unthrottles() -> None:
    kernel = await Kernel.boot()
    kernel.all_perf.limits.max_samples_per_tick = 1
    event = await kernel.open(INSTRUCTIONS, period=100_000)
    await kernel.bench.work_until_interrupt(kernel.perf)
    assert event.throttled
    await kernel.switch()
    assert not event.throttled
    assert await kernel.bench.work_until_interrupt(kernel.perf)


@pytest.mark.parametrize("ends", ["tick", "switch", "report"])
async def test_what_happens_while_it_is_throttled_is_withheld_from_it(ends: str) -> None:
    """From the handler that throttles to the tick (perf_adjust_freq_unthr_events), the switch or the report."""
    kernel = await Kernel.boot()
    kernel.all_perf.limits.max_samples_per_tick = 1
    event = await kernel.open(INSTRUCTIONS, period=100_000)
    await kernel.bench.work_until_interrupt(kernel.perf)
    kernel.bench.work(777_777)
    if ends == "tick":
        await kernel.tick()
    elif ends == "switch":
        await kernel.switch()
    withheld = (await kernel.perf.read(kernel.cpu, event)).withheld
    assert 777_777 <= withheld < 777_777 + 50  # and the accesses around it
    if ends != "report":
        kernel.bench.work(50_000)
        assert (await kernel.perf.read(kernel.cpu, event)).withheld == withheld
    assert event.throttles == 1


async def test_an_overflow_that_goes_out_with_its_event_gives_no_sample() -> None:
    """armpmu_del clears its flag: armpmu_start finds no period left and begins one, without an overflow."""
    kernel = await Kernel.boot()
    event = await kernel.open(INSTRUCTIONS, period=100_000)
    kernel.bench.work(99_900)
    kernel.bench.kernel_works(200)
    assert kernel.bench.machine.interrupt(0)
    await kernel.switch()
    assert not kernel.bench.machine.interrupt(0)
    assert (event.samples, event.missed, event.overflows_missed) == (0, 1, 1)
    assert await kernel.bench.work_until_interrupt(kernel.perf)
    assert (event.samples, event.missed) == (1, 1)
    await kernel.tick()
    assert (event.samples, event.missed) == (1, 1)


async def test_an_overflow_that_the_tick_stops_gives_no_sample() -> None:
    """perf_adjust_freq_unthr_events stops a frequency event, which clears its flag, and begins a period anew."""
    kernel = await Kernel.boot()
    event = await kernel.open(INSTRUCTIONS, frequency=1000)
    await run(kernel, 50)
    samples, missed = event.samples, event.missed
    while not kernel.bench.machine.interrupt(0):
        kernel.bench.kernel_works(1000)
    await kernel.tick()
    assert (event.samples, event.missed) == (samples, missed + 1)


def test_the_limit_falls_when_handlers_take_long() -> None:
    limits = SampleLimits.at(250)
    assert (limits.max_samples_per_tick, limits.allowed_ns) == (400, 2500)
    limits.lower(4000)  # a quarter more is allowed: 5 us, of which a quarter of a 4 ms tick holds 200
    assert (limits.max_samples_per_tick, limits.allowed_ns) == (200, 5000)
    limits.lower(1_000_000)
    assert limits.max_samples_per_tick == 1


@pytest.mark.parametrize(
    ("rate", "percent", "samples", "allowed"), [(1000, 25, 4, 250_000), (1, 1, 1, 10_000_000), (100_000, 50, 400, 5000)]
)
def test_the_sysctls_set_the_limits(rate: int, percent: int, samples: int, allowed: int) -> None:
    """perf_event_max_sample_rate_handler, perf_cpu_time_max_percent_handler."""
    limits = SampleLimits.at(250, PerfSysctls(rate, percent))
    assert (limits.max_samples_per_tick, limits.allowed_ns) == (samples, allowed)
    limits.lower(allowed)
    assert limits.max_samples_per_tick == max(1, 4_000_000 // 100 * percent // (allowed + allowed // 4))
    assert limits.max_sample_rate == limits.max_samples_per_tick * 250


@pytest.mark.parametrize("percent", [0, 100])
async def test_without_a_share_of_time_no_handler_takes_too_long(percent: int) -> None:
    kernel = await Kernel.boot()
    kernel.all_perf.shared.limits = SampleLimits.at(250, PerfSysctls(cpu_time_max_percent=percent))
    for _ in range(1000):
        kernel.perf.handler_took(0, 1_000_000)
    assert kernel.all_perf.limits.max_samples_per_tick == 400


async def test_the_average_of_128_handlers_counts() -> None:
    kernel = await Kernel.boot()
    for _ in range(80):
        kernel.perf.handler_took(0, 5000)
    assert kernel.all_perf.limits.max_samples_per_tick == 400
    for _ in range(20):  # the average reaches 2500 ns at about 0.7 * 128 handlers of 5000 ns
        kernel.perf.handler_took(0, 5000)
    assert kernel.all_perf.limits.max_samples_per_tick < 400


async def test_a_full_half_of_the_ring_buffer_wakes_its_reader_by_one_ipi() -> None:
    kernel = await Kernel.boot(record_bytes=48, watermark_bytes=480)
    await kernel.open(INSTRUCTIONS, period=10_000)
    for _ in range(9):
        await kernel.bench.work_until_interrupt(kernel.perf)
    assert kernel.bench.ipis == []
    assert not kernel.perf.irq_work()
    for _ in range(2):  # the second comes before the IPI is served
        await kernel.bench.work_until_interrupt(kernel.perf)
    assert kernel.bench.ipis == [0]
    assert kernel.perf.irq_work()
    assert not kernel.perf.irq_work()


async def test_an_interrupt_without_a_flag_is_nobodys() -> None:
    kernel = await Kernel.boot()
    await kernel.open(INSTRUCTIONS)
    kernel.accesses()
    assert not await kernel.perf.handle_irq(kernel.cpu)
    assert kernel.accesses() == ["r PMOVSCLR_EL0", "w PMOVSCLR_EL0"]


async def counter(kernel: Kernel, value: int, flags: int = 0) -> PerfEvent:
    """KVM's counter for a guest's counter with this value; the guest is loaded."""
    event = await kernel.create(5, INSTRUCTIONS, flags, -value & 0xFFFF_FFFF)
    kernel.perf.el0_filter(kernel.cpu, True)
    await kernel.done()
    return event


async def test_kvms_counter_overflows_where_the_guests_would_and_tells_kvm() -> None:
    kernel = await Kernel.boot(hyp=True)
    event = await counter(kernel, 0xFFFF_FF00)
    assert kernel.bench.machine.peek(0, PMEVCNTR(event.idx)) & 0xFFFF_FFFF == 0xFFFF_FF00
    kernel.accesses()
    kernel.bench.guest_runs_until_interrupt()
    assert await kernel.perf.handle_irq(kernel.cpu)
    await kernel.done()
    assert kernel.bench.notices == [(Notice.COUNTER_OVERFLOW, 5)]
    assert kernel.accesses()[4:-3] == ["r PMEVCNTR0_EL0", "w PMEVCNTR0_EL0", *STOP, *START]
    # The next period ends a whole 2**32 after the last one's beginning, as compute_period has it.
    assert event.sample_period == -event.count & 0xFFFF_FFFF


async def test_kvms_counters_are_throttled_by_the_hosts_limit() -> None:
    kernel = await Kernel.boot(hyp=True)
    kernel.all_perf.limits.max_samples_per_tick = 1
    event = await counter(kernel, 0xFFFF_FF00)
    kernel.bench.guest_runs_until_interrupt()
    kernel.accesses()
    await kernel.perf.handle_irq(kernel.cpu)
    await kernel.done()
    assert event.throttled
    assert kernel.accesses()[-6:-3] == THROTTLE


async def test_kvms_counter_is_made_disabled_and_enabled_later() -> None:
    kernel = await Kernel.boot(hyp=True)
    event = await counter(kernel, 0, CounterFlag.DISABLED)
    assert event.state == State.OFF
    await kernel.enable(event)
    assert event.state == State.ACTIVE


async def test_flags_of_the_guests_counters_are_kvms() -> None:
    kernel = await Kernel.boot(hyp=True)
    kernel.perf.pmu.cntr_mask = 0b110000
    kernel.perf.guest_mask = 0b001111
    event = await kernel.open(INSTRUCTIONS, period=1 << 20, task=None)
    assert event.idx == 4
    kernel.bench.machine.poke(0, PMEVCNTR(4), 0xFFFF_FFFF_FFFF_FFF0)
    for split, extra in ((False, 0), (True, 2)):  # from v6 on also PMINTENSET read, and PMOVSCLR written for the guest
        kernel.perf.split_irq = split
        kernel.bench.notices.clear()
        kernel.bench.raise_overflow(0b000010)
        kernel.accesses()
        assert await kernel.perf.handle_irq(kernel.cpu)
        await kernel.done()
        assert kernel.bench.notices == [(Notice.GUEST_OVERFLOW, 0b000010)]
        assert len(kernel.accesses()) == 7 + extra
        assert not kernel.bench.machine.interrupt(0)


async def test_kvms_next_period_is_as_wide_as_the_guests_counter_overflows() -> None:
    kernel = await Kernel.boot(hyp=True)
    for flags, mask in (
        (CounterFlag.LONG, (1 << 32) - 1),
        (CounterFlag.LONG | CounterFlag.LONG_OVERFLOW, (1 << 64) - 1),
    ):
        event = await counter(kernel, 0xFFFF_FF00, flags)
        kernel.bench.guest_runs_until_interrupt()
        await kernel.perf.handle_irq(kernel.cpu)
        await kernel.done()
        assert event.sample_period & (1 << 64) - 1 == -event.count & mask
        await kernel.perf.destroy_kernel_counter(kernel.cpu, event)
        await kernel.done()


@pytest.mark.parametrize(
    ("period", "programmed"),
    [
        (1 << 62, 1 << 62),
        ((1 << 63) - 1, (1 << 63) - 1),
        (1 << 63, 0),  # its rest, twice -2**63 in s64
        ((1 << 63) + 1, 2),
        ((1 << 64) - 1, (1 << 63) - 1),  # -2 is large as u64
    ],
)
@pytest.mark.parametrize("where", ["alone", "in a group", "started again"])
async def test_a_period_of_half_of_64_bits_and_more_is_negative(period: int, programmed: int, where: str) -> None:
    """armpmu_event_set_period keeps it in s64, and compares `left` with half of the counter's range as u64."""
    kernel = await Kernel.boot()
    event = await kernel.open(INSTRUCTIONS, long=True, period=period)
    if where == "in a group":
        await kernel.open(INSTRUCTIONS, leader=event)
        await kernel.switch()
    elif where == "started again":
        await kernel.perf.cpu_pm_enter(kernel.cpu)
        await kernel.perf.cpu_pm_exit(kernel.cpu)
        await kernel.done()
    assert kernel.bench.machine.peek(0, PMEVCNTR(event.idx)) - -programmed & (1 << 64) - 1 < 200
