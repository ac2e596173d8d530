"""Events that cannot be opened, as a user meets them: what is supported, what runs, and what is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmulab import cli, scenario
from pmulab.batch import run_designs
from pmulab.report import render
from services.result import Event, Result, Run

FLUSHES = 'workload = "gzip-random"\nseconds = 0.005\n'


def result_of(tmp_path: Path, text: str) -> Result:
    path = tmp_path / "own.toml"
    path.write_text(text)
    return run_designs(scenario.load(str(path)), jobs=1)


def run(tmp_path: Path, text: str) -> Run:
    return result_of(tmp_path, text).runs[0]


def supported(events: tuple[Event, ...]) -> dict[str, bool]:
    return {event.event: not event.unsupported for event in events}


def whole(event: Event) -> bool:
    return event.running == 1 and bool(event.count)


def test_the_event_that_is_too_many_for_a_guests_pmu_is_not_supported_and_the_others_count(tmp_path: Path) -> None:
    """Five event counters and the cycle counter hold six of the seven (github andikleen/pmu-tools issue 429)."""
    names = "cycles,instructions,branches,branch-misses,L1-dcache-loads,L1-dcache-load-misses,dTLB-loads"
    text = f"""
        [machine]
        core = "neoverse-v2"
        [[guest]]
        pin = [0]
        counters = 5
        [[guest.task]]
        {FLUSHES}
        [guest.task.perf]
        verb = "stat"
        events = ["{{{names}}}"]
    """
    result = result_of(tmp_path, text)
    (guest,) = result.runs[0].guests
    *counted, last = guest.events
    assert all(map(whole, counted))
    assert last.unsupported.startswith("EINVAL: a group of 7 does not fit")
    assert f"\ndTLB-loads is not supported: {last.unsupported}\n" in render(result)


@pytest.mark.parametrize("members", [7, 8])
def test_a_cpu_wide_group_may_have_one_event_more_than_fits_and_then_never_runs(tmp_path: Path, members: int) -> None:
    """validate_event lets a leader pass that is OFF without enable_on_exec: `perf stat -a` opens it so."""
    names = ["instructions", "branches", "branch-misses", "L1-dcache-loads", "dTLB-loads", "L1-icache-loads"]
    group = ",".join([*names, "LLC-loads", "iTLB-loads"][:members])
    text = f"""
        [machine]
        core = "neoverse-n1"
        [[host.perf]]
        verb = "stat"
        events = ["{{{group}}}"]
        [[host.task]]
        {FLUSHES}
    """
    events = run(tmp_path, text).host.events
    assert [bool(event.unsupported) for event in events] == [False] * 7 + [True] * (members - 7)
    assert all(event.scaled is None and not event.running_ns for event in events)
    assert all(event.enabled_ns for event in events[:7])


@pytest.mark.parametrize("of", ["host", "guest"])
def test_the_leader_of_a_program_that_is_yet_to_exec_is_counted_in_its_group(tmp_path: Path, of: str) -> None:
    """evsel__config: enable_on_exec; perf_event_enable_on_exec enables it when the program runs, on the host too."""
    names = "instructions,branches,branch-misses,L1-dcache-loads,dTLB-loads,L1-icache-loads,LLC-loads"
    text = f"""
        [machine]
        core = "neoverse-n1"
        [[{of}.task]]
        {FLUSHES}
        [{of}.task.perf]
        verb = "stat"
        events = ["{{{names}}}"]
    """
    if of == "guest":
        text = text.replace("[[guest.task]]", "[[guest]]\n[[guest.task]]")
    made = run(tmp_path, text)
    *counted, last = (made.host if of == "host" else made.guests[0]).events
    assert all(map(whole, counted))
    assert last.unsupported.startswith("EINVAL: a group of 7 does not fit")


def test_a_core_has_its_events_on_host_and_guest_and_a_raw_number_counts_nothing_that_it_lacks(tmp_path: Path) -> None:
    """An A64FX has STALL_FRONTEND, no LL_CACHE_RD, and neither of the events that `branches` could be."""
    events = 'events = ["stalled-cycles-frontend","LLC-loads","LLC-load-misses","branches","r36"]'
    text = f"""
        [machine]
        core = "a64fx"
        [[host.perf]]
        verb = "stat"
        {events}
        [[guest]]
        pin = [0]
        [[guest.task]]
        {FLUSHES}
        [guest.task.perf]
        verb = "stat"
        {events}
    """
    made = run(tmp_path, text)
    for of in (made.host.events, made.guests[0].events):
        assert supported(of) == {
            "stalled-cycles-frontend": True,
            "LLC-loads": False,
            "LLC-load-misses": False,
            "branches": False,
            "r36": True,
        }
        assert whole(of[0])
        assert (of[-1].running, of[-1].count, of[-1].truth) == (1, 0, 0)


def test_branches_are_pc_write_retired_on_a_core_without_br_retired(tmp_path: Path) -> None:
    """Of this core's events, 0x0c and 0x11 are those that matter."""
    (tmp_path / "core.toml").write_text('counters = 6\npmuver = 4\npmceid0 = 0x2_1100\npmceid1 = 0\nsource = "x"\n')
    text = f"""
        [machine]
        core = "./core.toml"
        [[host.perf]]
        verb = "stat"
        events = "branches,rc"
        [[host.task]]
        {FLUSHES}
    """
    branches, raw = run(tmp_path, text).host.events
    assert whole(branches)
    assert branches.truth == pytest.approx(raw.truth, rel=0.001), "but for what opening the second cost"


