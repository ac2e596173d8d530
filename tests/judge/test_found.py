"""What the core's judge tells is read strictly, and given the names and words that people know."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Any

import pytest

from services import _pmu
from services.cpu import ContextLock, EntryKind
from services.judge import text
from services.judge.sources import SOURCES
from services.judge.types import Parties, Seen, Window, read
from services.kvm.requests import MARK
from services.registers import MDCR_EL2, PMCNTENSET_EL0, PMCR_EL0, PMEVCNTR
from services.result import Victim, judged
from tests.judge.found import VCPUS, judgement, violation

PARTIES = Parties(VCPUS)


def test_it_is_read_as_it_was_told() -> None:
    found = read(judgement(violation()))
    (one,) = found.violations
    assert (one.invariant, one.victim, one.other, one.actual) == ("I1", "vm:3", "vm:1", 0xFFFF_FC18)
    assert one.before[0] == Seen(0, 1640, 2, "kvm", "note", _pmu.NOTE_VCPU_LOAD, 3)
    assert found.windows == {"before_synchronisation": Window(3, 1)}


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        (judgement(violation(invariant="I13")), "violations[0].invariant: no invariant 'I13'"),
        (judgement(violation(victim="vm:x")), "violations[0]: no party 'vm:x'"),
        (judgement(violation(victim="nobody")), "violations[0]: no party 'nobody'"),
        (judgement(violation(), violation(other="")), "violations[1]: no party ''"),
        (judgement(violation(expected=-1)), "violations[0]: -1 is not a u64"),
        (judgement(violation(times=0)), "violations[0].times: 0"),
        (judgement(violation(colour=1)), "violations[0]: unknown field 'colour'"),
        (judgement(violation(cycle="7")), "violations[0].cycle: int is wanted"),
        (judgement(premises={"I1": 1}), "premises: I2 is missing"),
        (judgement(windows={"late": {"uses": 1}}), "windows.late: field 'edge' is missing"),
        (b"{}", "field 'violations' is missing"),
        (b"[", "unexpected end of data"),
    ],
)
def test_what_does_not_fit_is_the_judge_s_fault_and_named(told: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        read(told)


def test_a_vcpu_that_there_is_not_has_no_name() -> None:
    assert [PARTIES.name(party) for party in ("host", "kvm", "nobody", "vm:2")] == ["host", "kvm", "nobody", "vm0/1"]
    with pytest.raises(ValueError, match="no party 'vm:9'"):
        PARTIES.name("vm:9")


def found(declared: Any = MappingProxyType({}), known: Any = (), **changed: Any) -> judged.Violation:
    (one,) = judged.violations(read(judgement(violation(**changed))), PARTIES, declared, known)
    return one


def test_a_violation_has_names_where_the_core_has_numbers() -> None:
    one = found()
    assert (one.victim, one.other, one.register, one.counter) == ("vm1/0", "vm0/0", "PMEVCNTR0_EL0", 0)
    assert [(seen.party, seen.text) for seen in one.before] == [
        ("kvm", "vcpu_load(vm1/0)"),
        ("vm1/0", "MRS PMEVCNTR0_EL0 = 0xfffffc18"),
    ]
    assert [(owner.party, owner.since) for owner in one.owners] == [("vm0/0", 12), ("vm1/0", 1640)]
    assert found(register=None).register is None


def test_it_is_said_who_was_counted_and_for_how_long_after_which_handover() -> None:
    put = {"what": "vcpu_put", "party": "vm:3", "cycle": 1200}
    of_host: dict[str, Any] = {"party": "host", "cycles": 412, "since": 1228, "after": put}
    one = found(other="kvm", counted=[of_host])
    assert one.counted == (judged.Counted("host", 412, 1228, "vcpu_put(vm1/0)"),)
    assert one.broken.endswith(" do not allow: the host was counted in it for 412 cycles after vcpu_put(vm1/0)")
    another = {"party": "vm:1", "cycles": 1_000, "since": 3, "after": None}
    both = found(other="vm:1", counted=[of_host, another]).broken
    assert both.endswith("after vcpu_put(vm1/0); vm0/0 was counted in it for 1,000 cycles")
    assert "it is" not in both, "whose it is says who was counted"


def test_each_kind_of_the_judge_s_has_a_sentence() -> None:
    assert set(_pmu.judge_kinds()) == set(text.KINDS)


def test_each_kind_of_the_judge_s_has_a_source() -> None:
    assert set(_pmu.judge_kinds()) == set(SOURCES)
    assert all(re.match(r"Arm ARM \(DDI 0487\), |Linux |perf_event_open\(2\), ", of) for of in SOURCES.values())


def test_a_source_is_the_page_of_the_register() -> None:
    assert found(kind="guest_read").source == (
        "Arm ARM (DDI 0487), PMEVCNTR<n>_EL0, and CountPMUEvents(), which counts"
    )
    assert "MDCR_EL2.HPMN" in found(kind="guest_entry", register=PMCR_EL0).source
    assert "Arm ARM (DDI 0487), PMCR_EL0" in found(kind="host_state", register=PMCR_EL0).source


@pytest.mark.parametrize("kind", text.KINDS)
def test_no_source_has_a_gap(kind: str) -> None:
    assert "{" not in found(kind=kind).source + found(kind=kind, register=None).source


@pytest.mark.parametrize("kind", text.KINDS)
def test_each_kind_is_a_sentence_about_its_victim(kind: str) -> None:
    for victim, name in (("vm:3", "vm1/0"), ("host", "the host")):
        sentence = found(kind=kind, victim=victim).broken
        assert sentence.startswith(f"{name} ")
        assert "{" not in sentence


def test_a_sentence_says_whose_it_is_if_it_is_somebody_else_s() -> None:
    assert found(other="vm:1").broken == found(other="nobody").broken + ": it is vm0/0's"
    assert found(other="host").broken == found(other="nobody").broken + ": it is the host's"
    assert found(other="kvm").broken == found(other="vm:3").broken == found(other="nobody").broken


def test_what_another_has_done_is_said_to_be_by_it_not_to_be_its_own() -> None:
    changed = found(kind="host_state", victim="host", other="vm:1", register=PMCNTENSET_EL0, counter=None)
    assert changed.broken == "the host has set PMCNTENSET_EL0 up otherwise than it is: by vm0/0"
    pinned = found(kind="event_pinned", victim="host", other="vm:1")
    assert pinned.broken == (
        "the host has a pinned event that is enabled, and on no counter: vm0/0 has been given counters"
    )


def test_a_host_s_event_that_a_guest_can_reach_names_both_and_the_counters_as_such() -> None:
    one = found(kind="host_placement", victim="host", other="vm:1", expected=0x3C0, actual=0x3C1)
    assert one.broken == "the host has an event on PMEVCNTR0_EL0, which vm0/0 can reach"
    assert one.compared == "expected counters 6, 7, 8, 9, actual counters 0, 6, 7, 8, 9"


def test_a_counter_that_kvm_accesses_for_no_vcpu_is_not_said_to_be_the_host_on_a_pcpu() -> None:
    one = found(kind="not_loaded", invariant="I9", victim="host", other="kvm")
    assert one.broken == "the host has the CPU, no vCPU is loaded on it, and KVM accesses PMEVCNTR0_EL0"
    assert found(kind="not_loaded", invariant="I9", other="kvm").broken.startswith("vm1/0 is on a pCPU on which")


def test_a_half_done_swap_says_whose_it_is() -> None:
    one = found(kind="half_swapped", victim="host", other="vm:1")
    assert "amid vcpu_load or vcpu_put of vm0/0, and finds PMEVCNTR0_EL0" in one.broken


def test_what_a_write_of_mdcr_el2_stops_are_counters_and_no_value_of_it() -> None:
    changed: dict[str, Any] = {"register": MDCR_EL2, "counter": None, "victim": "host", "other": "kvm"}
    one = found(kind="host_state", **changed, expected=0x40, actual=0)
    assert one.broken == "the host's counters do not go on as it has set them up, behind KVM's write of MDCR_EL2"
    assert one.compared == "expected counter 6, actual no counter"


def test_an_unpredictable_hpmn_says_what_the_cpu_has_not() -> None:
    changed: dict[str, Any] = {"register": MDCR_EL2, "counter": None, "other": "kvm", "expected": 6}
    above = found(kind="unpredictable_hpmn", invariant="I8", **changed, actual=8)
    assert above.broken.endswith("KVM sets MDCR_EL2.HPMN to 8, and the CPU has 6 event counters")
    zero = found(kind="unpredictable_hpmn", invariant="I8", **changed, actual=0)
    assert zero.broken.endswith("KVM sets MDCR_EL2.HPMN to 0, and the CPU has no FEAT_HPMN0")
    assert above.compared == zero.compared == ""


def test_a_deadlock_says_who_waits_for_what() -> None:
    one = found(kind="deadlock", victim="host", actual=ContextLock.TICK, register=None, counter=None, other="kvm")
    assert one.broken == f"the host gets nowhere: {ContextLock.TICK.deadlock}"
    assert one.compared == ""


def test_a_kind_without_a_sentence_is_named() -> None:
    assert found(kind="new_kind", other="nobody").broken == "new_kind: PMEVCNTR0_EL0 of vm1/0"


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"expected": 0, "actual": 412}, "expected 0x0, actual 0x19c: 412 too many"),
        ({"expected": 412, "actual": 0}, "expected 0x19c, actual 0x0: 412 too few"),
        ({"expected": 2**64 - 1, "actual": 1}, "expected 0xffffffffffffffff, actual 0x1: 2 too many"),
        ({"counter": None, "actual": 412}, "expected 0x0, actual 0x19c"),
        ({"kind": "late_interrupt", "expected": 0, "actual": 1_200}, "expected within 0 cycles, actual 1,200"),
        ({"kind": "event_count", "counter": None, "expected": 9, "actual": 4}, "expected 0x9, actual 0x4: 5 too few"),
        ({"kind": "event_times", "expected": 9000, "actual": 4}, "time_running is to be 9,000 ns, and is 4 ns"),
        ({"kind": "livelock", "expected": 10, "actual": 11}, "11 interrupts in a row, of which 10 are allowed"),
        ({"kind": "undefined", "expected": 0, "actual": 1}, ""),
    ],
)
def test_what_was_expected_stands_against_what_was_found(changed: dict[str, Any], line: str) -> None:
    assert found(**changed).compared == line


def test_an_access_is_undefined_or_is_not() -> None:
    assert found(kind="undefined", expected=0, actual=1, other="kvm").broken == (
        "vm1/0 accesses PMEVCNTR0_EL0, which is UNDEFINED, and must not be"
    )
    assert found(kind="undefined", expected=1, actual=0, other="kvm").broken == (
        "vm1/0 accesses PMEVCNTR0_EL0, which is executed, and must be UNDEFINED"
    )


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (("MRS", PMCR_EL0, 0x41), "MRS PMCR_EL0 = 0x41"),
        (("MSR", PMCNTENSET_EL0, 3), "MSR PMCNTENSET_EL0, 0x3"),
        (("MRS traps", PMEVCNTR(3), 0), "MRS PMEVCNTR3_EL0 traps"),
        (("MSR traps", PMCR_EL0, 1), "MSR PMCR_EL0, 0x1 traps"),
        (("MRS taken", PMEVCNTR(3), 0), "MRS PMEVCNTR3_EL0 takes an exception"),
        (("MSR taken", PMCR_EL0, 1), "MSR PMCR_EL0, 0x1 takes an exception"),
        (("emulated", 0, 0x3000), "emulated: 0x3000"),
        (("ISB", 0, 0), "ISB"),
        (("runs", 1, 0), "runs at EL0"),
        (("entry", EntryKind.TASK_IN, 2), "entry TASK_IN 0x2"),
        (("entry", 16 + EntryKind.PMU_IRQ, 0), "entry PMU_IRQ"),
        (("entry", MARK, 5), "mark 0x40 0x5"),
        (("note", _pmu.NOTE_VCPU_LOAD, 1), "vcpu_load(vm0/0)"),
        (("note", _pmu.NOTE_VCPU_IS_PUT, 3), "vcpu_put(vm1/0) ends"),
        (("KVM_SET_ONE_REG", 2 << 16 | PMCR_EL0, 0x41), "KVM_SET_ONE_REG PMCR_EL0 of vm0/1, 0x41"),
        (("KVM_GET_ONE_REG", 2 << 16 | PMCR_EL0, 0x41), "KVM_GET_ONE_REG PMCR_EL0 of vm0/1 = 0x41"),
        (("note", _pmu.NOTE_SET_FILTER, 3 << 16 | 0x11), "KVM_ARM_VCPU_PMU_V3_FILTER of vm1/0, from event 0x11"),
        (("note", _pmu.NOTE_EVENT_ON, 7 << 8 | 5), "event 7: on counter 5"),
        (("note", _pmu.NOTE_EVENT_TIME_RUNNING, 1234), "  time_running 1,234 ns"),
        (("note", _pmu.NOTE_DEADLOCK, 0), "the CPU spins on a lock that it holds"),
        (("note", 0xFFFF, 3), "note 0xffff 0x3"),
        (("something new", 7, 0), "something new 0x7"),
    ],
)
def test_a_step_is_said_in_a_kernel_s_words(seen: tuple[str, int, int], words: str) -> None:
    assert text.did(Seen(0, 1, 1, "kvm", *seen), PARTIES) == words


@pytest.mark.parametrize(
    ("victim", "other", "whose"),
    [
        ("host", "vm:1", Victim.HOST),
        ("host", "kvm", Victim.HOST),
        ("vm:1", "host", Victim.GUEST),
        ("vm:1", "nobody", Victim.GUEST),
        ("vm:1", "vm:1", Victim.GUEST),
        ("vm:1", "vm:2", Victim.NEIGHBOUR),
    ],
)
def test_what_is_declared_is_so_towards_one_victim(victim: str, other: str, whose: Victim) -> None:
    for one in Victim:
        declared = {
            ("I1", one, "guest_read"): "by its nature",
            ("I1", whose, "one_reg"): "another",
            ("I2", whose, "guest_read"): "a third",
        }
        violation = found(declared, victim=victim, other=other, kind="guest_read")
        assert violation.declared == ("by its nature" if one is whose else "")
        assert violation.counts is (one is not whose)


def test_what_is_known_is_so_of_an_invariant() -> None:
    assert found(known=["I1"]).known
    assert not found(known=["I1"]).counts
    assert found(known=["I2", "I11"]).counts
