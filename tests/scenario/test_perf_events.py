"""perf's event syntax, as `perf record -e` takes it."""

from __future__ import annotations

import pytest

from pmulab import scenario
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
    assert parse_events([name]) == (EventSpec(name, events.number(name), 0, generic=events.is_generic(name)),)


def test_architectural_names_round_trip() -> None:
    for name, number in events.pmuv3().items():
        assert events.architectural_name(number) == name
    assert events.architectural_name(0x4004) == "r4004"


@pytest.mark.parametrize(
    ("text", "excludes"),
    [
        ("cycles", True),
        ("r11", True),
        ("armv8_pmuv3_0/event=0x11/", True),
        ("cycles:u", True),
        ("cycles:uk", True),
        ("cycles:k", False),
        ("cycles:D", False),
        ("cycles:G", False),
        ("cycles:uG", False),
        ("cycles:H", True),
        ("cycles:GH", False),
        ("{cycles}", True),
        ("{cycles}:k", True),
        ("{cycles:k}:k", False),
        ("{cycles:k}:u", True),
        ("{cycles}:G", False),
    ],
)
def test_tools_before_6_13_exclude_guests_by_themselves(text: str, excludes: bool) -> None:
    """event_attr_init, and what parse_events makes of it with and without modifiers."""
    (spec,) = parse_events([text], tool="6.12")
    assert (spec.exclude_guest, spec.exclude_host) == (excludes, "G" in text and "H" not in text)
    (later,) = parse_events([text])
    assert later.exclude_guest is ("H" in text and "G" not in text)


def test_the_hosts_perf_tool_is_a_key() -> None:
    overrides = ['host.perf_tool="6.12"', 'host.perf=[{verb="stat",events="cycles"}]']
    (of,) = scenario.load("quick", designs=["emulated"], overrides=overrides).experiments
    (event,) = of.host.cpus[0].sessions[0].events
    assert event.exclude_guest
    assert of.host.perf_tool == "6.12"
