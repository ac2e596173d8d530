"""What a search has found, as others can have it: a scenario that replays it, its trace, and how it reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from pmulab import scenario
from pmulab.check.job import Searched, Shortest
from pmulab.check.shrink import Signature
from pmulab.check.story import Line, story
from pmulab.check.worlds import scenario_text
from pmulab.embedded import run_embedded
from pmulab.errors import SearchError
from services.errors import UserError
from services.experiment import Experiment
from services.result import Run, Violation


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation of a design: on its shortest path, replayed from the scenario that says it."""

    design: str
    shortest: Shortest
    decks: tuple[str, ...]  # those that came to it, each with its world
    file: Path
    violation: Violation
    lines: tuple[Line, ...]
    digest: str

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
            "scenario": str(self.file),
            "digest": self.digest,
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
    ordered = sorted(best.values(), key=lambda one: (int(one.signature.invariant[1:]), _length(one)))
    return [(one, tuple(decks[one.signature])) for one in ordered]


def _length(one: Shortest) -> tuple[int, int, str]:
    return len(one.steps), len(repr(one.steps)), repr(one.steps)


def replayed(design: str, shortest: Shortest, decks: tuple[str, ...], folder: Path) -> Finding:
    """Write the scenario and run it, as `pmulab run` does. Raises SearchError if that does not find the same."""
    found = shortest.violation
    world = shortest.world
    head = f"{found.invariant} {found.kind}: {found.broken}.\n`pmulab check {design}`, {world.name}: {world.what}."
    text = scenario_text(world, shortest.steps, head=head, designs=[design])
    name = f"{found.invariant}-{found.kind}-{hashlib.sha256(text.encode()).hexdigest()[:4]}"
    file = _write(folder / f"{name}.toml", text.encode())
    (experiment,) = scenario.load(file).experiments
    run = _run(experiment)
    again = [one for one in run.violations if Signature.of(one) == shortest.signature]
    if not again:
        raise SearchError(f"{file}: {found.invariant} {found.kind} was found, and the scenario does not replay it")
    violation = again[-1]
    lines = tuple(story(experiment, shortest.steps, run, violation))
    _write(
        folder / f"{name}.json", orjson.dumps({"steps": run.steps, "violation": violation}, option=orjson.OPT_INDENT_2)
    )
    return Finding(design, shortest, decks, file, violation, lines, run.digest)


def _run(experiment: Experiment) -> Run:
    (run,) = run_embedded(experiment, lambda _share, _seconds: None).runs
    return run


def _write(path: Path, content: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise UserError(f"--out: {path}", str(error.strerror), "give a directory that can be written to") from None
    return path


def rows(finding: Finding) -> Iterator[list[str]]:
    """The steps as a table: a column for each pCPU, and whose the contested counter is, where that changes."""
    cpus = sorted({line.cpu for line in finding.lines})
    counter = finding.violation.counter
    owner = "" if counter is None else f"counter {counter} is"
    yield ["", *(f"pCPU {cpu}" for cpu in cpus), owner]
    for line in finding.lines:
        cells = [line.text if line.cpu == cpu else "" for cpu in cpus]
        yield [str(line.number), *cells, _whose(line.owner)]


def _whose(owner: str) -> str:
    return {"": "", "host": "the host's", "nobody": "nobody's"}.get(owner, f"{owner}'s")
