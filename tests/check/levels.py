"""The states of a world, level by level, as a search comes to them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pmulab.check import worlds
from pmulab.check.key import Key
from pmulab.check.play import Move, Play, Stock
from services.kvm.errors import SimulationError
from services.state import Saved

POSTED = tuple(f"partitioned-v{number}" for number in range(1, 10))
DESIGNS = ("emulated", "gunyah", "mediated", "partitioned", "raw", *POSTED)


async def opened(deck: str, world: str = "", design: str = "partitioned") -> Play:
    """A deck's world behind its opening; its first one if none is named."""
    found = worlds.decks()[deck]
    play = Play(Stock.of(worlds.worlds()[world or found.worlds[0]], found, design))
    await play.boot()
    for moves in play.stock.opening:
        assert await play.act(moves)
    return play


def action(play: Play, *words: object) -> Move:
    """The action of a deck whose step has all of these."""
    (found,) = (move for move in play.stock.actions if {*words} <= {*map(_plain, move.step.values())})
    return found


def _plain(value: object) -> object:
    return value if isinstance(value, (str, int)) else None


async def act(play: Play, *actions: Move) -> None:
    """Carry out some, which are possible."""
    for one in actions:
        assert await play.act([one])


async def same_keys(play: Play, depth: int) -> AsyncIterator[tuple[Saved, Saved]]:
    """Pairs of states that have the same key, the first of each the one that was come to first."""
    key = Key(play)
    known, frontier = {key.of(): play.save()}, [play.save()]
    for _ in range(depth):
        level = []
        for saved in frontier:
            for move in play.stock.actions:
                play.restore(saved)
                if not await _goes_on(play, move):
                    continue
                found, now = key.of(), play.save()
                if found in known:
                    yield known[found], now
                else:
                    known[found] = now
                    level.append(now)
        frontier = level


async def _goes_on(play: Play, move: Move) -> bool:
    try:
        return await play.act([move]) and not play.over and not any(one.counts for one in play.found())
    except SimulationError:
        return False
