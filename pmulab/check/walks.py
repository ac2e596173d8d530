"""Random walks through a world: long ones, beyond the depth to which it is searched exhaustively.

What happens in a walk follows from its seed alone. Which actions a walk takes, and how often each, is drawn anew for
each: a defect that needs four of them survives in most walks that leave one out, and one that another action hides
survives in those that leave out none. A walk that has come to something new is kept up to there, and others go on from
it.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from pmulab.check.coverage import Coverage
from pmulab.check.overflows import Overflows
from pmulab.check.play import Found, Move, Moves, Path, Play, Stock
from pmulab.errors import SearchError
from services.state import Saved

LENGTH = 40  # actions, at most
TWICE = 16  # every so many walks, one is run twice
OPERATIONS = 48  # of KVM's, before one of which something comes amid a step
_TRIES = 10  # for each action: most that are drawn are not possible where few vCPUs run
_KEPT = 64  # walks that others go on from
_SHARES = (1.0, 1.0, 0.75, 0.5)  # of the actions, in one walk
_WEIGHTS = (1, 1, 2, 4, 8)
_RARE = 30


@dataclass(frozen=True, slots=True)
class Start:
    """Where a walk may begin."""

    path: Path  # without the opening
    kept: Saved | None  # the world there, where that is data

    @classmethod
    def at(cls, path: Path, play: Play) -> Start:
        return cls(path, None if play.over or play.simulation.entered else play.save())


@dataclass(slots=True)
class Walks:
    """Those of one world and deck under one design."""

    stock: Stock
    play: Play
    root: Saved  # the world behind the deck's opening
    seed: str
    coverage: Coverage
    actions: int = 0  # that were possible
    tried: int = 0
    walks: int = 0
    corpus: list[Start] = field(default_factory=list)
    overflows: Overflows = field(init=False)

    def __post_init__(self) -> None:
        self.overflows = Overflows(self.play)

    async def walk(self, number: int) -> list[Found]:
        """The walk of that number; what counts of what it finds. Raises SimulationError, SearchError."""
        found, path = await self._walk(number)
        if number % TWICE == 0 and not self.play.simulation.entered:
            before = self.play.save()
            if await self._again(path) != before:
                raise SearchError(f"walk {number} came to another state when it was run again: it is not deterministic")
        return found

    async def _walk(self, number: int) -> tuple[list[Found], Path]:
        rng = random.Random(f"{self.seed} {self.stock.deck.name} {self.stock.world.name} {number}")
        draws = _Draws(rng, self.stock)
        play = self.play
        path = list(await self._begin(rng))
        play.pass_over()  # it was found by the walk that this one goes on from
        found: list[Found] = []
        end, over = len(path) + LENGTH, play.over
        for _ in range(_TRIES * LENGTH):
            if len(path) >= end or over:
                break
            self.tried += 1
            for moves in await self._next(draws):
                if over or not await play.act(moves):
                    break
                over = play.over
                self.actions += 1
                path.append(moves)
                if self.coverage.new(play, moves) and len(self.corpus) < _KEPT:
                    self.corpus.append(Start.at(tuple(path), play))
                found += (Found((*self.stock.opening, *path), one) for one in play.found() if one.counts)
        self.walks += 1
        self.coverage.meet(play)
        self.coverage.used(play)
        return found, tuple(path)

    async def _next(self, draws: _Draws) -> Path:
        """An action, and before it what passes for the next overflow to come within one of its operations."""
        play, moves = self.play, draws.next()
        if not draws.overflow() or play.simulation.entered or play.script.of_vcpus.ruled_out(moves[-1].spec):
            return (moves,)
        self.coverage.meet(play)
        here = play.save()

        async def come_to() -> None:
            play.restore(here)

        way = await self.overflows.way(moves[-1], come_to)
        play.restore(here)
        points = [point for point in way.points if point < way.ahead] if way else []
        return ((way.passes(draws.rng.choice(points)),), moves) if way and points else (moves,)

    async def _begin(self, rng: random.Random) -> Path:
        """At the root, or where an earlier walk has come to; how."""
        play = self.play
        if not self.corpus or rng.random() >= 0.5:
            play.restore(self.root)
            return ()
        start = rng.choice(self.corpus)
        play.restore(start.kept or self.root)
        if start.kept is None:
            for moves in start.path:
                await play.act(moves)
        return start.path

    async def _again(self, path: Path) -> Saved:
        self.play.restore(self.root)
        for moves in path:
            await self.play.act(moves)
        self.play.pass_over()
        return self.play.save()


class _Draws:
    """What a walk does next."""

    def __init__(self, rng: random.Random, stock: Stock) -> None:
        self.rng = rng
        share = rng.choice(_SHARES)
        self.actions = [move for move in stock.actions if rng.random() < share] or list(stock.actions)
        rare = _RARE if stock.deck.every_register else 1  # what is no access, among hundreds of them
        self.weights = list(
            accumulate(rng.choice(_WEIGHTS) * (1 if "register" in move.step else rare) for move in self.actions)
        )
        self.amid: Sequence[Move] = [move for move in self.actions if move.may_come_amid] if stock.deck.amid else ()
        self.often = rng.choice((0.1, 0.3, 0.5))
        self.overflowing = stock.deck.overflows

    def next(self) -> Moves:
        rng = self.rng
        move = self.actions[bisect(self.weights, rng.random() * self.weights[-1])]
        if self.amid and rng.random() < self.often:
            return (rng.choice(self.amid).at(rng.randrange(OPERATIONS)), move)
        return (move,)

    def overflow(self) -> bool:
        """Is the next overflow to come within what the action has KVM do?"""
        return self.overflowing and self.rng.random() < self.often
