"""perf's event syntax, as `perf record -e` takes it."""

from __future__ import annotations

import pytest

from pmulab.scenario.perf_events import parse_events
from services import events
from services.experiment import EventSpec


@pytest.mark.parametrize(
    ("text", "event"),
    [
        ("cycles", 0x11),
        ("cpu-cycles", 0x11),
        ("instructions", 0x08),
        ("branches", 0x21),
        ("L1-dcache-loads", 0x04),
        ("l1-dcache-load-misses", 0x03),
        ("inst_retired", 0x08),
        ("BR_MIS_PRED_RETIRED", 0x22),
        ("r11", 0x11),
        ("r0x1b", 0x1B),
        ("armv8_pmuv3_0/event=0x11/", 0x11),
        ("armv8_pmuv3/inst_retired/", 0x08),
        ("armv8_cortex_a57/config=0x3C/u", 0x3C),
    ],
)
def test_a_name_is_a_pmuv3_event(text: str, event: int) -> None:
    (spec,) = parse_events([text])
    assert (spec.name, spec.event, spec.leader) == (text, event, 0)


@pytest.mark.parametrize(
    ("modifiers", "excluded"),
    [
        ("", ""),
        (":u", "kernel hv"),
        (":k", "user hv"),
        (":uk", "hv"),
        (":h", "user kernel"),
        (":G", "host"),
        (":H", "guest"),
        (":GH", ""),
        (":uG", "kernel hv host"),
    ],
)
def test_modifiers_exclude_what_they_do_not_name(modifiers: str, excluded: str) -> None:
    (spec,) = parse_events([f"cycles{modifiers}"])
    found = [name for name in ("user", "kernel", "hv", "host", "guest") if getattr(spec, f"exclude_{name}")]
    assert found == excluded.split()


def test_a_group_is_led_by_its_first_event_and_shares_modifiers() -> None:
    specs = parse_events(["cycles,{instructions:k,r23}:uD,branches"], frequency=1000)
    assert [spec.leader for spec in specs] == [0, 1, 1, 3]
    assert [spec.exclude_kernel for spec in specs] == [False, False, True, False]
    assert [spec.pinned for spec in specs] == [False, True, False, False]
    assert {spec.frequency for spec in specs} == {1000}


def test_commas_in_a_pmus_terms_do_not_separate_events() -> None:
    first, second = parse_events(["armv8_pmuv3_0/event=0x11,long=1/,r8"], period=5)
    assert (first.event, first.long, second.event, second.long) == (0x11, True, 0x08, False)
    assert (first.period, first.frequency) == (5, 0)


def test_leaders_count_over_all_arguments() -> None:
    assert [spec.leader for spec in parse_events(["cycles", "{r1,r2}", "{r3,r4}"])] == [0, 1, 1, 3, 3]


@pytest.mark.parametrize("name", events.names())
def test_every_listed_name_can_be_asked_for(name: str) -> None:
    assert parse_events([name]) == (EventSpec(name, events.number(name), 0),)


def test_architectural_names_round_trip() -> None:
    for name, number in events.pmuv3().items():
        assert events.architectural_name(number) == name
    assert events.architectural_name(0x4004) == "r4004"
