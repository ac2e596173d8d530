"""A path that is made shorter is as short as is said, and so is the world that it is in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path as FilePath
from typing import Any

import pytest
import trio

from pmulab.check import fewest
from pmulab.check.fewest import actions_of
from pmulab.check.finding import Finding, replayed, run_of, shortest_of
from pmulab.check.job import Shortest
from pmulab.check.mail import mail
from pmulab.check.play import Move, Moves, Path, Stock
from pmulab.check.shorter import shorter
from pmulab.check.shrink import Shrinker, Shrunk, Signature
from pmulab.check.smaller import smaller
from pmulab.check.worlds import World, decks, scenario_text, worlds
from tests.check.searching import searched

V8 = "partitioned-v8"
FEW = 6  # steps: all sequences of so many of them are run one by one


def in_world(world: str, use: Callable[..., Any], *of: object) -> Any:
    async def booted() -> Any:
        return await use(await Shrinker.booted(Stock.of(worlds()[world], decks()["swap"], V8)), *of)

    return trio.run(booted)


def moves(stock: Stock, *steps: tuple[str, str, str, int | None]) -> Path:
    """Of each: party, action, register and value, for which the deck's is exchanged."""
    return tuple((_move(stock, *step),) for step in steps)


def _move(stock: Stock, party: str, action: str, register: str, value: int | None) -> Move:
    wanted = {"party": party, "action": action} | ({"register": register} if register else {})
    move = next(one for one in stock.actions if wanted.items() <= one.step.items())
    if value is None:
        return move
    return Move({**move.step, "value": value}, replace(move.spec, value=value))


async def _both(shrinker: Shrinker) -> tuple[Path, Path, Shrunk]:
    """A vCPU that has touched its PMU is loaded with it; what it writes to PMEVTYPER0_EL0 then stays in memory."""
    path = moves(
        shrinker.play.stock,
        ("vm0/0", "switch", "", None),
        ("vm0/0", "mrs", "PMEVCNTR0_EL0", None),
        ("vm0/0", "preempt", "", None),
        ("vm0/0", "switch", "", None),
        ("vm0/0", "msr", "PMCR_EL0", 1),
        ("vm0/0", "msr", "PMEVTYPER0_EL0", 0),
        ("vm0/0", "msr", "PMCNTENSET_EL0", 1),
        ("vm0/0", "msr", "PMCNTENCLR_EL0", 0),
    )
    signature = Signature("I6", "without_effect", "PMEVTYPER<n>_EL0", "vcpu", "kvm", 1)
    return path, await shrinker.reduced(path, signature), await shrinker.shortest(path, signature)


def test_steps_in_another_order_are_fewer_where_none_can_be_left_out() -> None:
    path, reduced, shrunk = in_world("pair", _both)
    assert len(reduced) == len(path) == 8
    assert (len(shrunk.path), shrunk.fewest) == (7, True)
    assert all(moves in path for moves in shrunk.path)


@pytest.fixture(scope="module")
def found() -> Sequence[Shortest]:
    return shortened()


def shortened() -> Sequence[Shortest]:
    found = shortest_of([searched(V8, "swap", "pair", walks=20)])
    return [trio.run(shorter, V8, shortest) for shortest, _ in found]


def test_no_shorter_sequence_of_the_same_actions_leads_to_it(found: Sequence[Shortest]) -> None:
    """Each one run from the boot, with nothing known of states that are the same."""
    few = [one for one in found if len(one.steps) <= FEW]
    assert any(len(one.steps) > 3 for one in few)
    for one in few:
        assert one.fewest
        assert not any(in_world("pair", _shorter, one))


async def _shorter(shrinker: Shrinker, one: Shortest) -> list[bool]:
    path = tuple((_as_move(shrinker.play.stock, step),) for step in one.steps)
    assert await shrinker.finds(path, one.signature)
    sequences: list[tuple[Moves, ...]] = [
        sequence for length in range(1, len(path)) for sequence in product(actions_of(path), repeat=length)
    ]
    return [await shrinker.finds(sequence, one.signature) for sequence in sequences]


def _as_move(stock: Stock, step: Any) -> Move:
    return _move(stock, step["party"], step["action"], step.get("register", ""), step.get("value"))


def test_where_not_all_could_be_looked_at_it_is_not_said(found: Sequence[Shortest], monkeypatch: Any) -> None:
    assert all("in any order" in _mail(one) for one in found)
    monkeypatch.setattr(fewest, "MOST", 10)
    again = shortened()
    assert any(not one.fewest for one in again)
    for one in again:
        assert ("in any order" in _mail(one)) is one.fewest


def _mail(one: Shortest) -> str:
    return " ".join(mail(Finding(V8, one, (), FilePath("x"), "", b"", one.violation, (), "", None)).split())


# The world.


def test_a_vm_that_no_step_names_is_left_out_and_the_other_keeps_its_name(tmp_path: FilePath) -> None:
    design = "partitioned-by-steps,pmuserenr=v8"
    found = shortest_of([searched(design, "controls", "pair", walks=10)])
    (one, of) = next(one for one in found if {step["party"] for step in one[0].steps} == {"vm1/0"})
    finding = replayed(design, one, of, tmp_path)
    assert len(finding.shortest.world.sections["guest"]) == 1
    assert finding.violation.victim == "vm1/0"
    assert finding.shortest.world.what.endswith("; without vm0")
    _, again = run_of(finding.text)
    assert again.digest == finding.digest
    assert finding.shortest.signature in map(Signature.of, again.violations)


def without(world: str, *steps: dict[str, Any]) -> list[str]:
    return [one.what.removeprefix(worlds()[world].what) for one in smaller(worlds()[world], steps)]


def test_only_who_has_nothing_to_do_is_left_out() -> None:
    assert without("pair", {"party": "vm0/0", "action": "switch"}) == ["; without vm1"]
    assert without("pair", {"party": "vm0/0", "action": "switch"}, {"party": "vm1", "action": "filter"}) == []
    assert without("smp", {"party": "vm0/0", "action": "switch"}) == ["; without vm0/1"]
    assert without("smp", {"party": "vm0/1", "action": "switch"}) == []
    assert without("two-pcpus", {"party": "vm0/0", "action": "switch"}) == ["; without pCPU 1"]
    assert without("two-pcpus", {"party": "vm0/0", "action": "migrate", "pcpu": 1}) == []
    assert without("two-pcpus", {"party": "host/1", "action": "tick"}) == []
    assert without("two-pcpus", {"party": "host", "action": "tick", "thread": "vm0/0"}) == ["; without pCPU 1"]


@pytest.mark.parametrize("world", worlds())
def test_each_smaller_world_is_one_that_can_be_run(world: str) -> None:
    """Down to that of one vCPU on one pCPU."""
    step = {"party": "vm0/0", "action": "switch"}
    at: World | None = worlds()[world]
    while at is not None:
        smallest = at
        experiment, _ = run_of(scenario_text(at, [step], designs=["partitioned"]))
        at = next(smaller(at, [step]), None)
    assert [(guest.name, len(guest.vcpus)) for guest in experiment.guests] == [("vm0", 1)]
    assert smallest.pcpus == 1
