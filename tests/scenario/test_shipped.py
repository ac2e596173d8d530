"""Every shipped scenario runs with each of its designs, and shows what its comment says to look at."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.resources import files

import pytest

from pmulab import scenario
from pmulab.batch import run_designs
from pmulab.designs import label
from services.experiment import DesignSpec
from services.result import Event, Latency, Run

# What makes a scenario shorter without changing what it shows.
SMALL = {
    "gzip-record": ("guest.task.repeat=1", "guest.task.scale=0.2"),
    "quick": ("guest.task.seconds=0.02",),
    "stress-record": ("guest.task.seconds=0.03",),
    "specint-stat": ("guest.task.seconds=0.05",),
    "traps-or-perf": ("guest.task.seconds=0.05",),
    "two-vms": ("guest.task.seconds=0.04",),
    "load-latency": ("guest.task.repeat=40",),
    "swap-crossover": ("guest.task.request.repeat=60", "guest.task.monitored.repeat=6"),
    "overflow-latency": ("guest.task.seconds=0.08",),
}
SHIPPED = sorted(scenario.shipped())


@cache
def runs(name: str, *overrides: str, designs: tuple[str, ...] = ()) -> dict[str, Run]:
    """One run for each design of a scenario, made shorter, by label."""
    loaded = scenario.load(name, designs=designs, overrides=[*SMALL.get(name, ()), *overrides])
    result = run_designs(loaded, jobs=1)
    assert not result.failures
    return {label(DesignSpec(run.design.name, run.design.axes)): run for run in result.runs}


def event(events: Iterable[Event], name: str) -> Event:
    return next(event for event in events if event.event == name)


def error(of: Event) -> float:
    """Of a scaled count, against its truth."""
    assert of.deviation is not None
    return of.deviation


def got(of: Event) -> float:
    """The share of the time wanted on a counter that the event got."""
    return of.running


@pytest.mark.parametrize("name", SHIPPED)
def test_it_runs_with_each_of_its_designs(name: str) -> None:
    for run in runs(name).values():
        assert all(guest.elapsed_seconds > 0 for guest in run.guests)
        assert run.time.guest > 0


@pytest.mark.parametrize("name", SHIPPED)
def test_it_says_who_asks_and_what_to_look_at(name: str) -> None:
    assert scenario.shipped()[name].startswith("Who asks: ")
    text = files("pmulab").joinpath("scenarios", f"{name}.toml").read_text(encoding="utf-8")
    assert text.splitlines()[1].startswith("# Look at: ")


def test_gzip_record_takes_longer_on_the_emulated_vpmu() -> None:
    by = runs("gzip-record")
    assert by["emulated-6.15"].virtual_seconds > 1.1 * by["partitioned-v1"].virtual_seconds


def test_two_vms_the_hosts_counts_by_who_ran_add_up() -> None:
    for run in runs("two-vms").values():
        events = run.host.events
        whole, guest, host = (event(events, name).truth for name in ("cycles", "cycles:G", "cycles:H"))
        assert guest + host == pytest.approx(whole, rel=1e-4)
        assert error(event(events, "cycles:G")) == 0


def test_traps_or_perf_slow_path_saves_perf_and_keeps_the_traps() -> None:
    by = runs("traps-or-perf")
    bills = {name: run.bill.host for name, run in by.items()}
    emulated, slow = bills["emulated"], bills["partitioned,traps=slow-path"]
    fast, fgt = bills["partitioned,traps=fast-path"], bills["partitioned"]
    assert emulated["perf re-create"] > 0
    assert emulated["perf calls"] > 0
    assert all(bill["perf re-create"] == bill["perf calls"] == 0 for bill in (slow, fast, fgt))
    assert slow["trap"] == pytest.approx(emulated["trap"], rel=0.15)
    assert slow["trap"] > 1.5 * fast["trap"] > 1.5 * fgt["trap"]
    whole = [sum(bill.values()) for bill in (emulated, slow, fast, fgt)]
    assert whole == sorted(whole, reverse=True)


def test_swap_crossover_lazy_is_cheaper_where_few_residencies_use_the_pmu_and_dearer_where_all_do() -> None:
    eager, lazy, sticky = "partitioned,swap=eager", "partitioned", "partitioned,swap=lazy-sticky"
    seldom = runs("swap-crossover", designs=(eager, lazy, sticky))
    always = runs("swap-crossover", "guest.task.monitored.repeat=60", designs=(eager, lazy))
    assert seldom[lazy].time.host_kernel < seldom[eager].time.host_kernel
    assert always[lazy].time.host_kernel > always[eager].time.host_kernel
    assert seldom[lazy].kvm.swaps.loads == 6  # those with accesses
    assert seldom[sticky].kvm.swaps.loads == seldom[eager].kvm.swaps.loads >= 60
    assert seldom[lazy].kvm.traps.total > seldom[eager].kvm.traps.total


def test_reservation_dynamic_leaves_the_host_more_time_and_a_biased_scale() -> None:
    by = runs("reservation")
    static, dynamic = (by[name].host.events for name in ("partitioned,reservation=static", "partitioned"))
    for fixed, moving in zip(static, dynamic, strict=True):
        assert got(fixed) < 0.6 < got(moving)
        assert abs(error(fixed)) < 0.05 < abs(error(moving))
        assert (error(moving) > 0) is moving.event.endswith(":H")


@pytest.mark.parametrize("reservation", ["dynamic", "static"])
def test_reservation_less_guest_time_scales_what_excludes_guests_by_the_hosts_own(reservation: str) -> None:
    """perf_event_time of a mediated PMU: a squeezed event has not been waiting meanwhile. Others' times stay."""
    axes = f"partitioned,reservation={reservation}"
    by = runs("reservation", designs=(axes, f"{axes},host_time=less-guest"))
    whole, less = (run.host.events for run in by.values())
    for one in less:
        if one.event.endswith(":G"):
            assert one == event(whole, one.event)
        elif reservation == "dynamic":
            assert got(one) == 1
            assert abs(error(one)) < 0.02
        else:  # multiplexed as before: eight events on four counters
            assert got(one) == pytest.approx(0.5, abs=0.03)


