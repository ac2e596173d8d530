"""What no partition can hold: each of the counterexamples does what docs/counterexamples.md says of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pmulab import Run, scenario
from pmulab.designs import label
from pmulab.embedded import run_embedded

ROOT = Path(__file__).parents[2]
LIMITS = ROOT / "examples" / "steps" / "limits"
WAY = "interrupt on its way"
RESET = "unknown after reset"  # of any guest that has not written its registers


def played(name: str, *overrides: str, designs: tuple[str, ...] = ()) -> dict[str, Run]:
    """A scenario's runs, by their designs."""
    loaded = scenario.load(LIMITS / f"{name}.toml", designs=designs, overrides=overrides)
    return {label(of.design): run_embedded(of).runs[0] for of in loaded.experiments}


def broken(run: Run) -> set[str]:
    """Also what the design declares."""
    return {f"{one.invariant} {one.kind}" for one in run.violations}


def used(run: Run) -> dict[str, int]:
    """The windows that were made use of, and how often."""
    return {name: window.uses for name, window in run.windows.items() if window.uses and name != RESET}


def reads(run: Run, event: int = 0) -> list[tuple[int | None, bool]]:
    """Each count that perf read of a session's event, and whether it has counted all the time."""
    events = [step.events[event] for step in run.steps if step.events]
    return [(one.count, one.running_ns == one.enabled_ns) for one in events]


def test_a_pinned_event_waits_for_the_guests_put_or_is_in_error_for_good() -> None:
    runs = played("pinned")
    right, wrong = runs["partitioned"], runs["partitioned,pinned=error"]
    assert (broken(right), used(right)) == (set(), {"counters lent": 1})
    (before, always), (after, still) = reads(right)
    assert before is not None
    assert after is not None
    assert after > before
    assert (always, still) == (True, False)
    assert (broken(wrong), used(wrong)) == ({"I10 event_pinned"}, {})
    assert reads(wrong)[-1][0] is None


def test_a_group_that_has_no_room_says_so() -> None:
    for design, run in played("group").items():
        assert (broken(run), used(run)) == (set(), {}), design
        counts = [0, 0, 0] if design.endswith("static") else [1000, 1000, 2000]
        assert reads(run) == [(count, False) for count in counts], design


def test_the_hosts_cycles_leave_the_cycle_counter_to_a_guest_and_take_their_turn() -> None:
    for design, run in played("cycle-counter").items():
        assert (broken(run), used(run)) == (set(), {}), design
        assert [step.value for step in run.steps if step.value is not None] == [2500], design
        assert reads(run)[:2] == [(1000, True), (0, False)], design
    assert reads(played("cycle-counter")["partitioned"])[2:] == [(2000, True), (500, False)]


def test_the_instruction_counter_is_the_hosts_only_while_pmcr_is() -> None:
    runs = played("instruction-counter")
    assert (broken(runs["partitioned"]), used(runs["partitioned"])) == (set(), {})
    ((_, always),) = reads(runs["partitioned"])
    assert always
    stopped = [one for one in runs["partitioned-v8"].violations if one.kind == "event_count"]
    assert [(one.invariant, one.other, one.register) for one in stopped] == [("I2", "vm0/0", "PMICNTR_EL0")]
    assert stopped[0].expected - stopped[0].actual >= 3000, "what the guest did with E clear, at least"


def test_an_interrupt_whose_source_is_masked_without_a_trap_comes_once_and_not_after_an_exit() -> None:
    runs = played("withdrawn-interrupt")
    taken = {design: [step.taken for step in run.steps if step.taken is not None] for design, run in runs.items()}
    assert taken == {"partitioned": [True, False], "emulated": [False, False]}
    assert [broken(run) for run in runs.values()] == [set(), set()]
    assert used(runs["partitioned"])["polled flag"] == 1
    assert "polled flag" not in used(runs["emulated"])


