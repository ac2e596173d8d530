"""Two states with the same key have the same futures; where they have not, it is told by which action and field."""

from __future__ import annotations

from random import Random

import pytest

from pmulab.check.audit import Audit, actions_of, same_keys
from pmulab.check.worlds import decks
from tests.check.levels import act, action, opened

PAIRS = 40
DECKS = [name for name, deck in decks().items() if not deck.every_register]


@pytest.mark.parametrize("design", ["partitioned", "emulated"])
@pytest.mark.parametrize("deck", DECKS)
async def test_no_future_depends_on_what_is_not_in_the_key(deck: str, design: str) -> None:
    play = await opened(deck, design=design)
    chance = Random(f"{deck} {design}")
    actions = actions_of(play, chance)
    audit = Audit(play, actions)
    for first, second in await same_keys(play, actions, 4, PAIRS, PAIRS, chance):
        assert await audit.differences(first, second) == []
    assert audit.pairs == PAIRS


async def test_it_is_told_by_which_action_two_states_come_apart_and_in_what() -> None:
    play = await opened("overflow")
    first = play.save()
    await act(play, action(play, "PMINTENSET_EL1"))
    second = play.save()
    told = await Audit(play, [(action(play, "PMCNTENSET_EL0"),)]).differences(first, second)
    (difference,) = told
    assert difference.action == "vm0/0 msr PMCNTENSET_EL0 1"
    assert difference.field.startswith("machine.cpus.registers.pminten[0]")
    assert (difference.first, difference.second) == (0, 1)
