"""A deck's world, and its actions by what is in them."""

from __future__ import annotations

from pmulab.check import worlds
from pmulab.check.play import Move, Play, Stock

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
