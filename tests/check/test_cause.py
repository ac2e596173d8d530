"""The cause of what is found is named by the version's own steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmulab import scenario
from pmulab.check.cause import Cause, Causes
from pmulab.check.finding import Finding, replayed, shortest_of, written
from pmulab.check.mail import mail
from tests.check.searching import searched


def findings(design: str, deck: str, world: str, folder: Path, walks: int = 20, invariant: str = "") -> list[Finding]:
    """Those of that invariant, or of all."""
    found = searched(design, deck, world, walks=walks)
    return [
        written(replayed(design, shortest, of, folder))
        for shortest, of in shortest_of([found])
        if invariant in ("", shortest.signature.invariant)
    ]


def causes(found: list[Finding]) -> dict[str, set[tuple[str, ...]]]:
    """The steps that are a cause, by the invariant that they break."""
    by: dict[str, set[tuple[str, ...]]] = {}
    for one in found:
        assert one.cause is not None
        by.setdefault(one.violation.invariant, set()).add(tuple(part.axis for part in one.cause.parts))
    return by


# A known defect of a posted version, where it is found, and the step that it is one of.
KNOWN = {
    "N10: v6 keeps an event type in memory up to the next load": ("v6", "types", "one", "I4", ("write_pmevtyper",)),
    "N10: and so does v8": ("v8", "types", "one", "I6", ("write_pmevtyper",)),
    "N21: v8 does not swap PMUSERENR_EL0": ("v8", "controls", "pair", "I7", ("pmuserenr",)),
    "N1: v7 loads nothing at the first access": ("v7", "swap", "pair", "I1", ("transition",)),
    "B18: v4 clears MDCR_EL2.HPME, with HPMN the VM's": ("v4", "host", "one", "I3", ("mdcr_hpmn", "mdcr_hpme")),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_defect_has_its_step_for_a_cause(name: str, tmp_path: Path) -> None:
    version, deck, world, invariant, steps = KNOWN[name]
    found = findings(f"partitioned-{version}", deck, world, tmp_path, walks=4, invariant=invariant)
    assert steps in causes(found)[invariant]


def test_what_is_found_of_v8_is_found_with_all_its_steps_and_has_a_cause(tmp_path: Path) -> None:
    found = findings("partitioned-v8", "swap", "pair", tmp_path)
    assert found
    for one in found:
        assert one.cause is not None
        assert one.cause.parts, "with all steps of v8 it was not found"
        assert one.cause.gone


def test_with_the_cause_alone_it_is_found_and_so_says_the_mail(tmp_path: Path) -> None:
    found = findings("partitioned-v8", "types", "one", tmp_path)
    one = next(one for one in found if one.violation.invariant == "I4")
    assert one.cause is not None
    assert one.cause.alone == "partitioned-by-steps,write_pmevtyper=v8"
    text = " ".join(mail(one).split())
    assert "because of v8's writes of PMEVTYPER<n>_EL0 (into memory alone, onto the CPU at the next load);" in text
    assert "with partitioned's instead it is gone" in text
    again = {finding.violation.invariant for finding in findings(one.cause.alone, "types", "one", tmp_path)}
    assert "I4" in again


def test_of_a_design_with_axes_these_are_the_steps(tmp_path: Path) -> None:
    found = findings("partitioned-by-steps,write_pmevtyper=v8,allocation=v7", "types", "one", tmp_path)
    assert causes(found)["I4"] == {("write_pmevtyper",)}


def test_a_design_that_is_all_defaults_has_nothing_to_exchange(tmp_path: Path) -> None:
    (one, *_) = findings("partitioned-v8", "types", "one", tmp_path)
    assert one.cause is not None
    assert cause_under("partitioned", one) is None


def cause_under(design: str, finding: Finding) -> Cause | None:

    (experiment,) = scenario.load(finding.file).experiments
    return Causes(experiment, finding.shortest.signature).of(design)
