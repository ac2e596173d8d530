"""perf's event syntax, as `perf record -e` takes it."""

from __future__ import annotations

import pytest

from pmulab import scenario
from pmulab.scenario.perf_events import GUEST_PMUS, EventSyntaxError, Pmus, parse_events
from services import events
from services.errors import UserError
from services.experiment import ANY_PMU, EventSpec


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
    "text",
    [
        "ref-cycles",
        "L1-dcache-stores",
        "L1-dcache-store-misses",
        "L1-dcache-prefetches",
        "l1d-write-miss",
        "L1-icache-speculative-load",
        "LLC-stores",
        "LLC-prefetch-misses",
        "dTLB-stores",
        "node",
        "node-misses-load",
        "armv8_pmuv3_0/node-loads/",
        "L1-dcache-stores/period=7/u",
    ],
)
def test_a_generic_name_that_arms_driver_maps_to_nothing_is_a_name_all_the_same(text: str) -> None:
    """PERF_MAP_ALL_UNSUPPORTED, PERF_CACHE_MAP_ALL_UNSUPPORTED."""
    (spec,) = parse_events([text])
    assert (spec.event, spec.generic) == (events.UNMAPPED, True)


@pytest.mark.parametrize(
    ("text", "as_perf_prints_it"),
    [
        ("LLC", "LLC-loads"),
        ("L2-misses", "LLC-load-misses"),
        ("l1-d-read-refs", "L1-dcache-loads"),
        ("Data-TLB-miss-loads", "dTLB-load-misses"),
        ("btb", "branch-loads"),
        ("branches", "branch-instructions"),  # which comes first in the lexer
    ],
)
def test_caches_and_what_is_done_to_them_have_second_names(text: str, as_perf_prints_it: str) -> None:
    """parse_events__decode_legacy_cache."""
    (spec,), (same,) = parse_events([text]), parse_events([as_perf_prints_it])
    assert spec.event == same.event != events.UNMAPPED


@pytest.mark.parametrize("text", ["L1-icache-stores", "iTLB-store-misses", "branch-prefetches", "node-loads-stores"])
def test_there_are_no_stores_to_caches_of_instructions(text: str) -> None:
    """evsel__is_cache_op_valid."""
    with pytest.raises(UserError, match="unknown event"):
        parse_events([text])


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
        (":p", ""),
        (":pG", "host"),
        (":pH", "guest"),
        (":P", ""),
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


def test_terms_replace_the_sessions_sampling() -> None:
    texts = [
        "cycles/freq=500/",
        "r11/period=7/u",
        "armv8_pmuv3_0/event=0x11,period=0x10,long=1/",
        "inst_retired/freq=1/",
    ]
    specs = parse_events([*texts, "branches"], period=1000)
    assert [(spec.frequency, spec.period) for spec in specs] == [(500, 0), (0, 7), (0, 16), (1, 0), (0, 1000)]
    assert [spec.event for spec in specs] == [0x11, 0x11, 0x11, 0x08, 0x21]
    assert (specs[1].exclude_kernel, specs[2].long) == (True, True)


def test_terms_do_not_make_perf_stat_sample() -> None:
    (spec,) = parse_events(["cycles/freq=500/"])
    assert (spec.frequency, spec.period) == (0, 0)


def test_only_the_leader_of_a_group_that_is_read_samples() -> None:
    """evsel__config_leader_sampling."""
    specs = parse_events(["{cycles,branches,r8/period=5/}:S", "{cycles:S,branches:u}", "cycles"], frequency=100)
    assert [(spec.frequency, spec.period) for spec in specs] == [(100, 0), (0, 0), (0, 5), (100, 0), (0, 0), (100, 0)]


def test_modifiers_of_groups_and_their_leaders() -> None:
    specs = parse_events(["{cycles,branches}:eWS", "cycles:I"])
    assert [spec.exclusive for spec in specs] == [True, False, False]
    assert [spec.weak for spec in specs] == [True, True, False]
    assert [spec.sample_read for spec in specs] == [True, True, False]
    assert [spec.exclude_idle for spec in specs] == [False, False, True]


def test_an_events_own_modifiers_are_its_own() -> None:
    """parse_events__modifier_list comes before its group has a leader: the kernel is asked for a pinned member."""
    specs = parse_events(["{cycles:e,branches:D,r8}"])
    assert [(spec.pinned, spec.exclusive) for spec in specs] == [(False, True), (True, False), (False, False)]


@pytest.mark.parametrize("text", ["cycles:uu", "cycles:kuk", "{cycles:u}:HuH", "{cycles,branches}:WW", "cycles:PP"])
def test_a_modifier_is_there_once(text: str) -> None:
    """modifiers (parse-events.l); a group's may be an event's too, and p says how precise by its number."""
    with pytest.raises(EventSyntaxError, match="is there twice"):
        parse_events([text])
    parse_events(["{cycles:up,branches:u}:upp"])


@pytest.mark.parametrize("text", ["r", "cycle", "mis", "branchs"])
def test_an_unknown_name_is_told_a_handful_of_others_at_most(text: str) -> None:
    with pytest.raises(EventSyntaxError) as error:
        parse_events([text])
    question, asked, _ = error.value.remedy.partition("?")
    assert bool(asked) == (len(text) > 1), "a letter is in most of them"
    assert len(question.split(" or ")) <= 8


