"""The error of a scaled count, split by cause: the parts add up, and each cause shows where it is at work."""

from dataclasses import asdict
from typing import Any

import orjson
import pytest

from pmulab import scenario
from pmulab.batch import run_designs
from services.kvm.reports import of_host
from services.result import Event
from services.result.counts import events as events_of

S = 10**9


COUNTED = {"count": 900, "held": 1000, "truth": 1000, "enabled": 4 * S, "running": 4 * S}


def event(**row: int) -> Event:
    plain = {"name": "e", "samples": 0, "state": 1, "enabled": 4 * S, "running": 4 * S} | row
    (made,) = events_of([{"sessions": [{"name": "", "events": [plain]}]}])
    return made


@pytest.mark.parametrize(
    ("row", "cause", "size"),
    [
        ({"count": 900, "held": 1000, "truth": 1000}, "stopped", -100),
        ({"count": 900, "held": 1000, "truth": 1000, "throttled": 100}, "throttled", -100),
        ({"count": 1100, "held": 1000, "truth": 1000}, "surplus", 100),
        ({"count": 2**40, "held": 0, "truth": 0}, "surplus", 2**40),
        ({"count": 300, "held": 300, "truth": 1000, "running": 2 * S}, "multiplexing", -400),
        ({"count": 7, "held": 7 + 2**32, "truth": 7 + 2**32}, "overflow", -(2**32)),
    ],
)
def test_each_cause_alone(row: dict[str, int], cause: str, size: int) -> None:
    error = event(**row).error
    assert error is not None
    assert asdict(error) == dict.fromkeys(asdict(error), 0) | {cause: size}


def test_an_event_in_error_has_no_count() -> None:
    """__perf_read returns end of file; perf stat takes no count of such an event, not even of its other CPUs."""
    on_cpus = [
        {"sessions": [{"name": "host.perf", "events": [{"name": "e", "samples": 0, "state": state, **COUNTED}]}]}
        for state in (1, -2)
    ]
    (made,) = events_of(on_cpus)
    assert (made.count, made.scaled, made.error, made.deviation) == (None, None, None, None)
    assert (made.in_error, made.truth) == (1, 2000)


def test_what_scaling_makes_larger_than_64_bits_hold_is_what_they_hold() -> None:
    one = event(count=2**50, held=2**50, truth=2**50, enabled=2**50, running=1)
    assert one.scaled == 2**64 - 1
    assert one.error is not None
    assert sum(asdict(one.error).values()) == one.scaled - one.truth
    orjson.dumps(one)


def test_counts_are_added_up_as_u64s_and_one_may_be_any() -> None:
    """Somebody else may have written the counter: perf's difference wraps."""
    row = {"name": "e", "samples": 0, "state": 1, "held": 0, "truth": 0, "enabled": S, "running": S, "count": 2**64 - 1}
    report = {"sessions": [{"name": "host.perf", "events": [row]}]}
    assert of_host(orjson.dumps(report)) == report
    (made,) = events_of([report, report])
    assert made.count == 2**64 - 2
    orjson.dumps(made)


@pytest.mark.parametrize(
    ("row", "scaled"),
    [
        ({"count": 2**64 - 1, "held": 2**64 - 1, "truth": 2**64 - 1, "enabled": 2**64 - 1, "running": 2**64 - 1}, -1),
        ({"count": 0, "held": 0, "truth": 2**64 - 1, "enabled": 2**64 - 1, "running": 2**54, "lost_count": 1}, 0),
        ({"count": 2**64 - 1, "held": 0, "truth": 0, "enabled": S, "running": S}, -1),
    ],
)
def test_counts_times_and_truths_are_u64s(row: dict[str, int], scaled: int) -> None:
    """And so is what they scale to; of the parts of its error only the least is less than it was."""
    one = {"name": "e", "samples": 2**64 - 1, "state": 1} | row
    grown = [row["count"], row["truth"], row["enabled"], row["running"], 0]
    intervals = [{"time": 2**64 - 1, "events": [grown]}]
    report = {"sessions": [{"name": "host.perf", "events": [one], "intervals": intervals}]}
    assert of_host(orjson.dumps(report)) == report
    (made,) = events_of([report])
    assert (made.truth, made.enabled_ns, made.running_ns) == (row["truth"], row["enabled"], row["running"])
    assert made.scaled == scaled % 2**64
    orjson.dumps(made)


def test_an_event_that_has_counted_had_a_counter_whatever_its_time_says() -> None:
    of = {
        "name": "e",
        "samples": 0,
        "state": 1,
        "held": 0,
        "truth": 0,
        "enabled": S,
        "running": 0,
        "starved": ["event:x"],
    }
    said = [
        events_of([{"sessions": [{"name": "host.perf", "events": [of | {"count": count}]}]}])[0].starved
        for count in (0, 3)
    ]
    assert said == ["x has one", ""]


def test_what_throttling_leaves_uncounted_is_not_what_the_driver_does() -> None:
    one = event(count=300, held=350, truth=700, running=2 * S, throttled=30, throttles=4, missed=2)
    assert one.error is not None
    assert (one.error.throttled, one.error.stopped, one.error.surplus) == (-60, -40, 0)
    assert (one.throttles, one.missed) == (4, 2)


@pytest.mark.parametrize("name", ["quick", "two-vms"])
def test_the_parts_add_up_in_a_real_run(name: str) -> None:
    for run in run_designs(scenario.load(name), jobs=1).runs:
        events = [event for guest in run.guests for event in guest.events] + list(run.host.events)
        assert events
        for one in events:
            assert one.error is not None
            assert one.scaled is not None
            assert sum(asdict(one.error).values()) == one.scaled - one.truth
            assert one.error.surplus == one.error.overflow == 0


def test_sessions_are_one_if_the_scenario_has_them_as_one_and_else_apart() -> None:
    plain = {"name": "e", "samples": 1, "state": 1, "enabled": S, "running": S, "count": 5, "held": 5, "truth": 5}

    def on(name: str) -> dict[str, Any]:
        return {"sessions": [{"name": name, "events": [plain]}]}

    assert [event.count for event in events_of([on("host.perf"), on("host.perf")])] == [10]
    assert [event.count for event in events_of([on("a"), on("b")])] == [5, 5]
    assert [event.count for event in events_of([on(""), on("")])] == [5, 5]
