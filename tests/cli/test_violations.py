"""What is printed of what the judge has found, on fixed data."""

from __future__ import annotations

from typing import Any

import pytest

from pmulab import report
from services.result import read
from tests.cli.conftest import EXERCISED, MIGRATED, violation

DECLARED = {"declared": "nothing is saved"}


def blocks(plain: dict[str, Any], *, why: bool = False) -> list[str]:
    """From the table of invariants to the digests."""
    found = report.render(read(plain), why=why).split("\n\n")
    first = next(index for index, block in enumerate(found) if block.startswith("Invariants"))
    return found[first : next(index for index, block in enumerate(found) if block.startswith("digest"))]


def test_nothing_broken_is_said_and_what_was_not_exercised_is_not_called_held(result: dict[str, Any]) -> None:
    (block,) = blocks(result)
    assert [line.split() for line in block.splitlines()] == [
        ["Invariants", "emulated", "partitioned"],
        ["violations", "none", "none"],
        ["not", "exercised", "I10,", "I11", "I10,", "I11"],
    ]


def test_a_run_that_was_not_judged_says_so(result: dict[str, Any]) -> None:
    for run in result["runs"]:
        run.update(judged=False, premises={}, windows={})
    (block,) = blocks(result)
    assert block.splitlines()[1].split() == ["violations", "not", "judged", "not", "judged"]
    result["runs"][0].update(judged=True, premises=EXERCISED, violations=[violation("I1", "read")])
    assert blocks(result)[0].splitlines()[1].split() == ["I1", "read", "3", "not", "judged"]


def test_violations_are_counted_by_invariant_and_kind(result: dict[str, Any]) -> None:
    first, second = result["runs"]
    first["violations"] = [violation("I10", "unplaced", times=1), violation("I4", "lost", times=2)]
    second["violations"] = [violation("I4", "lost", times=1_000), violation("I4", "lost", counter=2, times=1)]
    table = [line.split() for line in blocks(result)[0].splitlines()[1:3]]
    assert table == [["I4", "lost", "2", "1,001"], ["I10", "unplaced", "1", "0"]]


@pytest.mark.parametrize(
    ("found", "cell"),
    [
        ([{}], "3"),
        ([{"known": True}], "3 known"),
        ([DECLARED], "3 declared"),
        ([DECLARED | {"known": True}], "3 declared"),
        ([{}, DECLARED], "6 (3 declared)"),
        ([{"known": True}, DECLARED], "6 (3 known) (3 declared)"),
    ],
)
def test_what_does_not_count_is_marked(result: dict[str, Any], found: list[dict[str, Any]], cell: str) -> None:
    result["runs"][1]["violations"] = [violation("I1", "read", **changed) for changed in found]
    assert blocks(result)[0].splitlines()[1].split(maxsplit=3) == ["I1", "read", "0", cell]


def test_why_it_does_not_count_is_said_once_for_a_kind(result: dict[str, Any]) -> None:
    found = [violation("I1", "read", **DECLARED), violation("I1", "read", register="PMCCNTR_EL0", **DECLARED)]
    result["runs"][1]["violations"] = [*found, violation("I2", "write", known=True)]
    text = "vm0/0 reads what it may not"
    said = [f"partitioned: I1 read: {text}; declared: nothing is saved", f"partitioned: I2 write: {text}; known"]
    assert blocks(result)[0].splitlines()[-2:] == said
    result["runs"][0]["violations"] = result["runs"][1]["violations"]
    assert blocks(result)[0].splitlines()[-2:] == [line.removeprefix("partitioned: ") for line in said]


def test_the_first_that_counts_is_printed_with_what_led_to_it(result: dict[str, Any]) -> None:
    excused = violation("I1", "read", **DECLARED)
    result["runs"][1]["violations"] = [
        excused,
        violation("I4", "lost", window="polled flag"),
        violation("I4", "doubled"),
    ]
    _, block = blocks(result)
    assert block.splitlines() == [
        "partitioned: I4 lost: vm0/0 reads what it may not",
        "  pCPU 0, cycle 1,234,567, counter 1, since cycle 1,234,000; 3 times in all",
        "  victim vm0/0, other party the host",
        "  expected 0x0, actual 0x19c: 412 too many",
        "  source: Arm ARM (DDI 0487), PMEVCNTR<n>_EL0",
        "  beyond the window 'polled flag'",
        "        cycle  the host                  KVM        vm0/0",
        "    1,233,900  MSR PMEVCNTR1_EL0, 0x19c",
        "    1,234,000                            vcpu_load",
        "    1,234,567                                       MRS PMEVCNTR1_EL0 = 0x19c",
    ]


