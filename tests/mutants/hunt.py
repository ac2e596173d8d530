"""The search for one mutant: all decks in all worlds, further only as long as nothing is found; and what is kept of it.

Nothing in it is bounded by time, so that the same is found whenever it is done.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import trio

from pmulab.check.accesses import Step
from pmulab.check.finding import run_of
from pmulab.check.job import Job, Searched, Shortest, search
from pmulab.check.worlds import Deck, World, decks, scenario_text, worlds
from tests.mutants.driver import in_force
from tests.mutants.table import TABLE, offered

FOUND = Path(__file__).with_name("found.json")
SEED = 1
INTERRUPTIONS = 1


@dataclass(frozen=True, slots=True)
class Effort:
    """How far is searched."""

    what: str
    depth: int
    walks: int
    amid: bool = False  # in the first world of decks in which something comes amid KVM's steps, and nowhere else

    def places(self) -> Iterator[tuple[Deck, World]]:
        for deck in decks().values():
            if deck.amid or not self.amid:
                for name in deck.worlds[:1] if self.amid else deck.worlds:
                    yield deck, worlds()[name]


# One after the other, up to the first that finds something.
EFFORTS = (
    Effort("20 walks", 0, 20),
    Effort("depth 3", 3, 0, amid=True),
    Effort("120 walks", 0, 120),
)


@dataclass(frozen=True, slots=True)
class Counterexample:
    """The shortest, wherever it was found."""

    invariant: str
    kind: str
    deck: str
    world: str
    steps: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Hunted:
    """What has come of the search for a mutant."""

    effort: str  # that has found it; empty if none has
    seconds: float  # of the processor's time, in that run
    invariants: tuple[str, ...]  # of what each deck finds first
    counterexample: Counterexample | None


def hunt(name: str) -> Hunted:
    """Search for a mutant."""
    began = time.process_time()
    found: list[Shortest] = []
    failed = ""
    for effort in EFFORTS:
        for deck, world in effort.places():
            searched = _search(
                Job(name, world, deck, effort.depth, INTERRUPTIONS, effort.walks, SEED, None, first=True)
            )
            failed = failed or searched.failed
            found += filter(_its_own, searched.found)
            if found and effort is not EFFORTS[0]:
                break
        if found:
            break
    seconds = round(time.process_time() - began, 1)
    if not found:
        if failed:
            raise SystemExit(f"{name}: {failed}")
        return Hunted("", seconds, (), None)
    invariants = sorted({one.signature.invariant for one in found}, key=lambda invariant: int(invariant[1:]))
    return Hunted(effort.what, seconds, tuple(invariants), _shortest(found))


def _search(job: Job) -> Searched:
    with offered(), in_force(TABLE[job.design]):
        return trio.run(search, job)


def _its_own(one: Shortest) -> bool:
    """Or is it `partitioned`'s as well: a false alarm, or a defect of that?"""
    return (one.signature.invariant, one.signature.kind) not in broken("partitioned", one.world.name, one.steps)


def _shortest(found: Iterable[Shortest]) -> Counterexample:
    """By its steps; of several the first in the order of the invariants."""

    def rank(one: Shortest) -> tuple[int, int, int, str]:
        return len(one.steps), int(one.signature.invariant[1:]), len(repr(one.steps)), repr(one.steps)

    one = min(found, key=rank)
    steps = tuple(dict(step) for step in one.steps)
    return Counterexample(one.signature.invariant, one.signature.kind, one.deck, one.world.name, steps)


def broken(design: str, world: str, steps: Sequence[Step]) -> set[tuple[str, str]]:
    """Invariant and kind of each violation that counts, of these steps as a scenario."""
    _, run = run_of(scenario_text(worlds()[world], steps, designs=[design]))
    return {(one.invariant, one.kind) for one in run.violations if one.counts}


def kept() -> dict[str, Hunted]:
    """What the last search for each mutant has found."""
    data = orjson.loads(FOUND.read_bytes()) if FOUND.exists() else {}
    return {name: _read(data[name]) for name in TABLE if name in data}


def _read(of: dict[str, Any]) -> Hunted:
    found = of["counterexample"]
    counterexample = None if found is None else Counterexample(**{**found, "steps": tuple(found["steps"])})
    return Hunted(of["effort"], of["seconds"], tuple(of["invariants"]), counterexample)


def keep(hunted: Mapping[str, Hunted]) -> None:
    data = {name: asdict(hunted[name]) for name in TABLE if name in hunted}
    FOUND.write_bytes(orjson.dumps(data, option=orjson.OPT_INDENT_2) + b"\n")
