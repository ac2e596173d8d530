"""The worlds and decks of the search: data, the same for every design, and all of it possible."""

from __future__ import annotations

import re
from collections import Counter
from importlib.resources import files

import pytest
import trio

from pmulab.check.accesses import accesses
from pmulab.check.mail import summary
from pmulab.check.play import Play, Stock
from pmulab.check.worlds import decks, worlds
from services.cores import PMUVER
from services.judge.invariants import INVARIANTS
from services.kvm.designs import designs
from tests.check.searching import searched

EVERYWHERE = [(deck, world) for deck in decks() for world in decks()[deck].worlds]


def test_neither_worlds_nor_decks_name_a_design() -> None:
    text = "".join(files("pmulab.check").joinpath(name).read_text() for name in ("worlds.toml", "decks.toml"))
    assert not [name for name in designs() if name in text]


def test_each_world_is_in_a_deck_and_each_deck_serves_invariants() -> None:
    assert {world for _, world in EVERYWHERE} == set(worlds())
    assert {name for deck in decks().values() for name in deck.serves} == set(INVARIANTS)


@pytest.mark.parametrize(("deck", "world"), EVERYWHERE)
def test_each_action_is_possible_at_some_time(deck: str, world: str) -> None:
    """But an access of every register: of those each is, once its vCPU runs."""
    stock = Stock.of(worlds()[world], decks()[deck], "partitioned")
    found = searched("partitioned", deck, world, walks=60)
    done = Counter((point[0], point[1]) for point in found.coverage.points)
    never = {(move.spec.action, move.spec.party) for move in stock.actions} - set(done)
    assert not never


def test_accesses_of_every_register_are_those_that_a_guest_has() -> None:
    registers = {step["register"] for step in accesses("vm0/0")}
    assert {"PMCR_EL0", "PMUACR_EL1", "PMEVCNTR30_EL0", "PMCCFILTR_EL0", "PMSWINC_EL0"} <= registers
    assert not {name for name in registers if name.endswith("_EL2")}


def test_a_world_may_have_another_core_and_other_counters() -> None:
    world = worlds()["different-pcpus"].of("neoverse-n2", 6)
    stock = Stock.of(world, decks()["squeeze"], "partitioned")
    assert [cpu.counters for cpu in stock.experiment.cpus] == [6, 6]
    assert {cpu.fgt for cpu in stock.experiment.cpus} == {0}


async def _restored(deck: str, world: str) -> None:
    play = Play(Stock.of(worlds()[world], decks()[deck], "partitioned"))
    await play.boot()
    root = play.save()
    for moves in (*play.stock.opening, *((move,) for move in play.stock.actions)):
        await play.act(moves)
    play.restore(root)
    assert play.save() == root


@pytest.mark.parametrize(("deck", "world"), [("swap", "pair"), ("vms", "pair"), ("cpus", "powerdown")])
def test_a_world_is_restored_whatever_has_happened_in_it(deck: str, world: str) -> None:
    trio.run(_restored, deck, world)


async def _impossible() -> None:
    play = Play(Stock.of(worlds()["one"], decks()["restore"], "partitioned"))
    await play.boot()
    before = play.save()
    read = next(move for move in play.stock.actions if move.spec.action == "mrs")
    assert not await play.act((read,)), "its vCPU does not run"
    assert play.save() == before


def test_what_is_not_possible_leaves_everything_as_it_was() -> None:
    trio.run(_impossible)


@pytest.mark.parametrize("name", worlds())
def test_what_a_world_is_made_of_is_what_a_scenario_of_it_has(name: str) -> None:
    world = worlds()[name]
    deck = next(deck for deck in decks().values() if name in deck.worlds)
    experiment = Stock.of(world, deck, "partitioned").experiment
    cpus, *vms = world.contents.split("; ")
    assert cpus.startswith(f"{len(experiment.cpus)} pCPU")
    assert all(f"{PMUVER[cpu.pmuver]}, " in cpus or f"{PMUVER[cpu.pmuver]})" in cpus for cpu in experiment.cpus)
    assert all(str(cpu.counters) in cpus.rpartition("), ")[2] for cpu in experiment.cpus)
    assert ("FEAT_FGT" in cpus) == any(cpu.fgt for cpu in experiment.cpus)
    assert ("FEAT_HPMN0" in cpus) == any(cpu.hpmn0 for cpu in experiment.cpus)
    for guest, told in zip(experiment.guests, vms, strict=False):
        assert told.startswith(f"{guest.name}: {len(guest.vcpus)} vCPU")
        assert told.endswith(f", asks for {guest.counters}")


def test_a_summary_says_once_what_each_world_is_made_of() -> None:
    parts = [searched("partitioned", deck, "one", walks=1, depth=1) for deck in ("types", "host")]
    lines = summary("partitioned", parts, 0).splitlines()
    assert lines[0].startswith("partitioned: nothing found; 2 of 2 parts searched, ")
    assert re.search(r" states \([\d,]+ a second and core\), [\d,]+ actions \([\d,]+ a second and core\)$", lines[0])
    assert lines.count(f"one: {worlds()['one'].contents}") == 1