def test_commas_in_a_pmus_terms_do_not_separate_events() -> None:
    first, second = parse_events(["armv8_pmuv3_0/event=0x11,long=1/,r8"], period=5)
    assert (first.event, first.long, second.event, second.long) == (0x11, True, 0x08, False)
    assert (first.period, first.frequency) == (5, 0)


def test_leaders_count_over_all_arguments() -> None:
    assert [spec.leader for spec in parse_events(["cycles", "{r1,r2}", "{r3,r4}"])] == [0, 1, 1, 3, 3]


@pytest.mark.parametrize("name", events.names())
def test_every_listed_name_can_be_asked_for(name: str) -> None:
    generic = events.generic(name)
    number = events.number(name) if generic is None else generic
    by_sysfs = generic is None
    assert parse_events([name]) == (EventSpec(name, number, 0, generic=not by_sysfs, sysfs=by_sysfs),)


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
        ("cycles:p", True),
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


TWO = Pmus(("armv8_neoverse_n1", "armv8_cortex_a55"))


def bound(*arguments: str, pmus: Pmus = TWO) -> list[tuple[str, int, int]]:
    """Each event's name, PMU and leader."""
    return [(spec.name, spec.pmu, spec.leader) for spec in parse_events(arguments, pmus=pmus)]


def test_a_plain_event_is_one_on_each_core_pmu_in_the_order_of_their_names() -> None:
    assert bound("cycles:u,inst_retired") == [
        ("armv8_cortex_a55/cycles:u/", 1, 0),
        ("armv8_neoverse_n1/cycles:u/", 0, 1),
        ("armv8_cortex_a55/inst_retired/", 1, 2),
        ("armv8_neoverse_n1/inst_retired/", 0, 3),
    ]
    assert bound("r11") == [("r11", ANY_PMU, 0)]


def test_an_event_is_bound_to_the_pmu_that_it_names() -> None:
    for name, pmu in (
        ("armv8_cortex_a55/cpu_cycles/u", 1),
        ("armv8_neoverse_n1/event=0x8/", 0),
        ("armv8_pmuv3_1/event=0x8/", 1),
    ):
        assert bound(name) == [(name, pmu, 0)]
    for unknown in ("armv8_cortex_a57", "armv8_pmuv3", "armv8_pmuv3_2"):
        with pytest.raises(UserError, match=rf"no PMU '{unknown}'.*armv8_"):
            bound(f"{unknown}/event=0x8/")


def test_where_there_is_one_pmu_its_events_are_called_as_they_were() -> None:
    one = Pmus(("armv8_neoverse_n1",))
    names = ["armv8_neoverse_n1/event=0x8/", "armv8_pmuv3_0/event=0x8/", "armv8_pmuv3/event=0x8/", "cycles"]
    assert bound(*names, pmus=one) == [(name, ANY_PMU, n) for n, name in enumerate(names)]
    with pytest.raises(UserError, match="no PMU 'armv8_neoverse_n1'"):
        bound("armv8_neoverse_n1/event=0x8/", pmus=GUEST_PMUS)


def test_a_group_is_one_on_each_pmu_and_each_has_a_leader() -> None:
    specs = parse_events(["r1", "{cycles,armv8_cortex_a55/event=0x8/,branches}:D"], pmus=TWO)
    assert [(spec.name, spec.leader, spec.pinned) for spec in specs] == [
        ("r1", 0, False),
        ("armv8_cortex_a55/cycles/", 1, True),
        ("armv8_cortex_a55/event=0x8/", 1, False),
        ("armv8_cortex_a55/branches/", 1, False),
        ("armv8_neoverse_n1/cycles/", 4, False),
        ("armv8_neoverse_n1/branches/", 4, False),
    ]
    of_the_event = parse_events(["{cycles:e,branches}"], pmus=TWO)
    assert [(spec.pmu, spec.exclusive) for spec in of_the_event] == [(1, True), (1, False), (0, True), (0, False)]


def test_a_software_event_is_one_event_and_goes_with_the_first_pmu_of_its_group() -> None:
    """evsel__compute_group_pmu_name."""
    two = Pmus(("armv8_cortex_a55", "armv8_cortex_a76"))
    specs = parse_events(["cs", "{task-clock,cycles}"], pmus=two)
    assert [(spec.software, spec.pmu, spec.leader) for spec in specs] == [
        (True, -1, 0),
        (True, 0, 1),
        (False, 0, 1),
        (False, 1, 3),
    ]


def test_config1_is_long_and_rdpmc() -> None:
    names = [
        "cpu_cycles,rdpmc=1",
        "cpu_cycles,rdpmc",
        "cpu_cycles,config1=2",
        "cpu_cycles,long=1,rdpmc=1",
        "cpu_cycles,config1=3",
    ]
    asked = [spec for name in names for spec in parse_events([f"armv8_pmuv3_0/{name}/"])]
    assert [(spec.rdpmc, spec.long) for spec in asked] == [(True, False)] * 3 + [(True, True)] * 2
    for wrong in ("rdpmc=2", "config1=8", "long=-1"):
        with pytest.raises(UserError):
            parse_events([f"armv8_pmuv3_0/cpu_cycles,{wrong}/"])


def test_b_is_said_of_an_event_and_of_each_of_a_group() -> None:
    specs = parse_events(["cycles:ub", "{cycles,instructions}:b", "cycles"])
    assert [spec.bpf for spec in specs] == [True, True, True, False]
    assert specs[0].exclude_kernel
