"""What the search finds, and what not; and that it finds the same whoever does it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from pmulab import scenario
from pmulab.check.finding import Finding, replayed, shortest_of, written
from pmulab.check.job import Job
from pmulab.check.play import Stock
from pmulab.check.pool import Stop
from pmulab.check.pool import searched as searched_at_once
from pmulab.check.shrink import Shrinker, Signature
from pmulab.check.worlds import decks
from pmulab.commands.run import _execute_in_processes
from services.result import Violation
from tests.check.searching import job, searched

REFERENCE = ("partitioned", "partitioned,reservation=static", "emulated")
EVERYWHERE = [(deck, world) for deck in decks() for world in decks()[deck].worlds]


@pytest.mark.parametrize("deck", decks())
@pytest.mark.parametrize("design", REFERENCE)
def test_nothing_is_found_in_a_reference_design(design: str, deck: str) -> None:
    """A short form of what `pmulab check` does."""
    for world in decks()[deck].worlds:
        found = searched(design, deck, world, walks=16)
        assert found.actions > 300
        assert [one.steps for one in found.found] == []


# A known defect of a posted version, the deck that comes to it, and what is found (vpmu-designs.md of the material this
# is made from; B and N are its numbers).
KNOWN = {
    "N10: an event type takes effect at the next load": ("partitioned-v8", "types", "one", "I4"),
    "N21: a guest's PMUSERENR_EL0 is not swapped": ("partitioned-v8", "controls", "pair", "I7"),
    "N1: the first access loads nothing": ("partitioned-v7", "swap", "pair", "I1"),
    "B18: MDCR_EL2 without HPME": ("partitioned-v4", "host", "one", "I3"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_defect_is_found(name: str) -> None:
    design, deck, world, invariant = KNOWN[name]
    found = searched(design, deck, world, walks=40)
    assert invariant in {one.signature.invariant for one in found.found}


def first_of(design: str, deck: str, world: str, folder: Path) -> Finding:
    shortest, of = shortest_of([searched(design, deck, world, walks=10)])[0]
    return written(replayed(design, shortest, of, folder))


def _same(one: Violation) -> tuple[object, ...]:
    return one.invariant, one.kind, one.register, one.cycle, one.victim, one.other, one.expected, one.actual


def test_what_is_found_replays_from_its_scenario_in_every_topology(tmp_path: Path) -> None:
    finding = first_of("partitioned-v7", "swap", "pair", tmp_path)
    assert finding.file.is_relative_to(tmp_path)
    assert finding.file.with_suffix(".json").exists()
    (experiment,) = scenario.load(finding.file).experiments
    (run,) = _execute_in_processes(experiment, lambda _share, _seconds: None).runs
    assert run.digest == finding.digest
    assert _same(finding.violation) in map(_same, run.violations)


async def _needed(finding: Finding) -> list[bool]:
    """Is it found without each step?"""
    of = finding.shortest
    stock = Stock.of(of.world, decks()[of.deck], finding.design)
    shrinker = await Shrinker.booted(stock)
    (experiment,) = scenario.load(finding.file).experiments
    moves = {repr(move.step): move for move in (*(move for (move,) in stock.opening), *stock.actions)}
    path = []
    for step, spec in zip(of.steps, experiment.steps, strict=True):
        known = moves.get(repr(step))
        move = next(one for one in moves.values() if one.spec.action == spec.action) if known is None else known
        path.append((replace(move, step=step, spec=replace(spec, profile=move.spec.profile)),))
    signature = of.signature
    assert await shrinker.finds(tuple(path), signature)
    return [await shrinker.finds((*path[:n], *path[n + 1 :]), signature) for n in range(len(path))]


def test_no_step_of_what_is_found_can_be_left_out(tmp_path: Path) -> None:
    finding = first_of("partitioned-v7", "swap", "pair", tmp_path)
    assert len(finding.shortest.steps) <= 8
    assert not any(trio.run(_needed, finding))


def findings(jobs: list[Job], at_once: int) -> list[tuple[Signature, object]]:
    done = dict(searched_at_once(jobs, at_once, Stop()))
    return [(one.signature, one.steps) for one, _ in shortest_of([done[n] for n in sorted(done)])]


def test_the_same_is_found_however_many_processes_do_it() -> None:
    jobs = [job("partitioned-v8", deck, world, walks=8) for deck in ("swap", "types") for world in decks()[deck].worlds]
    assert findings(jobs, 1) == findings(jobs, 2) != []


def test_another_seed_walks_elsewhere() -> None:
    one, other = (searched("partitioned", "swap", "pair", walks=5, seed=seed) for seed in (1, 2))
    assert one.coverage.points != other.coverage.points


def test_a_design_that_cannot_be_had_somewhere_is_said_to_be_so() -> None:
    found = searched("emulated,kernel=7.3,strict=yes", "migrate", "different-cores", walks=1)
    assert "has no PMU until one is chosen" in found.refused
