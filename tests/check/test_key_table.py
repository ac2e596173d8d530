"""Each field of each state dataclass that is saved is named in the table of the key, with a reason, and no other."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from pmulab.check import key
from pmulab.check.play import Play
from services import state
from services.kvm.errors import SimulationError
from services.state import Saved
from tests.check.levels import DESIGNS, opened

DECKS = ("swap", "squeeze", "thread", "sampling", "cpus", "vms", "migrate")
HOWS = {"in", "out", "copied", "due", "now", "coming", "begun", "below", "near", "left"}
OF_NO_SCRIPT = {"PerfReaderState", "Leader", "Follower"}  # of sessions that record, and of BPF programs


class Saves(dict[type, Callable[[Any], Saved]]):
    """Which types of states are saved."""

    def __getitem__(self, kind: type) -> Callable[[Any], Saved]:
        save = state._functions(kind)[0]

        def seen(one: Any) -> Saved:
            self._note(one)
            return save(one)

        return seen

    def _note(self, one: Any) -> None:
        self.setdefault(type(one), dict)
        for field in dataclasses.fields(one):
            if field.name in state.names(type(one)) and "link" not in field.metadata:
                value = getattr(one, field.name)
                params = getattr(value, "__dataclass_params__", None)
                if params is not None and not params.frozen:
                    self._note(value)


async def played(deck: str, design: str) -> Play:
    play = await opened(deck, design=design)
    chance = Random(1)
    for move in chance.choices(play.stock.actions, k=12):
        try:
            await play.act([move])
        except SimulationError:
            break
        if play.over or play.simulation.entered:
            break
        play.save()
        key.Key(play).of()
    return play


async def saved_by(designs: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> set[type]:
    saves = Saves()
    monkeypatch.setattr(state, "_save", saves)
    for design in designs:
        for deck in DECKS if design == "emulated" else DECKS[:1]:  # of every other one only the vPMU is new
            await played(deck, design)
    return {*saves}


def declared(kind: type) -> list[tuple[str, str]]:
    """The class and the name of each field that is saved."""
    kept = state.names(kind)
    return [(one.__name__, field) for one in kind.__mro__ for field in inspect.get_annotations(one) if field in kept]


async def test_it_names_the_fields_that_are_saved_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {row for kind in await saved_by((*DESIGNS, "partitioned-by-steps"), monkeypatch) for row in declared(kind)}
    named = {(kind, field) for kind, rows in key.table().items() for field in rows}
    assert found <= named
    assert {row for row in named - found if row[0] not in OF_NO_SCRIPT} == set()


def test_every_row_says_how_and_why() -> None:
    rows = [row for of_kind in key.table().values() for row in of_kind.values()]
    assert {row.how for row in rows} == HOWS
    assert all(row.why for row in rows)


def test_a_field_that_is_not_named_is_an_error() -> None:
    @dataclasses.dataclass
    class Board:
        profiles: int = 0
        newer: int = 0

    Board.__module__ = "services.kvm.board"
    assert key.row_of(Board, "profiles").how == "in"
    with pytest.raises(key.UnnamedField, match=r"Board\.newer"):
        key.row_of(Board, "newer")


def test_what_a_design_of_others_keeps_is_in() -> None:
    @dataclasses.dataclass
    class Theirs:
        newer: int = 0

    assert key.row_of(Theirs, "newer").how == "in"
