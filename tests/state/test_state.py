"""State as data: what is saved shares nothing with what lives on, and is the same after JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.state import derived, link, names, restore, save


class Colour(IntEnum):
    RED = 1
    GREEN = 2


@dataclass(frozen=True, slots=True)
class Made:
    name: str
    sizes: tuple[int, ...] = ()


@dataclass(slots=True)
class Inner:
    values: list[int] = field(default_factory=list)
    count: int = 0


@dataclass(slots=True)
class Outer:
    number: int = 0
    colour: Colour = Colour.RED
    made: Made | None = None
    pairs: list[tuple[int, int]] = field(default_factory=list)
    by_key: dict[int, list[int]] = field(default_factory=dict)
    requests: list[bytes] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    compute: tuple[int, int, int] | None = None
    all_made: list[Made] = field(default_factory=list)
    made_by_key: dict[int, Made] = field(default_factory=dict)
    colours: list[Colour | None] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)
    other: dict[str, Any] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    half: int = derived(default=0)


numbers = st.integers(0, 2**64 - 1)
mades = st.builds(Made, st.text(), st.lists(numbers).map(tuple))
outers = st.builds(
    Outer,
    number=numbers,
    colour=st.sampled_from(Colour),
    made=st.none() | mades,
    pairs=st.lists(st.tuples(numbers, numbers)),
    by_key=st.dictionaries(numbers, st.lists(numbers)),
    requests=st.lists(st.text().map(str.encode)),
    seen=st.sets(numbers),
    compute=st.none() | st.tuples(numbers, numbers, numbers),
    all_made=st.lists(mades),
    made_by_key=st.dictionaries(numbers, mades),
    colours=st.lists(st.none() | st.sampled_from(Colour)),
    rows=st.lists(st.lists(numbers)),
    other=st.dictionaries(st.text(), st.lists(st.text())),
    inner=st.builds(Inner, st.lists(numbers), numbers),
)


def through_json(saved: dict[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = orjson.loads(orjson.dumps(saved))
    return value


@given(outers)
def test_what_is_restored_is_what_was_saved_also_by_way_of_json(state: Outer) -> None:
    direct, by_json = Outer(half=7), Outer(half=7)
    restore(direct, save(state))
    restore(by_json, through_json(save(state)))
    assert direct == by_json == state
    assert through_json(save(by_json)) == through_json(save(state))


def test_a_saved_state_shares_nothing_that_can_change_with_the_living_one() -> None:
    state = Outer(pairs=[(1, 2)], by_key={3: [4]}, rows=[[1]], other={"one": [2]}, inner=Inner([5]))
    saved = save(state)
    before = orjson.dumps(saved)
    state.pairs.append((6, 7))
    state.by_key[3].append(8)
    state.rows[0].append(2)
    state.other["one"].append(3)
    state.inner.values.append(9)
    state.inner.count += 1
    assert orjson.dumps(saved) == before
    restore(state, saved)
    state.by_key[3].append(10)
    state.rows[0].append(11)
    state.other["one"].append(12)
    state.inner.values.append(11)
    assert orjson.dumps(saved) == before


def test_a_restore_leaves_what_is_derived_and_the_nested_object_in_place() -> None:
    state = Outer(half=7)
    inner = state.inner
    restore(state, save(Outer(inner=Inner([1], 2), half=8)))
    assert state.half == 7
    assert state.inner is inner
    assert inner == Inner([1], 2)


def test_what_is_derived_is_not_saved() -> None:
    assert "half" not in save(Outer())
    assert names(Inner) == {"values", "count"}


def test_a_field_that_is_missing_is_named() -> None:
    saved = save(Outer())
    del saved["number"]
    with pytest.raises(KeyError, match="number"):
        restore(Outer(), saved)


@dataclass(slots=True, eq=False)
class Node:
    id: int
    next: Node | None = link(default=None)
    others: list[Node | None] = link(default_factory=list)
    by_key: dict[int, Node] = link(default_factory=dict)


def test_links_are_saved_as_ids_and_restored_from_the_objects_that_have_them() -> None:
    one, two = Node(1), Node(2)
    one.next, one.others, one.by_key = two, [two, None, one], {7: two}
    saved = through_json(save(one))
    assert saved == {"id": 1, "next": 2, "others": [2, None, 1], "by_key": [[7, 2]]}
    again, other = Node(0), Node(2)
    restore(again, saved, {Node: {1: again, 2: other}})
    assert (again.id, again.next, again.others, again.by_key) == (1, other, [other, None, again], {7: other})
    with pytest.raises(KeyError):
        restore(again, saved, {Node: {1: again}})