UNMAPPED = """
    [machine]
    core = "neoverse-n1"
    [[host.perf]]
    verb = "{verb}"
    events = ["cycles", "L1-dcache-stores", "ref-cycles"]
    [[guest]]
    pin = [0]
    [[guest.task]]
    workload = "gzip-random"
    seconds = 0.005
    [guest.task.perf]
    verb = "{verb}"
    events = ["cycles", "L1-dcache-stores", "ref-cycles"]
"""


def test_a_generic_event_that_arms_driver_maps_to_nothing_is_not_supported(tmp_path: Path) -> None:
    """armpmu_map_hw_event, armpmu_map_cache_event: ENOENT on every core."""
    made = run(tmp_path, UNMAPPED.format(verb="stat"))
    for cycles, stores, ref_cycles in (made.host.events, made.guests[0].events):
        assert whole(cycles)
        assert stores.unsupported == "ENOENT: Arm's driver maps L1-dcache-stores to no event of the PMU"
        assert ref_cycles.unsupported == "ENOENT: Arm's driver maps ref-cycles to no event of the PMU"


def test_perf_record_does_not_run_by_one(tmp_path: Path) -> None:
    made = run(tmp_path, UNMAPPED.format(verb="record"))
    for sessions in (made.host.refused_sessions, made.guests[0].refused_sessions):
        (refused,) = sessions
        assert refused.reason.startswith("L1-dcache-stores: ENOENT: Arm's driver maps L1-dcache-stores to no event")


@pytest.mark.parametrize("design", ["emulated", "partitioned", "mediated", "partitioned-v5"])
def test_what_the_vms_filter_denies_is_not_there_for_its_perf_but_as_a_raw_number(tmp_path: Path, design: str) -> None:
    """kvm_pmu_get_pmceid masks by the filter, and hides STALL_SLOT*, which make no sense without PMMIR_EL1."""
    text = f"""
        [machine]
        core = "neoverse-v1"
        [kvm]
        designs = ["{design}"]
        [[guest]]
        pin = [0]
        denied = ["branch-misses"]
        [[guest.task]]
        {FLUSHES}
        [guest.task.perf]
        verb = "stat"
        events = "branch-misses,branches,r10"
    """
    misses, branches, raw = run(tmp_path, text).guests[0].events
    assert misses.unsupported == "ENOENT: the PMU has no BR_MIS_PRED (PMCEID0_EL0): the VM's filter denies it"
    assert whole(branches)
    assert (raw.unsupported, raw.count) == ("", 0)


RECORD = f"""
    [machine]
    core = "a64fx"
    [kvm]
    designs = ["emulated"]
    [[host.task]]
    {FLUSHES}
    [host.task.perf]
    verb = "record"
    events = ["cycles", "LLC-loads"]
    [[guest]]
    pin = [0]
    [[guest.task]]
    {FLUSHES}
    [guest.task.perf]
    verb = "record"
    events = ["cycles", "LLC-loads"]
    [[guest.task]]
    name = "other"
    {FLUSHES}
    [guest.task.perf]
    verb = "stat"
    events = ["cycles"]
"""


