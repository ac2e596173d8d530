"""A machine of several kinds of core: whose PMU an event is on, and whether guests have any."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmulab import cli, scenario
from pmulab.batch import run_designs
from pmulab.report import render
from pmulab.scenario import injection
from services.core_pmus import CorePmu, core_pmus, no_vpmu
from services.errors import UserError
from services.experiment import CpuSpec, SessionSpec
from services.kvm.designs import designs
from services.result import Result

DIFFERENT = """
[machine]
core = ["neoverse-n1", "neoverse-v3"]
[kvm]
designs = ["{}"]
[[guest]]
pin = [0]
[[guest.task]]
workload = "gzip-random"
seconds = 0.002
[guest.task.perf]
verb = "stat"
events = ["cycles"]
"""


def result_of(tmp_path: Path, text: str, *designs: str) -> Result:
    path = tmp_path / "own.toml"
    path.write_text(text)
    return run_designs(scenario.load(str(path), designs=designs), jobs=1)


def test_there_is_one_pmu_for_each_kind_of_core() -> None:
    little, big = CpuSpec("cortex-a55", 6, 4), CpuSpec("neoverse-n1", 6, 4)
    assert core_pmus((big, little, big)) == (CorePmu("armv8_neoverse_n1", (0, 2)), CorePmu("armv8_cortex_a55", (1,)))
    larger = CpuSpec("cortex-a55", 8, 4)
    names = [pmu.name for pmu in core_pmus((little, larger, CpuSpec("cortex-a55", 6, 4, fgt=1)))]
    assert names == ["armv8_cortex_a55_0", "armv8_cortex_a55_1"], "what does not concern the PMU makes no other kind"


def test_pmuver_is_one_for_all_cpus_or_none() -> None:
    old, new = CpuSpec("a", 6, 4), CpuSpec("b", 6, 7)
    assert no_vpmu((old, CpuSpec("c", 8, 4))) == ""
    assert no_vpmu((old, new, old)).startswith("PMUVer differs over the CPUs (PMUv3p1 on pCPU 0, 2, PMUv3p7 on pCPU 1)")


@pytest.mark.parametrize("design", sorted(designs()))
def test_where_pmuver_differs_there_is_no_vpmu_under_any_design(tmp_path: Path, design: str) -> None:
    """kvm_host_pmu_init: the host's own perf keeps its counters."""
    text = DIFFERENT + '[[host.perf]]\nverb = "stat"\npcpu = [0]\nevents = ["r8", "r11"]\n'
    result = result_of(tmp_path, text.format(design))
    (run,) = result.runs
    (guest,) = run.guests
    assert guest.no_vpmu.startswith("PMUVer differs")
    assert guest.events[0].unsupported == "ENOENT: the kernel finds no PMU"
    assert guest.true_user_seconds > 0.001, "the program runs all the same"
    assert (run.kvm.traps.total, run.kvm.swaps.register_writes) == (0, 0)
    assert f"\nvm0 has no PMU: {guest.no_vpmu}\n" in render(result)
    assert all(event.running == 1 and event.count for event in run.host.events)


def test_a_guest_that_is_given_no_pmu_runs_its_program_and_supports_no_event(tmp_path: Path) -> None:
    """armv8pmu_probe_pmu finds PMUVer 0: perf stat goes on without its events."""
    text = DIFFERENT.format("emulated").replace("[[guest]]", "[[guest]]\npmuver = 0")
    result = result_of(tmp_path, text[text.index("[kvm]") :])
    (run,) = result.runs
    (guest,) = run.guests
    assert (guest.no_vpmu, guest.events[0].unsupported) == ("pmuver = 0", "ENOENT: the kernel finds no PMU")
    assert guest.true_user_seconds > 0.001
    assert "\nvm0 has no PMU: pmuver = 0\n" in render(result)


def test_perf_record_does_not_run_in_a_guest_without_a_vpmu(tmp_path: Path) -> None:
    text = DIFFERENT.replace('"stat"', '"record"').replace('"cycles"', '"instructions"').format("emulated")
    (run,) = result_of(tmp_path, text).runs
    assert run.guests[0].refused_sessions[0].reason == "instructions: ENOENT: the kernel finds no PMU"


