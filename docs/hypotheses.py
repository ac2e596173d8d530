"""Write docs/hypotheses.md: what became of the hypotheses on v8 and v9.

python -m docs.hypotheses
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docs.invariants import lines
from docs.posted import name_of
from pmulab import Run, scenario
from pmulab.check.shrink import Signature
from pmulab.embedded import run_embedded

PAGE = Path(__file__).with_suffix(".md")
DOCS = PAGE.parent


@dataclass(frozen=True, slots=True)
class Scripted:
    """What a run of a script is to show under a version."""

    script: str  # its path without the suffix, from docs
    design: str
    shows: tuple[str, ...]  # violations
    absent: tuple[str, ...]  # likewise, which it must not find
    gives: Mapping[int, str]  # by step

    def wrong(self) -> list[str]:
        """What is otherwise."""
        run = run_of(DOCS / f"{self.script}.toml", self.design)
        found = names(run)
        return [
            *(f"{one} is not found" for one in self.shows if one not in found),
            *(f"{one} is found" for one in self.absent if one in found),
            *(f"step {step} gives {gave(run, step)}" for step, text in self.gives.items() if gave(run, step) != text),
        ]


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One, and what became of it."""

    name: str
    what: str
    verdicts: Mapping[str, str]  # by version
    why: str
    v9_because: str  # where v9 differs
    runs: tuple[Scripted, ...]


def hypotheses() -> list[Hypothesis]:
    data = tomllib.loads(PAGE.with_suffix(".toml").read_text())
    return [
        Hypothesis(
            name,
            of["what"],
            {"v8": of["v8"], "v9": of["v9"]},
            of["why"],
            of.get("v9_because", ""),
            tuple(scripted(of)),
        )
        for name, of in data.items()
    ]


def scripted(of: Mapping[str, Any]) -> Iterator[Scripted]:
    """Those that a table of the data has."""
    for run in of.get("runs", ()):
        gives = {int(step): text for step, text in run.get("gives", {}).items()}
        shows, absent = tuple(run.get("shows", ())), tuple(run.get("absent", ()))
        yield Scripted(run["script"], run["design"], shows, absent, gives)


def run_of(script: Path, design: str) -> Run:
    """Under that design alone."""
    (experiment,) = scenario.load(script, designs=(design,)).experiments
    (run,) = run_embedded(experiment).runs
    return run


def names(run: Run) -> set[str]:
    return {name_of(Signature.of(one)) for one in run.violations}


def gave(run: Run, number: int) -> str:
    """What a step gave: an error, a value, an interrupt, or counts with the times for which they ran."""
    step = next(one for one in run.steps if one.step == number)
    if step.error:
        return step.error
    if step.events:
        return "; ".join(
            f"{one.event} {'nothing' if one.count is None else f'{one.count:,}'} in {one.running_ns:,} of "
            f"{one.enabled_ns:,} ns"
            for one in step.events
        )
    if step.action == "irq":
        return f"an interrupt, flags {step.value:#x}" if step.taken and step.value is not None else "no interrupt"
    if step.action == "run":
        return f"{'interrupted' if step.interrupted else 'not interrupted'} after {step.cycles:,} cycles"
    return "an exception" if step.value is None else f"{step.value:#x}"


def page() -> str:
    """With the verdicts and what shows them."""
    head, mark, _ = PAGE.read_text().partition("<!-- hypotheses -->\n")
    return head + mark + "\n".join(_sections())


def _sections() -> Iterator[str]:
    every = hypotheses()
    verdicts = ((one.name, one.what, one.verdicts["v8"], one.verdicts["v9"]) for one in every)
    yield from lines(("", "Hypothesis", "v8", "v9 (unverified)"), verdicts)
    for one in every:
        because = f" v9: {one.v9_because}." if one.v9_because else ""
        yield f"\n**{one.name}**, v8 {one.verdicts['v8']}, v9 {one.verdicts['v9']}. {one.why}{because}"
        for script in dict.fromkeys(run.script for run in one.runs):
            yield f"\n- `pmulab run docs/{script}.toml --design partitioned-v8` (or `-v9`)"
            for run in one.runs:
                if run.script == script and (run.shows or run.gives):
                    shown = [f"step {step} gives {text}" for step, text in run.gives.items()]
                    yield f"  - {run.design}: {'; '.join([*shown, *run.shows])}"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page())
