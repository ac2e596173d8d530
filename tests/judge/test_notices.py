"""What software and KVM tell the judge, and what it says by that: who was counted where, and for how long."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pmulab import Run, scenario
from pmulab.embedded import run_embedded
from services.judge.text import difference
from services.result import Violation

SHORT = ("guest.task.seconds=0.01",)
USER_ACCESS = Path(__file__).parent / "scenarios" / "user-access.toml"
POSTED = tuple(f"partitioned-v{n}" for n in range(1, 10))


def ran(name: str, design: str, *overrides: str) -> Run:
    (experiment,) = scenario.load(name, designs=[design], overrides=overrides).experiments
    (run,) = run_embedded(experiment).runs
    return run


def first(run: Run, invariant: str, kind: str, register: str | None = None) -> Violation:
    return next(
        one
        for one in run.violations
        if (one.invariant, one.kind) == (invariant, kind) and register in (None, one.register)
    )


def test_a_guest_s_perf_says_what_it_does_with_its_events() -> None:
    run = ran("gzip-record", "partitioned-v8", *SHORT)
    said = {
        re.sub(r"[\d,]+|0x[0-9a-f]+", "#", seen.text.strip())
        for one in run.violations
        for seen in one.before
        if seen.party == "vm0/0"
    }
    assert {"event #: off counter #", "event #: read", "time_enabled # ns", "time_running # ns", "count #"} <= said


@pytest.mark.parametrize(("design", "lost"), [("partitioned-v8", True), ("partitioned", False)])
def test_a_guest_s_event_is_found_to_lose_what_its_counter_has_not_counted(design: str, lost: bool) -> None:
    """N10: a type that is written while the vCPU is loaded reaches the CPU at the next vcpu_load."""
    run = ran("gzip-record", design, *SHORT)
    found = [one for one in run.violations if (one.invariant, one.kind, one.victim) == ("I4", "event_count", "vm0/0")]
    assert bool(found) is lost
    assert run.premises["I4"]
    assert run.premises["I10"], "there is no event of the host's"


def test_an_event_of_the_host_s_perf_for_a_guest_that_counts_nothing_is_found_by_the_guest() -> None:
    run = ran("migration", "emulated")
    one = first(run, "I4", "event_count")
    assert (one.victim.startswith("vm0/"), one.other) == (True, "kvm")
    assert difference(one.expected, one.actual) < 0
    assert one.declared


def test_the_cycles_for_which_the_host_was_counted_in_a_guest_s_cycle_counter_are_those_that_it_has_too_many() -> None:
    """B7: HCCD is not set, and PMCCNTR_EL0 runs on at EL2."""
    one = first(ran("quick", "partitioned-v1"), "I4", "guest_entry", "PMCCNTR_EL0")
    (counted,) = one.counted
    assert counted.party == "host"
    assert counted.cycles == difference(one.expected, one.actual)
    assert one.broken.endswith(f"the host was counted in it for {counted.cycles:,} cycles after vcpu_load(vm0/0)")


def test_what_ran_after_vcpu_put_is_told_by_its_cycles() -> None:
    """v1: MDCR_EL2 is the host's before the guest's counters are read."""
    one = first(ran("overflow-latency", "partitioned-v1"), "I4", "guest_entry", "PMEVCNTR0_EL0")
    (counted,) = one.counted
    assert (counted.party, counted.after) == ("host", f"vcpu_put({one.victim})")
    assert 0 < counted.cycles <= one.cycle - counted.since
    assert f" the host was counted in it for {counted.cycles} cycles after vcpu_put({one.victim})" in one.broken


def test_nobody_is_said_to_be_counted_where_the_counter_is_not_the_cpu_s() -> None:
    for one in ran("migration", "emulated").violations:
        assert one.counted == ()
        assert [(owner.counter, owner.party) for owner in one.owners] == [(None, "host")], "the whole PMU is"


@pytest.mark.parametrize("design", POSTED)
def test_a_register_that_another_selects_is_accessed_behind_an_isb_but_in_v6_and_v7(design: str) -> None:
    """B49: PMSELR_EL0, then PMXEVCNTR_EL0, and no ISB between them."""
    run = ran("handoff", design)
    found = [one for one in run.violations if one.kind == "unsynchronised"]
    assert bool(found) is (design in ("partitioned-v6", "partitioned-v7"))
    for one in found:
        assert one.invariant == "I6"
        texts = [seen.text for seen in one.before]
        selected = max(at for at, text in enumerate(texts) if text.startswith("MSR PMSELR_EL0"))
        assert "ISB" not in texts[selected:]


@pytest.mark.parametrize("design", POSTED)
def test_a_guest_s_pmuserenr_is_left_to_the_host_s_programs_by_v5_alone(design: str) -> None:
    """B33: v5's trap set-up lets PMUSERENR_EL0 be for partitioned vCPUs, and its put does not bring the host's back."""
    found = ran(str(USER_ACCESS), design)
    left = [one for one in found.violations if (one.victim, one.register) == ("host", "PMUSERENR_EL0")]
    assert bool(left) is (design == "partitioned-v5")


def test_that_a_pinned_event_is_lost_is_what_an_axis_of_the_partition_gives_up() -> None:
    """N17: it is perf's contract that is broken, and by its nature: no scenario of its own."""
    found = ran("watchdog", "partitioned,pinned=error").violations
    assert [(one.invariant, one.kind, one.victim) for one in found] == [("I10", "event_pinned", "host")]
    assert found[0].declared
    assert not found[0].counts
    assert ran("watchdog", "partitioned").violations == ()


def test_an_overflow_is_told_with_the_counter_and_its_party() -> None:
    run = ran("overflow-latency", "partitioned-v8")
    seen = [seen for one in run.violations for seen in one.before if seen.text.endswith("overflows")]
    assert seen
    assert all(re.fullmatch(r"counter \d+ overflows", one.text) for one in seen)
    assert {one.party for one in seen} <= {"host", "nobody", "vm0/0", "vm0/1"}


@pytest.mark.parametrize("design", ["partitioned", "partitioned,swap=eager"])
def test_what_the_host_s_driver_wants_of_pmuserenr_behind_a_guest_s_is_what_kvm_restores(design: str) -> None:
    """kvm_set_pmuserenr: the task whose events EL0 may read has ended while the register is a guest's."""
    run = ran(str(USER_ACCESS.with_name("userenr-behind-a-guest.toml")), design)
    assert not [one for one in run.violations if one.counts]