def test_perf_record_of_cycles_falls_back_to_task_clock_there(tmp_path: Path) -> None:
    """evsel__fallback, which keeps the modifiers; perf record's default event is one such."""
    text = DIFFERENT.replace('"stat"', '"record"').replace('"cycles"', '"cycles", "cpu-cycles/freq=10000/u"')
    (run,) = result_of(tmp_path, text.format("emulated")).runs
    (guest,) = run.guests
    assert [event.event for event in guest.events] == ["task-clock", "task-clock:u"]
    assert not guest.refused_sessions
    samples = [(event.count or 0) // period for event, period in zip(guest.events, (250_000, 100_000), strict=True)]
    assert guest.events[0].samples == samples[0] > 5
    assert samples[1] * 0.9 < guest.events[1].samples <= samples[1], "those that found the kernel are left out"


def test_a_pmuver_that_no_guest_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"own.toml:8: PMUVer differs .* give 0, or leave it out"):
        result_of(tmp_path, DIFFERENT.replace("pin = [0]", "pin = [0]\npmuver = 4").format("emulated"))


def test_a_guest_that_asked_for_no_pmu_concerns_no_design(tmp_path: Path) -> None:
    text = """
        [machine]
        core = "neoverse-n1"
        [[host.perf]]
        verb = "stat"
        events = ["cycles"]
        [[guest]]
        pmuver = 0
        counters = 2
        [[guest.task]]
        workload = "gzip-random"
        seconds = 0.002
    """
    result = result_of(tmp_path, text, *sorted(designs()))
    assert not result.failures, "not even where a guest has to have all counters"
    for run in result.runs:
        assert run.kvm.swaps.register_writes == 0
        assert run.host.events[0].running == 1


BESIDE = """
[machine]
core = ["neoverse-n1", "a64fx"]
[[host.task]]
workload = "gzip-random"
pcpu = 0
seconds = 0.005
"""


def test_an_event_of_another_cores_pmu_does_not_see_what_runs_here(tmp_path: Path) -> None:
    events = "armv8_a64fx/cpu_cycles/u,armv8_neoverse_n1/cpu_cycles/u,r11:u"
    text = BESIDE + f'[[host.perf]]\nverb = "stat"\nevents = "{events}"\n'
    there, here, raw = result_of(tmp_path, text).runs[0].host.events
    assert (there.event, there.count, there.truth) == ("armv8_a64fx/cpu_cycles/u", 0, 0)
    assert (here.running, here.count) == (1, here.truth)
    assert here.truth > 14_000_000
    assert (raw.count, raw.running) == (here.count, 1), "a raw number is on the PMU of each CPU"


def test_a_plain_event_is_a_row_for_each_pmu_and_each_has_its_own_events_and_size(tmp_path: Path) -> None:
    """An A64FX has 8 counters and no LL_CACHE_RD, a Neoverse N1 6 and no group of seven."""
    group = "{instructions,l1i_cache,l1i_cache_refill,l1d_cache,l1d_cache_refill,inst_spec,br_mis_pred}"
    text = BESIDE + f'[[host.perf]]\nverb = "stat"\nevents = ["cycles", "LLC-loads", "{group}"]\n'
    events = {event.event: event for event in result_of(tmp_path, text).runs[0].host.events}
    assert list(events)[:4] == [
        "armv8_a64fx/cycles/",
        "armv8_neoverse_n1/cycles/",
        "armv8_a64fx/LLC-loads/",
        "armv8_neoverse_n1/LLC-loads/",
    ]
    assert events["armv8_neoverse_n1/cycles/"].truth > 14_000_000
    assert events["armv8_a64fx/cycles/"].truth < 100_000
    assert events["armv8_a64fx/LLC-loads/"].unsupported.startswith("ENOENT")
    assert not events["armv8_neoverse_n1/LLC-loads/"].unsupported
    assert events["armv8_a64fx/instructions/"].running_ns
    assert not events["armv8_neoverse_n1/instructions/"].running_ns, "one too many"


def test_a_program_under_perf_stat_is_counted_by_the_pmu_of_its_cpu(tmp_path: Path) -> None:
    text = BESIDE + '[host.task.perf]\nverb = "stat"\nevents = ["cycles", "r8"]\n'
    events = {event.event: event for event in result_of(tmp_path, text).runs[0].host.events}
    assert events["armv8_a64fx/cycles/"].scaled is None
    here = events["armv8_neoverse_n1/cycles/"]
    assert here.count == pytest.approx(here.truth, rel=1e-4)
    assert here.truth > 14_000_000
    assert events["r8"].scaled is None, "a raw number is the last PMU's"


def watching(events: str, cpus: str = "", verb: str = "stat") -> str:
    return BESIDE + f'[[host.perf]]\nverb = "{verb}"\n{cpus}\nevents = {events}\n'


NOT_COVERED = "WARNING: A requested CPU in '{}' is not supported by PMU 'armv8_{}' (CPUs {}) for event '{}'"


