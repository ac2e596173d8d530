"""The search for one mutant: all decks in all worlds, further only as long as nothing is found; and what is kept of it.

Nothing in it is bounded by time, so that the same is found whenever it is done.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import trio

from pmulab.check.accesses import Step
from pmulab.check.finding import shortest_of
from pmulab.check.job import Job, Searched, search
from pmulab.check.worlds import Deck, World, decks, scenario_text, worlds
from pmulab.embedded import run_embedded
from pmulab.scenario.resolve import resolve
from services.tables import Document
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
    found: list[Searched] = []
    with offered(), in_force(TABLE[name]):
        for effort in EFFORTS:
            for deck, world in effort.places():
                job = Job(name, world, deck, effort.depth, INTERRUPTIONS, effort.walks, SEED, None, first=True)
                found.append(trio.run(search, job))
                if effort is not EFFORTS[0] and found[-1].found:
                    break
            if any(one.found for one in found):
                break
    failed = [one.failed for one in found if one.failed]
    if failed and not any(one.found for one in found):
        raise SystemExit(f"{name}: {failed[0]}")
    shortest = min((one for one, _ in shortest_of(found)), key=lambda one: len(one.steps), default=None)
    invariants = {one.signature.invariant for each in found for one in each.found}
    counterexample = None
    if shortest is not None:
        of = shortest.signature
        counterexample = Counterexample(
            of.invariant, of.kind, shortest.deck, shortest.world.name, tuple(dict(step) for step in shortest.steps)
        )
    in_order = tuple(sorted(invariants, key=lambda one: int(one[1:])))
    by = "" if shortest is None else effort.what
    return Hunted(by, round(time.process_time() - began, 1), in_order, counterexample)


def broken(design: str, world: str, steps: Sequence[Step]) -> set[tuple[str, str]]:
    """Invariant and kind of each violation that counts, of these steps as a scenario."""
    text = scenario_text(worlds()[world], steps, designs=[design])
    (experiment,) = resolve(Document(f"{design} in {world}", Path(), text), [], None, False).experiments
    (run,) = run_embedded(experiment, lambda _share, _seconds: None).runs
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
