"""What a search has found, as others can have it: a scenario that replays it, its trace, and how it reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import trio

from pmulab.check.accesses import Step
from pmulab.check.cause import Cause, Causes
from pmulab.check.fault import Fault
from pmulab.check.job import Searched, Shortest, Tell, shortened
from pmulab.check.shorter import shorter
from pmulab.check.shrink import Signature
from pmulab.check.smaller import smaller
from pmulab.check.story import Line, story
from pmulab.check.worlds import World, scenario_text
from pmulab.embedded import run_embedded
from pmulab.errors import SearchError
from pmulab.scenario.resolve import resolve
from pmulab.violations import contested, whose
from services.errors import UserError
from services.experiment import Experiment
from services.kvm.errors import SimulationError
from services.result import Run, Violation
from services.tables import Document


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation of a design: on its shortest path, replayed from the scenario that says it."""

    design: str
    shortest: Shortest
    decks: tuple[str, ...]  # those that came to it, each with its world
    file: Path  # of the scenario
    text: str  # that is in it
    trace: bytes  # what is in the file beside it
    violation: Violation
    lines: tuple[Line, ...]
    digest: str
    cause: Cause | None  # None: there is nothing to exchange in the design
    unwritten: str = ""  # why there is no file

    def as_json(self) -> dict[str, Any]:
        return {
            "design": self.design,
            "invariant": self.violation.invariant,
            "kind": self.violation.kind,
            "broken": self.violation.broken,
            "steps": self.shortest.steps,
            "world": self.shortest.world.name,
            "decks": self.decks,
            "found_after_actions": self.shortest.after,
            "shrunk_from_steps": self.shortest.length,
            "fewest": self.shortest.fewest,
            "scenario": None if self.unwritten else str(self.file),
            "digest": self.digest,
            "cause": None if self.cause is None else self.cause.as_json(),
            "violation": self.violation,
        }


def shortest_of(searched: Iterable[Searched]) -> list[tuple[Shortest, tuple[str, ...]]]:
    """Of each signature the shortest path, whichever job found it, and the decks that came to it."""
    best: dict[Signature, Shortest] = {}
    decks: dict[Signature, dict[str, None]] = {}
    for one in searched:
        for found in one.found:
            decks.setdefault(found.signature, {})[f"{found.deck} in {found.world.name}"] = None
            before = best.get(found.signature)
            if before is None or _length(found) < _length(before):
                best[found.signature] = found
    return [(one, tuple(decks[one.signature])) for one in sorted(best.values(), key=_rank)]


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """By invariant, the shortest first."""
    return sorted(findings, key=lambda one: _rank(one.shortest))


def _rank(one: Shortest) -> tuple[int, tuple[int, int, str]]:
    return int(one.signature.invariant[1:]), _length(one)


def _length(one: Shortest) -> tuple[int, int, str]:
    return len(one.steps), len(repr(one.steps)), repr(one.steps)


@dataclass(frozen=True, slots=True)
class Problem:
    """What could not be carried out, and why."""

    text: str
    traceback: str = ""  # where the fault is ours


def finished(found: tuple[str, Shortest, tuple[str, ...], Path], _tell: Tell) -> Finding | Problem:
    """What a search has found under a design, made short and replayed. A worker does it."""
    design, one, decks, folder = found
    try:
        return replayed(design, trio.run(shortened, design, one), decks, folder)
    except Exception as error:  # of the design's code, or ours: the others are finished all the same
        fault = Fault.of(error, design)
        return Problem(f"{design}, {one}: {fault.what}", fault.traceback)