def test_a_session_on_listed_cpus_is_warned_of_an_event_of_others_and_has_no_row_for_it(tmp_path: Path) -> None:
    """evlist__warn_user_requested_cpus, perf_evlist__propagate_maps: an evsel whose CPU map is empty is removed."""
    result = result_of(tmp_path, watching('["cycles", "r11", "armv8_neoverse_n1/inst_retired/"]', "pcpu = 1"))
    host = result.runs[0].host
    assert [event.event for event in host.events] == ["armv8_a64fx/cycles/", "r11"]
    expected = [
        NOT_COVERED.format(1, "neoverse_n1", 0, event)
        for event in ("armv8_neoverse_n1/cycles/", "armv8_neoverse_n1/inst_retired/")
    ]
    assert [(one.session, one.verb, one.text) for one in host.warnings] == [
        ("host.perf.0", "stat", text) for text in expected
    ]
    assert all(f"\nperf stat (host.perf.0): {text}" in render(result) for text in expected)
    both = result_of(tmp_path, watching('"cycles"', "pcpu = [0, 1]")).runs[0].host
    assert [event.event for event in both.events] == ["armv8_a64fx/cycles/", "armv8_neoverse_n1/cycles/"]
    assert [one.text for one in both.warnings] == [
        NOT_COVERED.format("0,1", "a64fx", 1, "armv8_a64fx/cycles/"),
        NOT_COVERED.format("0,1", "neoverse_n1", 0, "armv8_neoverse_n1/cycles/"),
    ]
    assert result_of(tmp_path, watching('"cycles"')).runs[0].host.warnings == (), "-a"


