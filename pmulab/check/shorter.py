"""A finding's steps and world made as few as can be, once, when all parts of the search are done: it costs what a few
hundred shorter candidates do."""

from __future__ import annotations

from dataclasses import replace

from pmulab.check.accesses import Step
from pmulab.check.job import Shortest
from pmulab.check.play import Moves, Path, Stock, steps_of
from pmulab.check.shrink import Shrinker
from pmulab.check.worlds import Deck


async def shorter(design: str, shortest: Shortest) -> Shortest:
    """The fewest of its steps that lead to it. Raises UserError, SimulationError."""
    stock = Stock.of(shortest.world, _deck(shortest), design)
    shrinker = await Shrinker.booted(stock)
    path, signature = _path(stock, shortest.steps), shortest.signature
    if not await shrinker.finds(path, signature):
        return shortest  # a replay of its scenario says so
    shrunk = await shrinker.shortest(path, signature)
    (*_, violation) = (one for one in await shrinker.found_on(shrunk.path) if signature.is_of(one))
    steps, runs = steps_of(shrunk.path), shortest.runs + shrinker.runs
    return replace(shortest, steps=steps, violation=violation, runs=runs, fewest=shrunk.fewest)


def _deck(shortest: Shortest) -> Deck:
    """Its steps, which have other values than the deck's."""
    actions = tuple(_alone(step) for step in shortest.steps)
    return Deck(shortest.deck, "", (), (), (), actions, amid=False, overflows=False, every_register=False)


def _alone(step: Step) -> Step:
    return {key: value for key, value in step.items() if key != "at"}


def _path(stock: Stock, steps: tuple[Step, ...]) -> Path:
    """Of steps, of which those that come amid another stand before that."""
    path: list[Moves] = []
    amid: Moves = ()
    for step, move in zip(steps, stock.actions, strict=True):
        if "at" in step:
            amid = (*amid, move.at(step["at"]))
        else:
            path.append((*amid, move))
            amid = ()
    return tuple(path)
