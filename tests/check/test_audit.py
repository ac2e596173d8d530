"""Two states with the same key have the same futures; where they have not, it is told by which action and field."""

from __future__ import annotations

from random import Random

import pytest

from pmulab.check.audit import Audit
from tests.check.levels import act, action, opened, same_keys

PAIRS = 60


@pytest.mark.parametrize(
    ("deck", "world", "depth"),
    [
        ("swap", "pair", 4),
        ("swap", "pair-without-fgt", 4),
        ("overflow", "one", 3),
        ("squeeze", "one-without-fgt", 3),
        ("restore", "one", 3),
    ],
)
async def test_no_future_depends_on_what_is_not_in_the_key(deck: str, world: str, depth: int) -> None:
    play = await opened(deck, world)
    pairs = [pair async for pair in same_keys(play, depth)]
    audit = Audit(play, [[move] for move in play.stock.actions])
    for first, second in Random(1).sample(pairs, PAIRS):
        assert await audit.differences(first, second) == []
    assert audit.pairs == PAIRS


async def test_it_is_told_by_which_action_two_states_come_apart_and_in_what() -> None:
    play = await opened("overflow")
    first = play.save()
    await act(play, action(play, "PMINTENSET_EL1"))
    second = play.save()
    told = await Audit(play, [[action(play, "PMCNTENSET_EL0")]]).differences(first, second)
    (difference,) = told
    assert difference.action == "vm0/0 msr PMCNTENSET_EL0 1"
    assert difference.field.startswith("machine.cpus.registers.pminten[0]")
    assert (difference.first, difference.second) == (0, 1)