def test_a_client_s_session_is_on_a_listed_cpu(tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    path.write_text('[perf]\nverb = "stat"\nevents = "cycles"\n')
    (tmp_path / "own.toml").write_text(BESIDE)
    (of,) = scenario.load(str(tmp_path / "own.toml")).experiments
    session, _ = injection.load(str(path), of, "host", 1)
    assert isinstance(session, SessionSpec)
    assert [event.name for event in session.events] == ["armv8_a64fx/cycles/"]
    assert session.warned == (NOT_COVERED.format(1, "neoverse_n1", 0, "armv8_neoverse_n1/cycles/"),)


def test_a_session_without_an_event_on_its_cpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none is of a CPU that is asked for: WARNING: A requested CPU in '1'"):
        result_of(tmp_path, watching('"armv8_neoverse_n1/cpu_cycles/"', "pcpu = 1"))


def test_a_software_event_leaves_a_group_that_is_not_on_all_cpus(tmp_path: Path) -> None:
    """evlist__check_cpu_maps, of perf stat alone. A raw number has been a group of its own before."""
    group = '"{cycles,task-clock,r8,instructions}"'
    host = result_of(tmp_path, watching(group)).runs[0].host
    assert [event.event for event in host.events] == [
        "armv8_a64fx/cycles/",
        "task-clock",
        "armv8_a64fx/instructions/",
        "armv8_neoverse_n1/cycles/",
        "armv8_neoverse_n1/instructions/",
        "r8",
    ]
    assert not any(event.unsupported for event in host.events)
    there, clock, _, cycles, here, raw = host.events
    assert clock.enabled_ns == pytest.approx(there.enabled_ns + cycles.enabled_ns, rel=0.01)
    assert raw.running == 1
    assert raw.truth == pytest.approx(here.truth, rel=0.01)
    (warning,) = host.warnings
    assert warning.text.startswith("WARNING: grouped events cpus do not match.")
    assert warning.text.endswith("group { armv8_a64fx/cycles/, task-clock, armv8_a64fx/instructions/ }")
    of_one = result_of(tmp_path, watching(group, "pcpu = 0")).runs[0].host
    assert [event.event for event in of_one.events][:2] == ["task-clock", "armv8_neoverse_n1/cycles/"]
    assert not any(event.unsupported for event in of_one.events)


@pytest.mark.parametrize("group", ['"{cycles,cpu-clock}"', '"{cpu-clock,cycles}"'])
def test_a_software_event_of_a_recorded_group_samples_on_all_cpus(group: str, tmp_path: Path) -> None:
    """Where the group's PMU is not, alone: what check_cpu_maps is to perf stat is get_group_fd to perf record."""
    host = result_of(tmp_path, watching(group, verb="record")).runs[0].host
    assert sorted(event.event for event in host.events) == [
        "armv8_a64fx/cycles/",
        "armv8_neoverse_n1/cycles/",
        "cpu-clock",
    ]
    clock = next(event for event in host.events if event.event == "cpu-clock")
    others = [event for event in host.events if event is not clock]
    assert clock.enabled_ns == pytest.approx(sum(event.enabled_ns for event in others), rel=0.01)
    assert clock.samples > 0
    assert host.warnings == ()


FLOATING = """
[machine]
core = ["neoverse-n1", "{other}"]
[[host.task]]
workload = "sqlite"
seconds = 0.004
sleep_ms = 11
repeat = 5
[kvm]
designs = ["{design}"]
[[guest]]
vcpus = 2
[[guest.task]]
vcpu = [0, 1]
workload = "gzip-random"
seconds = 0.005
sleep_ms = 3
repeat = 5
[guest.task.perf]
verb = "stat"
events = ["cycles", "instructions"]
"""


@pytest.mark.parametrize(
    ("other", "design", "still"),
    [
        ("cortex-a55", "emulated", True),
        ("cortex-a55", "emulated-6.15", True),
        ("cortex-a55", "partitioned", False),
        ("neoverse-n1", "emulated", False),
    ],
)
def test_backing_events_stand_still_on_the_cpus_of_another_pmu_than_the_vms(
    tmp_path: Path, other: str, design: str, still: bool
) -> None:
    """A VM's PMU is that of the CPU on which its first vCPU is made; what runs on the other is not counted."""
    text = (
        FLOATING.format(other=other, design=design) + '[[host.perf]]\nverb = "stat"\npcpu = [1]\nevents = ["r11:G"]\n'
    )
    (run,) = result_of(tmp_path, text).runs
    (elsewhere,) = run.host.events
    assert elsewhere.truth > 10_000_000
    for event in run.guests[0].events:
        assert event.count is not None
        missing = event.truth - event.count
        assert event.running == 1
        if still:
            assert missing == pytest.approx(elsewhere.truth * event.truth / run.guests[0].events[0].truth, rel=0.02)
        else:
            assert missing < 0.002 * event.truth


def test_a_cycle_counter_alone_counts_on_the_cpus_of_all_pmus(tmp_path: Path) -> None:
    """KVM_ARM_VCPU_PMU_V3_FIXED_COUNTERS_ONLY."""
    text = FLOATING.format(other="cortex-a55", design="emulated,counters=fixed").replace(', "instructions"', "")
    (run,) = result_of(tmp_path, text).runs
    (cycles,) = run.guests[0].events
    assert cycles.count is not None
    assert 0 <= cycles.truth - cycles.count < 0.002 * cycles.truth
    assert run.design.fallbacks == ("counters=fixed: PMCR_EL0.N is 0",)


def test_a_strict_pmu_is_chosen_and_its_vcpus_are_on_its_cpus(tmp_path: Path) -> None:
    """KVM_ARM_VCPU_PMU_V3_STRICT: there is no default PMU."""
    text = FLOATING.format(other="cortex-a55", design="emulated,kernel=7.3,strict=yes")
    with pytest.raises(UserError, match=r"no PMU until one is chosen .* armv8_neoverse_n1, armv8_cortex_a55"):
        result_of(tmp_path, text)
    result_of(tmp_path, text.replace("vcpus = 2", "pin = [1, 1]"))
    with pytest.raises(UserError, match=r"Linux 6\.12\.117 does not have.*emulated,kernel=7\.3,strict=yes"):
        result_of(tmp_path, FLOATING.format(other="neoverse-n1", design="emulated,strict=yes"))


def test_a_vcpu_that_is_pinned_to_another_pmus_cpu_counts_nothing(tmp_path: Path) -> None:
    text = """
        [machine]
        core = ["neoverse-n1", "cortex-a55"]
        [kvm]
        designs = ["emulated"]
        [[guest]]
        pin = [0, 1]
        [[guest.task]]
        vcpu = 1
        workload = "gzip-random"
        seconds = 0.002
        [guest.task.perf]
        verb = "stat"
        events = ["cycles", "instructions"]
    """
    (run,) = result_of(tmp_path, text).runs
    assert [(event.count, event.unsupported) for event in run.guests[0].events] == [(0, ""), (0, "")]


GROUP = "{r8,r3,r4,r1,r14,r10,r12,r13}"  # of which a Neoverse N1 cannot hold the last behind a leader that is off


def test_perf_record_is_one_process_and_does_not_run_on_any_cpu_where_one_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f'[[host.perf]]\nverb = "record"\nperiod = 100000\nevents = ["cycles", "{GROUP}"]\n'
    (run,) = result_of(tmp_path, BESIDE + text).runs
    (refused,) = run.host.refused_sessions
    assert (refused.session, refused.verb) == ("host.perf.0", "record")
    assert refused.reason.startswith("r13: EINVAL: a group of 8 does not fit the PMU's 6 event counters")
    assert run.host.events == ()
    assert cli.main(["run", str(tmp_path / "own.toml")]) == 1
    _, err = capsys.readouterr()
    assert err.count("perf record (host.perf.0)") == 1


def test_perf_record_opens_a_task_s_events_on_all_cpus(tmp_path: Path) -> None:
    """target__uses_dummy_map: perf stat opens them on none, so that a raw number is the last PMU's."""
    task = BESIDE.replace("pcpu = 0", "pcpu = 1").replace("0.005", "0.002")
    for events, refusal in (
        ('["r8"]', ""),
        (f'["{GROUP}"]', "r12: EINVAL: a group of 7 does not fit"),
        ('["LLC-loads"]', "armv8_a64fx/LLC-loads/: ENOENT"),
    ):
        text = f'{task}[host.task.perf]\nverb = "record"\nperiod = 100000\nevents = {events}\n'
        (run,) = result_of(tmp_path, text).runs
        reasons = [one.reason for one in run.host.refused_sessions]
        assert [reason[: len(refusal)] for reason in reasons] == ([refusal] if refusal else []), reasons
        assert (run.time.host_user > 0.001) is not bool(refusal), "the program under it is killed"
    here = BESIDE + '[host.task.perf]\nverb = "record"\nperiod = 100000\nevents = "r11"\n'
    (event,) = result_of(tmp_path, here).runs[0].host.events
    assert event.samples > 100, "a Neoverse N1's, though an A64FX's PMU was registered last"


def test_an_event_that_one_cpu_refuses_is_not_supported_on_any(tmp_path: Path) -> None:
    """stat_handle_error: what the CPUs before have counted is not printed."""
    text = BESIDE + f'[[host.perf]]\nverb = "stat"\nevents = ["{GROUP}"]\n'
    *counted, last = (
        result_of(tmp_path, text.replace('["neoverse-n1", "a64fx"]', '["a64fx", "neoverse-n1"]')).runs[0].host.events
    )
    assert last.unsupported.startswith("EINVAL: a group of 8 does not fit the PMU's 6 event counters")
    assert (last.count, last.truth, last.enabled_ns) == (0, 0, 0)
    assert all(event.enabled_ns for event in counted)


def test_a_task_s_event_is_opened_on_its_pmu_though_the_task_is_elsewhere(tmp_path: Path) -> None:
    """armpmu_event_init of an event of no CPU: an A64FX has no LL_CACHE_RD; its cycles are on, and stand still."""
    text = BESIDE + '[host.task.perf]\nverb = "stat"\nevents = ["cycles", "LLC-loads"]\n'
    result = result_of(tmp_path, text)
    events = {event.event: event for event in result.runs[0].host.events}
    assert events["armv8_a64fx/LLC-loads/"].unsupported.startswith("ENOENT: the PMU has no LL_CACHE_RD")
    elsewhere, here = events["armv8_a64fx/cycles/"], events["armv8_neoverse_n1/cycles/"]
    assert (elsewhere.count, elsewhere.truth, elsewhere.running_ns, elsewhere.unsupported) == (0, 0, 0, "")
    assert elsewhere.enabled_ns == pytest.approx(here.enabled_ns, rel=0.001)
    said = render(result)
    assert "<not supported>" in said
    assert "<not counted>" in said


def test_an_event_can_be_named_as_its_row_is(tmp_path: Path) -> None:
    """Terms of perf's generic events with a PMU (PARSE_EVENTS__TERM_TYPE_HARDWARE, _LEGACY_CACHE): looked up there."""
    rows = ["armv8_a64fx/cycles/u", "armv8_neoverse_n1/L1-dcache-loads/", "armv8_a64fx/LLC-loads/"]
    text = '[machine]\ncore = ["neoverse-n1", "a64fx"]\ncosts = "altra-n1-vhe"\n'
    text += '[[host.perf]]\nverb = "stat"\nevents = {}\n[[host.task]]\nworkload = "gzip-random"\nseconds = 0.001\n'
    events = result_of(tmp_path, text.format(rows), "emulated").runs[0].host.events
    assert [event.event for event in events] == rows
    assert [event.unsupported[:6] for event in events] == ["", "", "ENOENT"]
    with pytest.raises(UserError, match="no PMU 'armv8_cortex_a76'; did you mean"):
        result_of(tmp_path, text.format(["armv8_cortex_a76/cycles/"]))
