"""Which events are on the PMU: groups, pinned and flexible events, rotation, times."""

from __future__ import annotations

from services.cpu import CounterFlag
from services.linux_perf import EventAttr, PerfEvent, State
from services.registers import PMCR_E, PMCR_EL0
from tests.linux_perf.bench import COSTS, CYCLES, INSTRUCTIONS, MSR, Kernel


def on_pmu(kernel: Kernel) -> list[int]:
    return [event.id for event in kernel.perf.pmu.events if event is not None]


def scaled(event: PerfEvent) -> int:
    enabled, running = event.times()
    return event.count * enabled // running


async def test_a_group_is_on_as_a_whole_or_not_at_all() -> None:
    kernel = await Kernel.boot(counters=4)
    await kernel.open(INSTRUCTIONS)
    leader = await kernel.open(INSTRUCTIONS, disabled=True)
    group = [leader, *[await kernel.open(INSTRUCTIONS, leader=leader) for _ in range(3)]]
    await kernel.enable(leader)
    assert [event.state for event in group] == [State.INACTIVE] * 4
    await kernel.rotate()  # the lone event goes behind the group
    assert [event.state for event in group] == [State.ACTIVE] * 4
    assert on_pmu(kernel) == [event.id for event in group]


async def test_what_fitted_of_a_group_that_does_not_goes_on_and_off_again() -> None:
    kernel = await Kernel.boot(counters=2)
    leader = await kernel.open(INSTRUCTIONS, disabled=True)
    for _ in range(2):
        await kernel.open(INSTRUCTIONS, leader=leader)
    kernel.accesses()
    await kernel.enable(leader)
    accesses = kernel.accesses()
    assert accesses.count("w PMCNTENSET_EL0") == accesses.count("w PMOVSCLR_EL0") == 2
    assert on_pmu(kernel) == []
    assert leader.count == 0


async def test_no_flexible_event_passes_one_that_does_not_fit() -> None:
    kernel = await Kernel.boot(counters=2)
    await kernel.open(INSTRUCTIONS)
    leader = await kernel.open(INSTRUCTIONS, disabled=True)
    await kernel.open(INSTRUCTIONS, leader=leader)
    small = await kernel.open(INSTRUCTIONS)
    await kernel.enable(leader)
    assert small.state == State.INACTIVE


async def test_a_pinned_event_that_does_not_fit_falls_into_error_until_it_is_enabled_again() -> None:
    kernel = await Kernel.boot(counters=1)
    first = await kernel.open(INSTRUCTIONS, pinned=True)
    second = await kernel.open(INSTRUCTIONS, pinned=True)
    assert (first.state, second.state) == (State.ACTIVE, State.ERROR)
    await kernel.disable(first)
    await kernel.switch()
    assert second.state == State.ERROR
    await kernel.enable(second)
    assert second.state == State.ACTIVE


async def test_pinned_events_displace_flexible_ones() -> None:
    kernel = await Kernel.boot(counters=1)
    flexible = await kernel.open(INSTRUCTIONS)
    pinned = await kernel.open(INSTRUCTIONS, pinned=True)
    assert (pinned.state, flexible.state) == (State.ACTIVE, State.INACTIVE)


async def test_order_is_cpu_pinned_task_pinned_cpu_flexible_task_flexible() -> None:
    kernel = await Kernel.boot(counters=4)
    task_flexible = await kernel.open(INSTRUCTIONS)
    cpu_flexible = await kernel.open(INSTRUCTIONS, task=None)
    task_pinned = await kernel.open(INSTRUCTIONS, pinned=True)
    cpu_pinned = await kernel.open(INSTRUCTIONS, pinned=True, task=None)
    # A CPU-pinned event has all but the task's pinned event go out; what is out goes in by that order.
    assert task_pinned.idx != cpu_pinned.idx
    assert (cpu_flexible.idx, task_flexible.idx) == (2, 3)


