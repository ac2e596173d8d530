"""docs/findings: what v8 shows on a page's steps, and `partitioned` does not."""

from __future__ import annotations

import pytest

from docs import findings
from docs.hypotheses import DOCS, Scripted, run_of

EVERY = findings.findings()
SHOWN = {"el0-filters": "what it shows"}


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


def test_the_commands_of_the_pages_are_those_of_the_scripts() -> None:
    """Looked for without what fills them in."""
    lines = [line for page in findings.FOLDER.glob("*.md") for line in page.read_text().splitlines()]
    commands = [line for line in lines if line.startswith("$ pmulab run")]
    runs = [f"$ pmulab run docs/{run.script}.toml --design {run.design}" for runs in EVERY.values() for run in runs]
    assert sorted(commands) == sorted(runs)
    assert {path.stem for path in findings.FOLDER.glob("*.toml")} == set(EVERY)


def test_a_block_is_filled_whatever_is_in_it() -> None:
    page = "before\n<!-- run el0-filters -->\n<!-- /run -->\nbehind"
    full = "before\n<!-- run el0-filters -->\n```\nwhat it shows\n```\n<!-- /run -->\nbehind"
    assert findings.filled("page", page, SHOWN) == full
    assert findings.filled("page", full, SHOWN) == full


@pytest.mark.parametrize(
    "text",
    ["<!-- run el1 -->\n<!-- /run -->", "<!-- run el0-filters -->", "<!-- run el0-filters-->\n<!-- /run -->"],
    ids=["no such script", "never ends", "is no mark"],
)
def test_a_block_that_is_not_filled_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="page: "):
        findings.filled("page", text, SHOWN)


def test_a_script_without_a_page_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "findings", lambda: {**EVERY, "nowhere": EVERY["reload"]})
    with pytest.raises(ValueError, match="no page shows nowhere"):
        findings.pages()