def test_load_latency_grows_with_host_events_in_the_guests_range_under_dynamic_reservation_only() -> None:
    def load(run: Run) -> int:
        p50 = run.guests[0].vcpu_load[0].p50_ns
        assert p50 is not None
        return p50

    one, cycles, four = (
        runs("load-latency", *changes) for changes in (['host.perf.events="r8"'], ['host.perf.events="cycles"'], [])
    )
    static, dynamic = "partitioned,reservation=static", "partitioned"
    assert load(one[static]) == load(four[static]) == load(one[dynamic])
    assert load(four[dynamic]) > load(cycles[dynamic]) > 5 * load(one[static])


def test_overflow_latency_is_much_the_same_in_every_design_but_for_a_vcpu_that_was_taken_off() -> None:
    latencies = [latency for run in runs("overflow-latency").values() for latency in _latencies(run)]
    for latency in latencies:
        assert latency.p50_ns is not None
        assert latency.p99_ns is not None
        assert 1000 < latency.p50_ns <= latency.p99_ns < 10_000
    assert max(latency.max_ns or 0 for latency in latencies) > 1_000_000


def _latencies(run: Run) -> list[Latency]:
    return [latency for guest in run.guests for latency in guest.interrupt_latency]


def test_who_may_take_a_host_group_does_not_fit_beside_a_guest_with_eight_of_ten_counters() -> None:
    group = {name: event(run.host.events, "instructions") for name, run in runs("who-may-take").items()}
    assert got(group["emulated"]) == 1
    assert group["partitioned,reservation=static"].scaled is None
    assert 0 < got(group["partitioned"]) < 0.1
    fits = runs("who-may-take", "guest.counters=6")
    assert all(got(event(run.host.events, "instructions")) == 1 for run in fits.values())


def test_who_may_take_a_host_group_that_does_not_fit_stops_a_guest_as_posted_and_not_by_hpme() -> None:
    by = runs("who-may-take", "guest.counters=10")
    counts = {name: event(run.guests[0].events, "branches") for name, run in by.items()}
    assert abs(error(counts["emulated"])) < 0.001
    assert abs(error(counts["partitioned"])) < 0.001
    assert got(counts["partitioned-v6"]) == 1
    assert error(counts["partitioned-v6"]) < -0.5


def test_watchdog_survives_where_one_counter_is_left() -> None:
    lost = {name: event(run.host.events, "cycles:D").in_error for name, run in runs("watchdog").items()}
    assert lost == {
        "emulated": 0,
        "partitioned,reservation=static": 1,
        "partitioned,pinned=error": 1,
        "partitioned": 0,
        "partitioned-v8": 1,
    }
    kept = runs("watchdog", "guest.counters=9").values()
    assert [event(run.host.events, "cycles:D").in_error for run in kept] == [0, 0, 0, 0, 0]


def test_watchdog_beats_an_event_of_the_guest_silently_on_the_emulated_vpmu() -> None:
    lost = event(runs("watchdog")["emulated"].guests[0].events, "stalled-cycles-backend")
    assert (lost.count, got(lost), lost.in_error) == (0, 1, 0)
    assert lost.truth > 0


def test_migration_keeps_every_count_but_where_a_transition_loads_nothing_or_the_vms_pmu_is_another() -> None:
    by = runs("migration")
    for name, run in by.items():
        errors = [error(one) for one in run.guests[0].events if one.event != "cycles"]
        if name == "partitioned-v8":
            assert max(errors) < -0.01
        elif name == "emulated":
            assert max(errors) < -0.3, "on the other pCPU the backing events stand still"
        else:
            assert all(-0.001 < one <= 0 for one in errors)


def test_stress_record_the_host_prints_less_kernel_time_than_it_spends() -> None:
    by = runs("stress-record")
    for run in by.values():
        assert run.cputime.host_kernel < run.time.host_kernel
    assert _share(by["emulated-6.15"]) > 0.4 > 0.2 > _share(by["partitioned-v1"])


def _share(run: Run) -> float:
    """The host kernel's, of all CPU time."""
    return float(run.time.host_kernel / run.time.total)


def test_handoff_shows_each_guest_its_own_count_and_the_host_what_it_waited() -> None:
    shares = {}
    for design, run in runs("handoff").items():
        assert [step.value for step in run.steps if step.value is not None] == [1000 + 5000, 7 + 3000, 1000 + 5000]
        (preempted,) = (step for step in run.steps if step.operations is not None)
        assert preempted.reached
        instructions, branches = [step for step in run.steps if step.events][-1].events
        assert instructions.running_ns == instructions.enabled_ns
        shares[design] = branches.running_ns / branches.enabled_ns
    always, dynamic, never = shares.values()
    assert (always, never) == (1, 0)
    assert 0 < dynamic < 1