async def test_a_task_without_pinned_events_leaves_the_cpus_flexible_events_alone() -> None:
    kernel = await Kernel.boot(counters=2)
    await kernel.open(INSTRUCTIONS, task=None)
    await kernel.open(INSTRUCTIONS)
    kernel.accesses()
    await kernel.switch()
    assert kernel.accesses().count("w PMCNTENSET_EL0") == 1


async def test_a_task_with_pinned_events_has_the_cpus_flexible_events_out_and_in() -> None:
    kernel = await Kernel.boot(counters=2)
    await kernel.open(INSTRUCTIONS, task=None)
    await kernel.open(INSTRUCTIONS, pinned=True)
    kernel.accesses()
    await kernel.switch()
    assert kernel.accesses().count("w PMCNTENSET_EL0") == 2


async def test_enabling_the_mth_pinned_event_takes_m_out_and_puts_one_more_in() -> None:
    kernel = await Kernel.boot(counters=6)
    pinned = [await kernel.open(INSTRUCTIONS, pinned=True, disabled=True) for _ in range(6)]
    for number, event in enumerate(pinned):
        kernel.accesses()
        await kernel.enable(event)
        accesses = kernel.accesses()
        assert accesses.count("w PMOVSCLR_EL0") == number
        assert accesses.count("w PMCNTENSET_EL0") == number + 1


async def test_cycles_have_the_cycle_counter_and_a_second_one_an_event_counter() -> None:
    kernel = await Kernel.boot()
    assert [(await kernel.open(CYCLES)).idx for _ in range(2)] == [31, 0]


async def test_instructions_have_pmicntr_where_there_is_one() -> None:
    kernel = await Kernel.boot(icntr=True)
    assert [(await kernel.open(INSTRUCTIONS)).idx for _ in range(2)] == [32, 0]


async def test_counters_are_given_from_the_lowest_or_from_the_highest() -> None:
    low, high = await Kernel.boot(counters=6), await Kernel.boot(counters=6, high_to_low=True)
    assert [(await low.open(INSTRUCTIONS)).idx for _ in range(2)] == [0, 1]
    assert [(await high.open(INSTRUCTIONS)).idx for _ in range(2)] == [5, 4]


async def test_pairs_are_an_odd_counter_and_the_one_below() -> None:
    kernel = await Kernel.boot(counters=6, pmuver=1)
    await kernel.open(INSTRUCTIONS)
    pair = await kernel.open(INSTRUCTIONS, long=True)
    assert (pair.idx, pair.bits) == (3, 0b1100)


async def test_a_pair_counts_beyond_32_bits() -> None:
    kernel = await Kernel.boot(pmuver=1)
    event = await kernel.open(INSTRUCTIONS, long=True)
    kernel.bench.work(3 << 32)
    assert abs((await kernel.perf.read(kernel.cpu, event)).count - (3 << 32)) < 50