def test_perf_record_does_not_run_nor_does_the_program_under_it_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = run(tmp_path, RECORD)
    (guest,) = made.guests
    (refused,) = guest.refused_sessions
    assert (refused.session, refused.verb) == ("guest.0.task.0.perf", "record")
    assert refused.reason == "LLC-loads: ENOENT: the PMU has no LL_CACHE_RD (PMCEID1_EL0): the core lacks it"
    assert [(event.session, whole(event)) for event in guest.events] == [("guest.0.task.1.perf", True)]
    assert 0.004 < guest.true_user_seconds < 0.0055, "the other program's"
    assert [one.verb for one in made.host.refused_sessions] == ["record"]
    assert made.time.host_user < 0.0001, "the host's program was killed"

    assert cli.main(["run", str(tmp_path / "own.toml")]) == 1
    out, err = capsys.readouterr()
    assert "\nemulated: perf record (guest.0.task.0.perf) does not run: LLC-loads: ENOENT" in out
    assert "\nhost: no event is counted\nemulated: perf record (host.task.0.perf) does not run: LLC-loads" in out
    assert "pmulab: emulated: vm0: perf record (guest.0.task.0.perf): LLC-loads: ENOENT" in err
    assert "pmulab: emulated: host: perf record (host.task.0.perf): LLC-loads: ENOENT" in err


def test_perf_stat_ends_where_the_leader_of_a_group_is_not_supported(tmp_path: Path) -> None:
    text = RECORD.replace('verb = "record"', 'verb = "stat"').replace(
        '["cycles", "LLC-loads"]', '["{LLC-loads,cycles}"]'
    )
    made = run(tmp_path, text)
    assert [one.session for one in made.guests[0].refused_sessions] == ["guest.0.task.0.perf"]
    assert [one.session for one in made.host.refused_sessions] == ["host.task.0.perf"]


def test_a_host_event_that_never_gets_a_counter_says_who_has_them(tmp_path: Path) -> None:
    """A pinned event of the CPU, KVM's pinned events for the guest, the guests' range, or the group's own size."""
    text = f"""
        [machine]
        core = "neoverse-n1"
        [kvm]
        designs = ["emulated", "partitioned,reservation=static"]
        [host]
        hz = 1000
        [[host.perf]]
        verb = "stat"
        events = ["r3:D", "{{r4,r5,r6,r7,r8,r9}}"]
        [[guest]]
        name = "web"
        pin = [0]
        [[guest.task]]
        {FLUSHES}
        [guest.task.perf]
        verb = "stat"
        events = ["cycles", "instructions"]
    """
    result = result_of(tmp_path, text)
    emulated, partitioned = (one.host.events for one in result.runs)
    assert [event.starved for event in emulated] == ["", *["r3:D has one; KVM counts for web with some"] * 6]
    assert {event.starved for event in partitioned if not event.unsupported} == {"7 of 7 are the guests' range"}
    assert "\nemulated: r4 never got a counter: r3:D has one; KVM counts for web with some\n" in render(result)


SYSFS = """
    [machine]
    core = "{core}"
    [kvm]
    designs = ["emulated"]
    [[{of}.task]]
    workload = "gzip-random"
    seconds = 0.002
    [{of}.task.perf]
    verb = "{verb}"
    events = ["cycles", "{event}"]
"""


@pytest.mark.parametrize("verb", ["stat", "record"])
@pytest.mark.parametrize(
    ("of", "core", "event", "why"),
    [
        ("host", "a64fx", "ll_cache_rd", "LL_CACHE_RD (PMCEID1_EL0)"),
        ("host", "a64fx", "armv8_a64fx/ll_cache_rd/", "LL_CACHE_RD (PMCEID1_EL0)"),
        ("guest", "a64fx", "ll_cache_rd", "LL_CACHE_RD (PMCEID1_EL0): the core lacks it"),
        ("guest", "neoverse-v1", "stall_slot", "STALL_SLOT (PMCEID1_EL0): KVM hides it, or the core lacks it"),
        ("guest", "neoverse-v1", "br_mis_pred", "BR_MIS_PRED (PMCEID0_EL0): the VM's filter denies it"),
    ],
)
def test_a_name_that_sysfs_does_not_have_is_a_syntax_error(
    tmp_path: Path, of: str, core: str, event: str, why: str, verb: str
) -> None:
    """armv8pmu_event_attr_is_visible, parse_events_multi_pmu_add: the tool ends before it opens anything."""
    text = SYSFS.format(of=of, core=core, event=event, verb=verb)
    if of == "guest":
        text = text.replace("[[guest.task]]", '[[guest]]\ndenied = ["br_mis_pred"]\n[[guest.task]]')
    made = run(tmp_path, text)
    actor = made.host if of == "host" else made.guests[0]
    (refused,) = actor.refused_sessions
    assert refused.reason == f"event syntax error: {event!r}: bad event name: the PMU has no {why}"
    assert not actor.events
    assert cli.main(["run", str(tmp_path / "own.toml")]) == 1


