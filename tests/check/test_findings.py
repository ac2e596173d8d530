"""docs/findings: a page each that v8 shows, and `partitioned` does not."""

from __future__ import annotations

import pytest

from docs import findings
from docs.hypotheses import DOCS, Scripted, run_of

EVERY = findings.findings()


@pytest.mark.parametrize(
    "run", [run for runs in EVERY.values() for run in runs], ids=lambda run: f"{run.script} {run.design}"
)
def test_a_script_shows_what_is_said_of_it(run: Scripted) -> None:
    assert run.wrong() == []


@pytest.mark.parametrize("name", EVERY)
def test_the_reference_breaks_nothing_on_the_same_steps(name: str) -> None:
    for design in ("partitioned", "emulated"):
        violations = run_of(DOCS / "findings" / f"{name}.toml", design).violations
        assert [one for one in violations if not one.declared] == []


def test_the_pages_have_what_their_scripts_show() -> None:
    for page, text in findings.pages().items():
        assert page.read_text() == text, "run python -m docs.findings"