async def test_a_count_beyond_the_counters_width_is_kept_by_interrupts_at_half() -> None:
    kernel = await Kernel.boot(pmuver=1)
    event = await kernel.open(INSTRUCTIONS)
    interrupts = 0
    while await kernel.bench.work_until_interrupt(kernel.perf, (5 << 31) // 2):
        interrupts += 1
        if interrupts == 4:
            break
    assert event.count + event.period_left > 4 << 31
    assert event.samples == 0
    reading = await kernel.perf.read(kernel.cpu, event)
    assert abs(reading.truth - reading.count) < 200


async def test_rotation_is_fair_and_scaled_counts_are_true() -> None:
    kernel = await Kernel.boot(counters=3)
    events = [await kernel.open(INSTRUCTIONS) for _ in range(5)]
    for _ in range(100):
        kernel.bench.work(4_000_000)
        await kernel.rotate()
    running = [event.times()[1] for event in events]
    assert max(running) - min(running) <= 4_100_000
    for event in events:
        reading = await kernel.perf.read(kernel.cpu, event)
        assert abs(reading.count * reading.enabled // reading.running - reading.truth) * 100 < reading.truth


async def test_the_mux_timer_runs_while_something_does_not_fit() -> None:
    kernel = await Kernel.boot(counters=1)
    await kernel.open(INSTRUCTIONS)
    assert kernel.bench.timers == {}
    extra = await kernel.open(INSTRUCTIONS)
    assert kernel.bench.timers == {1: 4_000_000}  # whole ticks of 4 ms
    kernel.bench.work(5_000_000)
    await kernel.rotate()
    assert kernel.bench.timers == {1: 8_000_000}
    await kernel.perf.release(kernel.cpu, extra)
    await kernel.rotate()
    await kernel.rotate()
    assert not kernel.perf.mux_active


async def test_without_multiplexing_truth_less_count_is_what_the_driver_had_stopped() -> None:
    kernel = await Kernel.boot()
    opened = kernel.bench.machine.now(0)
    event = await kernel.open(INSTRUCTIONS)
    for _ in range(10):
        kernel.bench.work(1_000_000)
        await kernel.switch()
    await kernel.disable(event)
    disabled = kernel.bench.machine.now(0)
    counting, since = 0, None
    for _, cycle, _, code, register, value in kernel.bench.machine.observed():
        if (code, register) == (MSR, PMCR_EL0):
            if since is not None:
                counting += cycle - since
            since = cycle if value & PMCR_E else None
    # One occurrence a cycle, and no other task in between: what happened while PMCR.E was set was counted, all of it.
    assert event.count == counting
    assert event.truth == disabled - opened


async def test_enabled_time_of_a_disabled_event_stands_still() -> None:
    kernel = await Kernel.boot()
    event = await kernel.open(INSTRUCTIONS)
    kernel.bench.work(1_000_000)
    await kernel.disable(event)
    kernel.bench.work(1_000_000)
    await kernel.enable(event)
    kernel.bench.work(1_000_000)
    await kernel.perf.read(kernel.cpu, event)
    enabled, running = event.times()
    assert enabled == running
    assert 2_000_000 <= enabled < 2_000_200


async def test_a_siblings_time_follows_its_leader() -> None:
    kernel = await Kernel.boot()
    leader = await kernel.open(INSTRUCTIONS, disabled=True)
    sibling = await kernel.open(INSTRUCTIONS, leader=leader)
    kernel.bench.work(1_000_000)
    assert sibling.times() == (0, 0)
    await kernel.enable(leader)
    kernel.bench.work(1_000_000)
    await kernel.disable(leader)
    kernel.bench.work(1_000_000)
    await kernel.perf.read(kernel.cpu, sibling)
    assert 1_000_000 <= sibling.times()[0] < 1_000_100


async def test_siblings_of_a_closed_leader_live_on() -> None:
    kernel = await Kernel.boot()
    leader = await kernel.open(INSTRUCTIONS, disabled=True)
    sibling = await kernel.open(INSTRUCTIONS, leader=leader)
    await kernel.enable(leader)
    await kernel.perf.release(kernel.cpu, leader)
    await kernel.done()
    assert sibling.leader is sibling
    assert sibling.state == State.ACTIVE
    await kernel.switch()
    assert on_pmu(kernel) == [sibling.id]


async def test_counters_taken_away_and_given_back_reschedule_in_between() -> None:
    kernel = await Kernel.boot(hyp=True, counters=6)
    events = [await kernel.open(INSTRUCTIONS, task=None) for _ in range(6)]
    full = kernel.perf.pmu.cntr_mask
    await kernel.perf.set_counters(kernel.cpu, 0b110000, reschedule=True)
    await kernel.done()
    assert [event.idx for event in events if event.state == State.ACTIVE] == [4, 5]
    await kernel.perf.set_counters(kernel.cpu, full, reschedule=True)
    await kernel.done()
    assert all(event.state == State.ACTIVE for event in events)


async def test_a_reschedule_waits_once_for_all_that_goes_out() -> None:
    kernel = await Kernel.boot()
    for _ in range(6):
        await kernel.open(INSTRUCTIONS)
    event = await kernel.open(INSTRUCTIONS, disabled=True)
    before = kernel.bench.executor.bursts
    await kernel.perf.enable(kernel.cpu, event)
    assert kernel.bench.executor.bursts - before == 1


async def test_counters_that_stand_still_at_el2_are_not_waited_for_and_count_all_the_same() -> None:
    kernel = await Kernel.boot(hyp=True)
    flags = CounterFlag.DISABLED | CounterFlag.LONG
    counters = [await kernel.create(n, INSTRUCTIONS, flags, 1 << 40) for n in range(6)]
    for _ in range(3):
        before = kernel.bench.executor.bursts
        for event in counters:  # each takes those before it out and in again
            await kernel.perf.enable(kernel.cpu, event)
        kernel.perf.el0_filter(kernel.cpu, True)
        assert kernel.bench.executor.bursts == before
        await kernel.done()
        kernel.bench.guest_works(1_000_000)
        for event in counters:
            kernel.perf.disable(kernel.cpu, event)
        await kernel.done()
        assert kernel.bench.executor.bursts - before <= 3
    assert [event.count for event in counters] == [3_000_000] * 6


async def enabled_since(kernel: Kernel, *events: PerfEvent) -> list[int]:
    """time_enabled of events, by reading them."""
    for event in events:
        await kernel.perf.read(kernel.cpu, event)
    return [event.times()[0] for event in events]


async def test_a_reschedule_stops_the_clock_of_the_other_context_alone() -> None:
    """ctx_time_freeze: the context of the event that is the reason runs on, the one that is wholly out does not."""
    kernel = await Kernel.boot()
    of_cpu, of_task = await kernel.open(INSTRUCTIONS, task=None), await kernel.open(INSTRUCTIONS)
    before, began = await enabled_since(kernel, of_cpu, of_task), kernel.bench.machine.now(0)
    await kernel.open(INSTRUCTIONS, pinned=True, task=None)  # takes out both
    after, ended = await enabled_since(kernel, of_cpu, of_task), kernel.bench.machine.now(0)
    assert after[0] - before[0] == ended - began
    stopped = 2 * (4 + 3)  # accesses and barriers of two events that go out
    assert stopped <= ended - began - (after[1] - before[1]) < 2 * stopped


async def test_a_change_of_counters_stops_the_clocks_of_both_contexts() -> None:
    """perf_pmu_resched_update freezes none."""
    kernel = await Kernel.boot(costs={**COSTS, "perf_resched": 1000})
    events = await kernel.open(INSTRUCTIONS, task=None), await kernel.open(INSTRUCTIONS)
    before, began = await enabled_since(kernel, *events), kernel.bench.machine.now(0)
    await kernel.perf.set_counters(kernel.cpu, kernel.perf.pmu.cntr_mask, True)
    await kernel.done()
    after, ended = await enabled_since(kernel, *events), kernel.bench.machine.now(0)
    for one, other in zip(before, after, strict=True):
        assert 14 <= ended - began - (other - one) < 28  # not the time before the PMU is off


async def test_a_sibling_of_a_leader_that_is_closed_off_has_been_enabled_since_it_went_off() -> None:
    """perf_event_set_state updates siblings only where the leader's state changes; then their own state counts."""
    kernel = await Kernel.boot()
    leader = await kernel.open(INSTRUCTIONS, disabled=True)
    sibling = await kernel.open(INSTRUCTIONS, leader=leader)
    kernel.bench.work(1_000_000)
    await kernel.perf.read(kernel.cpu, sibling)  # which brings its times up to date
    kernel.bench.work(2_000_000)
    assert sibling.times() == (0, 0)
    await kernel.perf.release(kernel.cpu, leader)
    await kernel.done()
    await kernel.perf.read(kernel.cpu, sibling)
    enabled, running = sibling.times()
    assert 2_000_000 <= enabled < 2_000_200
    assert running == 0


async def test_a_sibling_that_has_joined_a_leader_that_is_off_has_its_contexts_last_time() -> None:
    """perf_install_in_context updates none where it does not reschedule: the rest is the sibling's own, then."""
    kernel = await Kernel.boot()
    leader = await kernel.open(INSTRUCTIONS)
    await kernel.disable(leader)
    kernel.bench.work(2_000_000)
    sibling = await kernel.open(INSTRUCTIONS, leader=leader)
    kernel.bench.work(1_000_000)
    await kernel.perf.release(kernel.cpu, leader)
    await kernel.done()
    assert 3_000_000 <= sibling.times()[0] < 3_000_200


async def test_disabling_an_event_of_a_task_that_does_not_run_stops_the_pmu_for_nothing() -> None:
    """event_function_call: __perf_event_disable is called where the user is."""
    kernel = await Kernel.boot()
    await kernel.open(INSTRUCTIONS, task=None)
    asleep = await kernel.open(INSTRUCTIONS, task=kernel.TASK + 1)
    kernel.accesses()
    await kernel.disable(asleep)
    assert kernel.accesses() == ["r PMCR_EL0", "w PMCR_EL0", "w PMUSERENR_EL0", "r PMCR_EL0", "w PMCR_EL0"]
    assert asleep.state == State.OFF


async def test_a_sibling_of_a_leader_that_is_closed_in_error_likewise() -> None:
    kernel = await Kernel.boot(counters=1)
    await kernel.open(INSTRUCTIONS, pinned=True)
    leader = await kernel.open(INSTRUCTIONS, pinned=True, disabled=True)
    sibling = await kernel.open(CYCLES, leader=leader)
    kernel.bench.work(1_000_000)
    await kernel.enable(leader)
    assert leader.state == State.ERROR
    kernel.bench.work(1_000_000)
    await kernel.perf.release(kernel.cpu, leader)
    await kernel.done()
    await kernel.perf.read(kernel.cpu, sibling)
    assert 1_000_000 <= sibling.times()[0] < 1_000_200


async def test_an_exclusive_event_shares_the_pmu_with_none_of_its_context() -> None:
    """group_can_go_on: with others of its context it does not go on, and what comes after it does not go on with it."""
    kernel = await Kernel.boot(counters=6)
    plain = await kernel.open(INSTRUCTIONS)
    exclusive = await kernel.open(INSTRUCTIONS, exclusive=True)
    last = await kernel.open(INSTRUCTIONS)
    assert on_pmu(kernel) == [plain.id], "nor does the last one pass it"
    seen = []
    for _ in range(3):
        await kernel.rotate()
        seen.append(sorted(on_pmu(kernel)))
    assert seen == [[exclusive.id], [plain.id, last.id], [plain.id]]
    await kernel.disable(plain)
    await kernel.disable(last)
    await kernel.rotate()
    assert on_pmu(kernel) == [exclusive.id]
    await kernel.disable(exclusive)
    await kernel.enable(plain)
    await kernel.enable(last)
    assert sorted(on_pmu(kernel)) == [plain.id, last.id]


async def test_a_pinned_event_that_an_exclusive_one_keeps_off_falls_into_error() -> None:
    kernel = await Kernel.boot(counters=6)
    exclusive = await kernel.open(INSTRUCTIONS, task=None, pinned=True, exclusive=True)
    pinned = await kernel.open(INSTRUCTIONS, pinned=True)
    sibling = await kernel.open(INSTRUCTIONS, task=None, leader=exclusive)
    flexible = await kernel.open(INSTRUCTIONS)
    states = [event.state for event in (exclusive, sibling, pinned, flexible)]
    assert states == [State.ACTIVE, State.ACTIVE, State.ERROR, State.INACTIVE]


async def test_what_another_pmu_has_is_not_rotated_onto_this_one() -> None:
    """perf_rotate_context looks at the groups of its own PMU."""
    kernel = await Kernel.boot(counters=2, heterogeneous=True)
    foreign = kernel.perf.open(EventAttr(event=INSTRUCTIONS))
    foreign.pmu = 1
    await kernel.perf.install(kernel.cpu, foreign, Kernel.TASK)
    here = [await kernel.open(INSTRUCTIONS) for _ in range(3)]
    seen = []
    for _ in range(4):
        await kernel.rotate()
        seen.append(set(on_pmu(kernel)))
    assert all(len(ids) == 2 for ids in seen)
    assert set().union(*seen) == {event.id for event in here}
