"""Bring what the scripts of docs/findings/ show up to date in its pages.

python -m docs.findings
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.hypotheses import DOCS, Scripted, gave, run_of, scripted
from pmulab import scenario
from pmulab.check.story import story

FOLDER = Path(__file__).with_suffix("")
_BLOCK = re.compile(r"(<!-- run (?P<name>[a-z-]+) -->\n).*?(<!-- /run -->)", re.DOTALL)


def findings() -> dict[str, tuple[Scripted, ...]]:
    """By script, under v8 and under `partitioned`."""
    data: dict[str, dict[str, Any]] = tomllib.loads(FOLDER.with_suffix(".toml").read_text())
    return {name: tuple(scripted(of)) for name, of in data.items()}


def pages() -> dict[Path, str]:
    """Each page with what its scripts show today."""
    every = findings()

    def filled(match: re.Match[str]) -> str:
        shown = "\n".join(_shown(every[match["name"]]))
        return f"{match[1]}```\n{shown}\n```\n{match[3]}"

    return {page: _BLOCK.sub(filled, page.read_text()) for page in sorted(FOLDER.glob("*.md"))}


def _shown(runs: tuple[Scripted, ...]) -> Iterator[str]:
    """The steps under v8, what it breaks there, and what another design gives instead."""
    first, *others = runs
    path = DOCS / f"{first.script}.toml"
    (experiment,) = scenario.load(path, designs=(first.design,)).experiments
    steps = tomllib.loads(path.read_text())["step"]
    run = run_of(path, first.design)
    yield f"$ pmulab run docs/{first.script}.toml --design {first.design}"
    for line in story(experiment, steps, run, run.violations[0]):
        yield f"{line.number:3}  {line.text}"
    for one in run.violations:
        if any(f"{one.invariant} {one.kind} " in shown for shown in first.shows):
            yield f"     {one.invariant} {one.kind}: {one.broken}: {one.compared}"
    for other in others:
        given = run_of(path, other.design)
        yield f"$ pmulab run docs/{other.script}.toml --design {other.design}"
        for step in other.gives:
            yield f"{step:3}  {gave(given, step)}"


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