def replayed(design: str, shortest: Shortest, decks: tuple[str, ...], folder: Path) -> Finding:
    """With the fewest of its steps, by a run of the scenario, as `pmulab run` has it, which is to be written to a file
    of the `folder`. Raises SearchError if that does not find the same, SimulationError."""
    shortest = trio.run(shorter, design, shortest)
    steps = shortest.steps
    found = _found(design, shortest, steps)
    if found is None:
        one = shortest.violation
        raise SearchError(f"{one.invariant} {one.kind} was found, and not by the scenario of it: {steps}")
    while len(steps) > 1:  # the end of a run, when everybody reports, may find it by itself
        without = _found(design, shortest, steps[:-1])
        if without is None:
            break
        steps, found = steps[:-1], without
    shortest = replace(shortest, steps=steps, fewest=shortest.fewest and steps == shortest.steps)
    shortest, found = _in_the_smallest(design, shortest, found)
    violation = found.violation
    told = f"{shortest.signature} {found.text}"
    name = f"{violation.invariant}-{violation.kind}-{hashlib.sha256(told.encode()).hexdigest()[:4]}"
    trace = orjson.dumps({"steps": found.run.steps, "violation": violation}, option=orjson.OPT_INDENT_2)
    lines = tuple(story(found.experiment, steps, found.run, violation))
    cause = Causes(found.experiment, shortest.signature).of(design)
    file = folder / f"{name}.toml"
    return Finding(design, shortest, decks, file, found.text, trace, violation, lines, found.run.digest, cause)


def written(finding: Finding) -> Finding:
    """With its two files; or why there are none."""
    files = {finding.file: finding.text.encode(), finding.file.with_suffix(".json"): finding.trace}
    try:
        finding.file.parent.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            path.write_bytes(content)
    except OSError as error:
        for path in files:  # half of one would be taken for a whole one
            with suppress(OSError):
                path.unlink(missing_ok=True)
        return replace(finding, unwritten=error.strerror or type(error).__name__)
    return finding


def _in_the_smallest(design: str, shortest: Shortest, found: _Replay) -> tuple[Shortest, _Replay]:
    """The same steps without each party that they do not need."""
    for world in smaller(shortest.world, shortest.steps):
        fewer = replace(shortest, world=world)
        again = _found(design, fewer, shortest.steps)
        if again is not None:
            return _in_the_smallest(design, fewer, again)
    return shortest, found


@dataclass(frozen=True, slots=True)
class _Replay:
    """A run of a scenario in which the violation is found."""

    text: str
    experiment: Experiment
    run: Run
    violation: Violation


def _found(design: str, shortest: Shortest, steps: tuple[Step, ...]) -> _Replay | None:
    """By a run of these steps; None if they are not possible, or it is not found."""
    world, one = shortest.world, shortest.violation
    head = f"{one.invariant} {one.kind}: {one.broken}.\n`pmulab check {design}`, {world.name}: {world.what}."
    text = scenario_text(world, steps, head=head, designs=[design])
    try:
        experiment, run = run_of(text)
    except (UserError, SimulationError):
        return None
    same = [one for one in run.violations if Signature.of(one) == shortest.signature]
    return _Replay(text, experiment, run, same[-1]) if same else None


def told_by(
    design: str, world: World, steps: Sequence[Step], signature: Signature
) -> tuple[Violation, list[Line]] | None:
    """What a run of these steps finds of that signature, and what happens in it; None if it is not found. Raises
    UserError, SimulationError if they are not possible."""
    experiment, run = run_of(scenario_text(world, steps, designs=[design]))
    same = [one for one in run.violations if Signature.of(one) == signature]
    return (same[-1], story(experiment, steps, run, same[-1])) if same else None


def run_of(text: str) -> tuple[Experiment, Run]:
    """A scenario of one design, and its run. Raises UserError, SimulationError."""
    (experiment,) = resolve(Document("found.toml", Path(), text), [], None, False).experiments
    (run,) = run_embedded(experiment).runs
    return experiment, run


def rows(finding: Finding) -> Iterator[list[str]]:
    """The steps as a table: a column for each pCPU, and behind each step whose the contested counter is, or, of what is
    no counter's, who has the guests' counters and their controls."""
    cpus = sorted({line.cpu for line in finding.lines})
    yield ["", *(f"pCPU {cpu}" for cpu in cpus), f"{contested(finding.violation)} is"]
    for line in finding.lines:
        cells = [line.text if line.cpu == cpu else "" for cpu in cpus]
        yield [str(line.number), *cells, whose(line.owner) if line.owner else ""]
