"""Bring what the scripts of docs/findings/ show up to date in its pages.

python -m docs.findings
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docs.hypotheses import DOCS, Scripted, gave, run_of, scripted
from pmulab import scenario
from pmulab.check.story import story

FOLDER = Path(__file__).with_suffix("")
_BLOCK = re.compile(r"(<!-- run (?P<name>\S+) -->\n).*?(<!-- /run -->)", re.DOTALL)


def findings() -> dict[str, tuple[Scripted, ...]]:
    """By script: under v8, or `partitioned` with the one step of v8 that the page is about; and under others."""
    data: dict[str, dict[str, Any]] = tomllib.loads(FOLDER.with_suffix(".toml").read_text())
    return {name: tuple(scripted(of)) for name, of in data.items()}


def pages() -> dict[Path, str]:
    """Each page with what its scripts show today. ValueError: a script without a page, a block not filled."""
    every = {name: "\n".join(_shown(runs)) for name, runs in findings().items()}
    texts = {page: page.read_text() for page in sorted(FOLDER.glob("*.md"))}
    absent = every.keys() - {match["name"] for text in texts.values() for match in _BLOCK.finditer(text)}
    if absent:
        raise ValueError(f"no page shows {', '.join(sorted(absent))}")
    return {page: filled(page.name, text, every) for page, text in texts.items()}


def filled(page: str, text: str, shown: Mapping[str, str]) -> str:
    """Each block with what its script shows."""

    def block(match: re.Match[str]) -> str:
        if match["name"] not in shown:
            raise ValueError(f"{page}: docs/findings.toml has no script {match['name']}")
        return f"{match[1]}```\n{shown[match['name']]}\n```\n{match[3]}"

    text, blocks = _BLOCK.subn(block, text)
    if blocks != text.count("<!-- run") or blocks != text.count("<!-- /run"):
        raise ValueError(f"{page}: a block that is not <!-- run NAME -->, a line, and <!-- /run -->")
    return text


def _shown(runs: tuple[Scripted, ...]) -> Iterator[str]:
    """The steps under the first design and all that it breaks there, and what the other designs give instead."""
    first, *others = runs
    path = DOCS / f"{first.script}.toml"
    (experiment,) = scenario.load(path, designs=(first.design,)).experiments
    steps = tomllib.loads(path.read_text())["step"]
    run = run_of(path, first.design)
    yield f"$ pmulab run docs/{first.script}.toml --design {first.design}"
    for line in story(experiment, steps, run, run.violations[0]):
        yield f"{line.number:3}  {line.text}"
    for one in run.violations:
        yield f"     {one.invariant} {one.kind}: {': '.join(filter(None, (one.broken, one.compared)))}"
    for other in others:
        given = run_of(path, other.design)
        yield f"$ pmulab run docs/{other.script}.toml --design {other.design}"
        for step in other.gives:
            yield f"{step:3}  {gave(given, step)}"


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
