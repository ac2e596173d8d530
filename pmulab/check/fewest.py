"""The fewest of some actions that lead to a violation: all sequences of them, the short ones first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pmulab.check.key import Key
from pmulab.check.play import Moves, Path, Play
from services.kvm.errors import SimulationError
from services.result import Violation
from services.state import Saved

MOST = 2_000  # actions that are carried out for it, one or two seconds


@dataclass(frozen=True, slots=True)
class Fewest:
    """What has come of it."""

    path: Path | None  # None: none of fewer actions leads to it, as far as was looked
    all: bool  # all were looked at
    runs: int  # actions that were carried out


@dataclass(frozen=True, slots=True)
class _State:
    kept: Saved  # a state that it is come to from
    since: Path  # by these
    path: Path  # all of them
    found: frozenset[object]  # on the way: the judge tells the first of the like alone


def actions_of(path: Path) -> tuple[Moves, ...]:
    """Those of a path, and each without what comes amid it."""
    every = (one for moves in path for one in (moves, moves[-1:]))
    return tuple({repr([move.step for move in moves]): moves for moves in every}.values())


async def fewest(
    play: Play, root: Saved, actions: Sequence[Moves], wanted: Callable[[Violation], bool], length: int
) -> Fewest:
    """The shortest sequence of these actions, of `length` at most, at the end of which what is `wanted` is found and
    counts. States with one key are gone on from once, as in the exhaustive part of a search."""
    return await _Sequences(play, root, actions, wanted).to(length)


class _Sequences:
    """All of these actions, level by level."""

    def __init__(self, play: Play, root: Saved, actions: Sequence[Moves], wanted: Callable[[Violation], bool]) -> None:
        self.play = play
        self.actions = actions
        self.wanted = wanted
        self.runs = 0
        self.key = Key(play)
        self.seen: set[tuple[int, frozenset[object]]] = set()
        self.states: list[_State] = [_State(root, (), (), frozenset())]

    async def to(self, length: int) -> Fewest:
        for depth in range(1, length + 1):
            states, self.states = self.states, []
            for state in states:
                if self.runs > MOST:
                    return Fewest(None, all=False, runs=self.runs)
                found = await self._from(state, last=depth == length)
                if found is not None:
                    return Fewest(found, all=True, runs=self.runs)
        return Fewest(None, all=True, runs=self.runs)

    async def _from(self, state: _State, *, last: bool) -> Path | None:
        there = False
        for moves in self.actions:
            if not there:
                await self._come_to(state)
            try:
                there = not await self.play.act(moves)
            except SimulationError:
                there = False
                continue
            if there:
                continue
            self.runs += 1
            found = [*self.play.found()]
            path = (*state.path, moves)
            if any(one.counts and self.wanted(one) for one in found):
                return path
            if not last and not self.play.over:
                self._keep(state, moves, path, state.found.union(map(_like, found)))
        return None

    async def _come_to(self, state: _State) -> None:
        self.play.restore(state.kept)
        for moves in state.since:
            await self.play.act(moves)
        self.runs += len(state.since)
        self.play.pass_over()

    def _keep(self, state: _State, moves: Moves, path: Path, found: frozenset[object]) -> None:
        """If it is a new one. One in which a vCPU is preempted amid a handler is no data, and is always."""
        if self.play.simulation.entered:
            self.states.append(_State(state.kept, (*state.since, moves), path, found))
            return
        key = (self.key.of(), found)
        if key not in self.seen:
            self.seen.add(key)
            self.states.append(_State(self.play.save(), (), path, found))


def _like(one: Violation) -> object:
    return one.invariant, one.kind, one.victim, one.other, one.register
