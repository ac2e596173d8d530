"""What is written of a violation: whose the contested counter is at each step, and what has the rule that is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmulab.check.finding import Finding, rows, shortest_of, told_by
from pmulab.check.job import Shortest
from pmulab.check.mail import mail
from pmulab.check.shrink import Signature
from pmulab.check.worlds import worlds
from tests.check.searching import searched

V8 = "partitioned-v8"


def finding(of: Shortest) -> Finding:
    """As it is mailed, but for its cause."""
    found = told_by(V8, of.world, of.steps, of.signature)
    assert found is not None
    violation, lines = found
    return Finding(V8, of, (of.deck,), Path("found.toml"), "", b"", violation, tuple(lines), "", None)


@pytest.fixture(scope="module")
def of_v8() -> list[Finding]:
    found = [searched(V8, deck, "pair", walks=10) for deck in ("swap", "controls")]
    return [finding(shortest) for shortest, _ in shortest_of(found)]


def test_an_owner_stands_at_every_step_of_every_mail(of_v8: list[Finding]) -> None:
    assert {one.violation.counter is None for one in of_v8} == {True, False}
    for one in of_v8:
        head, *steps = rows(one)
        assert head[-1] in {f"counter {one.violation.counter} is", "[0, HPMN) is"}
        assert all(row[-1] for row in steps)


def test_every_mail_says_where_the_rule_stands(of_v8: list[Finding]) -> None:
    for one in of_v8:
        why = " ".join(mail(one).split()).partition(" why ")[2].partition(" window ")[0]
        assert why.endswith(f"{one.violation.source}.")


def owners(world: str, steps: list[dict[str, object]], signature: Signature) -> list[str]:
    found = told_by(V8, worlds()[world], steps, signature)
    assert found is not None
    return [line.owner for line in found[1]]


def step(party: str, action: str, **of: object) -> dict[str, object]:
    return {"party": party, "action": action, **of}


LEFT = [
    step("vm0/0", "switch"),
    step("vm0/0", "msr", register="PMCR_EL0", value=1),
    step("vm1/0", "switch"),
    step("vm1/0", "msr", register="PMCNTENSET_EL0", value=0),
]
PMCR = Signature("I1", "guest_entry", "PMCR_EL0", "vcpu", "vcpu", 1)


def test_of_a_register_that_is_no_counters_it_is_who_has_the_counters_below_hpmn() -> None:
    """v8 gives a vCPU its own at its first access, and takes it at vcpu_put."""
    assert owners("pair", LEFT, PMCR) == ["host", "vm0/0", "host", "vm1/0"]


USERENR = Signature("I7", "guest_entry", "PMUSERENR_EL0", "vcpu", "kvm", 1)


def test_a_step_on_another_pcpu_leaves_it_as_it_is() -> None:
    steps = [
        step("vm0/0", "switch"),
        step("host/1", "run", cycles=100),
        step("vm0/0", "msr", register="PMCNTENSET_EL0", value=0),
    ]
    assert owners("two-pcpus", steps, USERENR) == ["host", "host", "vm0/0"]


def test_what_nobody_gave_a_guest_is_not_said_to_be_anothers() -> None:
    one = next(
        one
        for shortest, _ in shortest_of([searched(V8, "types", "one", walks=40)])
        if shortest.signature.other == "nobody"
        for one in [finding(shortest)]
    )
    assert one.violation.invariant == "I1"
    assert "Neither the host nor a vCPU had a value of its own in it" in " ".join(mail(one).split())
    assert all(line.owner == "nobody" for line in one.lines)