def test_a_name_of_sysfs_is_opened_on_the_pmus_that_have_it(tmp_path: Path) -> None:
    text = """
        [machine]
        pcpus = 2
        core = ["a64fx", "neoverse-n1"]
        [[host.perf]]
        verb = "stat"
        events = ["ll_cache_rd", "{ll_cache_rd,inst_retired}"]
        [[host.task]]
        workload = "gzip-random"
        seconds = 0.002
    """
    path = tmp_path / "own.toml"
    path.write_text(text)
    (experiment,) = scenario.load(str(path)).experiments
    (session,) = experiment.host.cpus[1].sessions
    assert [(event.name, event.leader) for event in session.events] == [
        ("armv8_neoverse_n1/ll_cache_rd/", 0),
        ("armv8_a64fx/inst_retired/", 1),
        ("armv8_neoverse_n1/ll_cache_rd/", 2),
        ("armv8_neoverse_n1/inst_retired/", 2),
    ]


def test_a_group_that_is_read_samples_by_its_leader(tmp_path: Path) -> None:
    """evsel__config_leader_sampling, perf_output_read_group."""
    text = f"""
        [machine]
        core = "neoverse-n1"
        [[guest]]
        pin = [0]
        [[guest.task]]
        {FLUSHES}
        [guest.task.perf]
        verb = "record"
        period = 100000
        events = ["{{instructions,branches}}:SI", "cycles/freq=1000/"]
    """
    (refusal,) = run(tmp_path, text).guests[0].refused_sessions
    assert "EOPNOTSUPP" in refusal.reason
    leader, member, cycles = run(tmp_path, text.replace(":SI", ":S")).guests[0].events
    assert leader.samples == (leader.count or 0) // 100_000 > 0
    assert (member.samples, whole(member)) == (0, True)
    assert leader.sampled is not None
    assert member.sampled is not None
    assert leader.sampled // 100_000 == leader.samples
    assert 0 < member.sampled <= (member.count or 0)
    assert cycles.sampled is None
    assert 0 < cycles.samples < 20


def test_software_events_count_on_a_guest_and_on_its_host_without_a_pmu_even(tmp_path: Path) -> None:
    """A program that sleeps four times, in a guest that finds no PMU; the host watches the CPU."""
    text = """
        [machine]
        core = "neoverse-n1"
        [[host.perf]]
        verb = "stat"
        events = ["cs", "{cpu-clock,cycles:G}"]
        [[guest]]
        pin = [0]
        pmuver = 0
        [[guest.task]]
        workload = "gzip-random"
        seconds = "1 ms"
        repeat = 5
        sleep_ms = 3
    """
    made = run(tmp_path, text)
    switches, clock, cycles = made.host.events
    assert switches.count == switches.truth == 9, "to the vCPU and to idle, by turns"
    assert clock.count == clock.truth == clock.enabled_ns
    assert cycles.running == 1


def test_host_and_guest_sample_by_software_events(tmp_path: Path) -> None:
    """Without a PMU in the guest, even; on the host a clock of a CPU samples idle time and guests, as the kernel's."""
    text = """
        [machine]
        core = "neoverse-n1"
        [[host.perf]]
        verb = "record"
        period = 100_000
        events = ["cpu-clock", "cpu-clock:I", "cpu-clock:u", "context-switches/period=2/"]
        [[guest]]
        pin = [0]
        pmuver = 0
        [[guest.task]]
        workload = "gzip-random"
        seconds = "1 ms"
        repeat = 5
        sleep_ms = 3
        [guest.task.perf]
        verb = "record"
        frequency = 10_000
        events = ["{task-clock,cpu-clock}:S", "cpu-clock:u", "cs"]
    """
    made = run(tmp_path, text)
    clock, busy, user, switches = made.host.events
    (guest,) = made.guests
    assert clock.samples == (clock.count or 0) // 100_000
    assert clock.truth == pytest.approx(guest.elapsed_seconds * 1e9, rel=0.01), "it samples idle time, too"
    assert 0 < busy.samples < clock.samples
    assert user.samples == 0
    assert switches.samples == (switches.count or 0) // 2 > 0
    leader, member, of_user, slept = guest.events
    assert leader.samples == (leader.count or 0) // 100_000 > 40
    assert (leader.sampled or 0) // 100_000 == (member.sampled or 0) // 100_000 == leader.samples
    assert member.samples == 0
    assert 0 < of_user.samples <= leader.samples
    assert slept.samples == slept.count == 4
