"""The mutants themselves: that there are all, that each is one, and that what was found of them is so still."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter

import pytest
import trio

from tests.mutation import record
from tests.mutation.__main__ import _seeds
from tests.mutation.applied import applied
from tests.mutation.hunt import FAULT, Hunt, replayed
from tests.mutation.record import Result
from tests.mutation.source import FUNCTIONS, mutants
from tests.mutation.transplants import transplants
from tests.repeatability import traffic

# A mutant may not await what it has made.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def _names() -> list[str]:
    return [one.name for one in transplants()] + [one.name for one in mutants()]


def test_each_mutant_has_a_name_of_its_own() -> None:
    assert len({*_names()}) == len(_names())


def test_every_function_named_has_mutants() -> None:
    of = Counter((one.module, one.function) for one in mutants())
    assert {(module, function) for module, functions in FUNCTIONS.items() for function in functions} == {*of}


def test_every_kind_of_a_change_is_made() -> None:
    assert {one.kind for one in mutants()} == {"deleted", "swapped", "mask", "wrong CPU", "ISB missing"}


def test_a_mutant_is_another_program_and_put_back_it_is_the_same() -> None:
    before = trio.run(traffic._of, "fgt", "partitioned")
    one = next(one for one in mutants() if one.name.startswith("SwapOut.cnten") and one.kind == "deleted")
    with applied(one):
        assert trio.run(traffic._of, "fgt", "partitioned") != before
    assert trio.run(traffic._of, "fgt", "partitioned") == before


def test_nothing_is_killed_where_nothing_is_changed() -> None:
    assert Hunt("partitioned").kill(1, 1, shorten=False) is None


def test_what_killed_a_mutant_kills_it_still() -> None:
    """Of some: all by python -m tests.mutation --replay."""
    kept = record.kept()
    some = [one for one in mutants() if one.name in kept][::8]
    assert len(some) > 20
    for one in some:
        kill = kept[one.name]
        with applied(one):
            assert replayed("partitioned", kill.world, kill.steps), one.name
        assert not replayed("partitioned", kill.world, kill.steps), f"{one.name}: and plain partitioned"


def test_a_loop_without_an_end_is_a_fault() -> None:
    one = next(one for one in mutants() if one.name.startswith("level: return False: deleted"))
    with applied(one):
        kill = Hunt("partitioned").kill(1, 4, shorten=False)
    assert kill is not None
    assert kill.by == (FAULT,)


def test_what_survives_a_seed_is_looked_for_with_the_others_but_if_it_breaks_nothing() -> None:
    searched = Namespace(seeds=3, rounds=8)
    equivalent = next(name for name in _names() for one in record.reasons() if one.covers(name) and not one.hole)
    assert _seeds(searched, Result("none of these", "mask", {1: None}, 8)) == [2, 3]
    assert _seeds(searched, Result(equivalent, "mask", {1: None}, 8)) == []


def test_nothing_that_is_killed_is_said_to_survive() -> None:
    killed = {name: kill for name, kill in record.kept().items() if name in _names()}
    assert [name for name in killed if record.reason(name, record.reasons()) is not None] == []


def test_each_reason_is_one_of_a_mutant() -> None:
    for reason in record.reasons():
        assert any(map(reason.covers, _names())), reason.names


def test_what_no_deck_has_would_kill_what_survives_for_want_of_it() -> None:
    for reason in record.reasons():
        for one in mutants():
            if reason.steps and reason.covers(one.name):
                with applied(one):
                    assert replayed("partitioned", reason.world, reason.steps), one.name
        for other in transplants():
            if reason.steps and reason.covers(other.name):
                assert replayed(other.design, reason.world, reason.steps), other.name
        assert not reason.steps or not replayed("partitioned", reason.world, reason.steps), reason.names
