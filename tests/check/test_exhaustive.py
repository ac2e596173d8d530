"""Every state up to a depth: none twice, none missed, and what is found there is found by the fewest actions."""

from __future__ import annotations

import pytest

from pmulab.check import exhaustive
from pmulab.check.worlds import decks
from tests.check.searching import searched

REFERENCE = ("partitioned", "partitioned,reservation=static", "emulated")


@pytest.mark.parametrize("deck", ["swap", "overflow", "restore", "squeeze", "migrate", "vms"])
@pytest.mark.parametrize("design", REFERENCE)
def test_nothing_is_found_in_a_reference_design(design: str, deck: str) -> None:
    found = searched(design, deck, decks()[deck].worlds[0], depth=3, walks=0)
    assert (found.depth, found.found) == (3, [])
    assert found.states == 1 + sum(found.levels)


def test_states_are_few_beside_the_ways_to_them() -> None:
    """14 actions: 2,744 sequences of three."""
    found = searched("partitioned", "swap", "pair", depth=4, walks=0)
    assert len(found.levels) == 4
    assert all(more < 5 * fewer for fewer, more in zip(found.levels[2:], found.levels[3:], strict=False))
    assert found.transitions > found.states


def test_what_comes_amid_a_step_comes_before_each_of_its_operations() -> None:
    """A load of v5's first access, which is preemptible: B37 of the posted series."""
    found = searched("partitioned-v5", "away", "two-pcpus", depth=2, walks=0)
    alone = searched("partitioned-v5", "migrate", "two-pcpus", depth=2, walks=0)
    assert found.transitions > 3 * alone.transitions


@pytest.mark.parametrize(
    ("design", "deck", "world", "invariant", "most"),
    [
        ("partitioned-v8", "controls", "pair", "I7", 4),
        ("partitioned-v4", "host", "one", "I3", 6),
        ("partitioned-v8", "squeeze", "one", "I10", 4),
    ],
)
def test_the_first_path_to_a_defect_is_short(design: str, deck: str, world: str, invariant: str, most: int) -> None:
    found = searched(design, deck, world, depth=3, walks=0)
    lengths = [len(one.steps) for one in found.found if one.signature.invariant == invariant]
    assert lengths
    assert min(lengths) <= most


def test_fewer_preemptions_come_to_fewer_states() -> None:
    states = [
        searched("partitioned", "swap", "pair", depth=4, walks=0, preemptions=most).states
        for most in (0, 1, 2, 3, None)
    ]
    assert states == sorted(states)
    assert states[0] < states[1] < states[2]
    assert states[3] == states[4]  # the first of four steps finds nobody there to be preempted


@pytest.mark.parametrize(("most", "seen"), [(0, set()), (1, {("I1", "vcpu")})])
def test_what_a_vcpu_leaves_for_the_next_takes_one_preemption(most: int, seen: set[tuple[str, str]]) -> None:
    found = searched("partitioned-v8", "swap", "pair", depth=4, walks=0, preemptions=most).found
    assert {(one.signature.invariant, one.signature.other) for one in found if one.signature.other == "vcpu"} == seen


@pytest.mark.parametrize("deck", ["migrate", "away"])
def test_states_that_are_come_to_again_are_those_that_would_be_saved(
    deck: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = searched("partitioned", deck, "two-pcpus", depth=2, walks=0)
    monkeypatch.setattr(exhaustive, "SAVED", 2)
    again = searched("partitioned", deck, "two-pcpus", depth=2, walks=0)
    assert (again.levels, again.transitions) == (saved.levels, saved.transitions)