def test_an_overflow_whose_interrupt_is_on_its_way_at_the_put_is_kept_or_lost_with_its_backing_event() -> None:
    runs = played("late-interrupt")
    taken = {design: [step.taken for step in run.steps if step.taken is not None] for design, run in runs.items()}
    assert taken["partitioned"] == [True, True]
    assert (broken(runs["partitioned"]), used(runs["partitioned"])) == (set(), {})
    assert taken["emulated"][0] is False
    (late,) = runs["emulated"].violations
    assert (late.invariant, late.kind, late.window) == ("I5", "late_interrupt", WAY)
    assert late.actual > late.expected == 3000, "cycles: pmi_delay"
    assert used(runs["emulated"]) == {WAY: 2}


def test_a_guest_that_lets_interrupts_in_while_its_own_is_on_its_way_has_none_by_that_window(tmp_path: Path) -> None:
    text = (LIMITS / "late-interrupt.toml").read_text()
    early = tmp_path / "early.toml"
    early.write_text(
        text.replace('action = "preempt"', 'action = "irq"').replace('party = "host/0"', 'party = "vm0/0"')
    )
    (loaded,) = scenario.load(early, designs=("partitioned",)).experiments
    run = run_embedded(loaded).runs[0]
    assert [step.taken for step in run.steps if step.taken is not None] == [False, True, True]
    assert (broken(run), used(run)) == (set(), {WAY: 1})


def test_a_guest_of_an_earlier_pmu_has_32_bits_of_a_counter_and_by_lp_alone_what_the_cpu_makes_of_it() -> None:
    runs = played("earlier-pmu")
    trapped, untrapped = runs.pop("emulated"), runs.pop("partitioned")
    (other,) = runs.values()
    values = [[step.value for step in run.steps if step.value is not None] for run in (trapped, other, untrapped)]
    assert values[0] == values[1] == [0xFFFF_FF00, 0x2E8, 1, 0x2E8, 1, 0x2E8]
    assert values[2] == [0xFFFF_FF00, 0x2E8, 1, 0x2E8, 0, 0x2E8]
    assert [broken(run) for run in (trapped, other, untrapped)] == [set(), set(), set()]
    assert used(other) == {}
    assert used(untrapped).keys() == {"bits of a later PMU", "reserved bits"}


WITHOUT = {
    "all": (),
    "FEAT_FGT": ("machine.fgt=0",),
    "FEAT_PMUv3p1": ("machine.pmuver=1",),
    "FEAT_HPMN0": ("machine.hpmn0=false", "guest.counters=0"),
}


@pytest.mark.parametrize("lacking", WITHOUT)
def test_a_guests_global_controls_stop_at_the_partition_whatever_the_hardware_lacks(lacking: str) -> None:
    run = played("both-ranges", *WITHOUT[lacking], designs=("partitioned",))["partitioned"]
    assert (broken(run), used(run)) == (set(), {})
    assert [reads(run, event)[-1] for event in (0, 1)] == [(2000, True), (2000, True)]
    denied, flags = (step for step in run.steps if step.action == "mrs")
    assert denied.esr is not None, "at EL0, as the guest's PMUSERENR_EL0 has it"
    assert flags.value == 0


def test_a_denied_event_counts_where_types_are_written_through_alone() -> None:
    runs = played("denied-event")
    values = {design: [step.value for step in run.steps if step.value is not None] for design, run in runs.items()}
    assert values["partitioned"] == values["emulated"] == [0x8000_0021, 5]
    assert values["partitioned-v1"] == [0x8000_0021, 1005]
    assert [broken(run) for run in runs.values()] == [set(), set(), {"I1 guest_read", "I1 guest_entry"}]


def test_each_is_on_the_page_with_windows_that_there_are() -> None:
    page = (ROOT / "docs" / "counterexamples.md").read_text()
    assert set(re.findall(r"`([\w-]+)\.toml`", page)) == {path.stem for path in LIMITS.glob("*.toml")}
    windows = set(played("pinned")["partitioned"].windows)
    assert set(re.findall(r"window `([^`]+)`", page)) <= windows