OWNERS = [{"party": "vm0/0", "since": 12}, {"party": "nobody", "since": 1_200}, {"party": "host", "since": 1_234}]


@pytest.mark.parametrize(("counter", "named"), [(1, "counter 1"), (None, "[0, HPMN)")])
def test_the_owners_of_the_counter_are_printed_in_order(
    result: dict[str, Any], counter: int | None, named: str
) -> None:
    owners = [{"counter": counter, **owner} for owner in OWNERS]
    result["runs"][0]["violations"] = [violation("I4", "lost", owners=owners)]
    said = f"  {named} was vm0/0's from cycle 12, nobody's from cycle 1,200, the host's from cycle 1,234"
    assert said in blocks(result)[1].splitlines()


def test_with_why_each_is_and_what_does_not_count_says_why_not(result: dict[str, Any]) -> None:
    result["runs"][1]["violations"] = [violation("I1", "read", **DECLARED), violation("I4", "lost", known=True)]
    assert len(blocks(result)) == 1
    _, first, second = blocks(result, why=True)
    assert first.splitlines()[6] == "  declared: nothing is saved"
    assert second.splitlines()[6] == "  known"


def test_what_the_sentence_says_is_not_said_again(result: dict[str, Any]) -> None:
    result["runs"][0]["violations"] = [violation("I8", "undefined", compared="", counter=None, since=None, times=1)]
    assert blocks(result)[1].splitlines()[:5] == [
        "emulated: I8 undefined: vm0/0 reads what it may not",
        "  pCPU 0, cycle 1,234,567",
        "  victim vm0/0, other party the host",
        "  source: Arm ARM (DDI 0487), PMEVCNTR<n>_EL0",
        "  no window was open",
    ]


def test_steps_of_many_parties_name_each_and_of_several_cpus_the_cpu(result: dict[str, Any]) -> None:
    parties = ["host", "kvm", "vm0/0", "vm1/0"]
    before = [{"cpu": n % 2, "cycle": n, "el": 1, "party": party, "text": f"t{n}"} for n, party in enumerate(parties)]
    result["runs"][0]["violations"] = [violation("I4", "lost", before=before)]
    assert [line.split() for line in blocks(result)[1].splitlines()[6:]] == [
        ["pCPU", "cycle", "party"],
        ["0", "0", "the", "host", "t0"],
        ["1", "1", "KVM", "t1"],
        ["0", "2", "vm0/0", "t2"],
        ["1", "3", "vm1/0", "t3"],
    ]


def test_what_is_known_and_was_not_found_is_named(result: dict[str, Any]) -> None:
    result["runs"][1].update(known=["I1", "I4"], violations=[violation("I1", "read", known=True)])
    assert ["known,", "not", "found", "I4"] in [line.split() for line in blocks(result)[0].splitlines()]


def test_what_vanishes_without_what_is_injected_is_i9_too(result: dict[str, Any]) -> None:
    marks = [MIGRATED, {"what": "preemption", "steps": [2, 5]}]
    result["runs"][1]["violations"] = [violation("I4", "lost", only_with=marks), violation("I1", "read")]
    table, first = blocks(result)
    assert [line.split("  ", 1)[0] for line in table.splitlines() if "I4 lost" in line] == [
        "I4 lost",
        "I9: not without preemption",
        "I9: not without migration",
    ]
    assert first.splitlines()[6:8] == [
        "  I9: not without the migration of step 4",
        "  I9: not without the preemptions of steps 2, 5",
    ]


@pytest.mark.parametrize("known", [False, True])
def test_a_run_that_has_hung_says_why_and_in_which_violation(result: dict[str, Any], known: bool) -> None:
    last = violation("I12", "deadlock", known=known)
    result["runs"][1].update(hung="the CPU spins", violations=[violation("I1", "read"), last])
    (row,) = [line.split() for line in report.render(read(result)).splitlines() if line.startswith("cut short")]
    assert row == ["cut", "short", "the", "CPU", "spins"]
    assert [block.split(": ")[1] for block in blocks(result)[1:]] == ["I1 read", "I12 deadlock"]


def test_a_run_that_a_violation_has_stopped_says_so(result: dict[str, Any]) -> None:
    assert "cut short" not in report.render(read(result))
    result["runs"][1].update(stopped=True, violations=[violation("I1", "read")])
    (row,) = [line.split() for line in report.render(read(result)).splitlines() if line.startswith("cut short")]
    assert row == ["cut", "short", "at", "a", "violation"]
