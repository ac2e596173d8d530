"""Every state of a world that a deck's actions lead to, level by level, up to a depth.

A state that has been met before, by its key, is not gone on from. What comes amid a step comes before each operation
that KVM has there, and the next overflow within each, on as many steps of a path as the bound on interruptions allows.
States are kept as they are saved; one in which a vCPU is preempted amid a handler is no data, and is come to again from
the last one that is. So are those of a large level, which would not fit into memory.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from pmulab.check.coverage import Coverage
from pmulab.check.key import Key
from pmulab.check.overflows import Overflows
from pmulab.check.play import Found, Move, Moves, Path, Play, Stock
from pmulab.check.shrink import text
from services.state import Saved

SAVED = 20_000  # states of a level, of some 40 KB each: further ones are come to again from that before them
MOST = 1_000_000  # states of a level: more are not gone on from
PREEMPTING = ("preempt", "switch", "migrate")
FAR = 1 << 20  # an operation that no step has


_Key = int | tuple[int, str]  # of a state that is no data, that of the one that it is come to from, and by what


@dataclass(frozen=True, slots=True)
class _State:
    """One of a level."""

    kept: Saved  # a state that it is come to from
    key: int  # of that
    since: Path  # by these
    path: Path  # all of them, without the opening
    left: Left


@dataclass(frozen=True, slots=True)
class Left:
    """What may still come on a path."""

    interruptions: int
    preemptions: int

    def without(self, interruptions: int, preemptions: int) -> Left | None:
        """None if that is one too many."""
        left = Left(self.interruptions - interruptions, self.preemptions - preemptions)
        return None if left.interruptions < 0 or left.preemptions < 0 else left

    def covers(self, other: Left) -> bool:
        return self.interruptions >= other.interruptions and self.preemptions >= other.preemptions


@dataclass(slots=True)
class Exhaustive:
    """The states of one world and deck under one design."""

    stock: Stock
    play: Play
    root: Saved
    coverage: Coverage
    interruptions: int  # on one path, at most
    preemptions: int | None = None  # likewise; None: as many as there are
    depth: int = 0  # up to which it is complete
    closed: bool = False  # there are no further states
    full: bool = False  # there are more states than are gone on from, or it has become too late
    states: int = 1
    transitions: int = 0
    levels: list[int] = field(default_factory=list)  # new states of each
    _seen: dict[_Key, tuple[Left, ...]] = field(
        default_factory=dict
    )  # with what was left, none of which covers another
    _level: list[_State] = field(default_factory=list)

    _late: Callable[[], bool] = lambda: False
    _last: bool = False
    _new: int = 0  # states of the level that is come to
    _further: bool = False  # there are new ones, or some from which more may come than when they were met before
    _key: Key = field(init=False)
    overflows: Overflows = field(init=False)

    def __post_init__(self) -> None:
        self.play.restore(self.root)
        deck = self.stock.deck
        interruptions = self.interruptions if deck.amid or deck.overflows else 0
        left = Left(interruptions, FAR if self.preemptions is None else self.preemptions)
        self._key, self.overflows = Key(self.play), Overflows(self.play)
        key = self._key.of()
        self._seen[key] = (left,)
        self._level.append(_State(self.root, key, (), (), left))

    async def next_level(self, late: Callable[[], bool], *, last: bool) -> list[Found]:
        """Go one step further from each state, unless it becomes too late; what counts of what is found. States of the
        `last` level are counted, and not kept. Raises SimulationError."""
        level, self._level = self._level, []
        self._late = late
        self._last, self._new, self._further = last, 0, False
        found: list[Found] = []
        for state in level:
            found += await self._from(state)
            if self.full:
                break
        self.coverage.used(self.play)
        self.levels.append(self._new)
        self.states += self._new
        self.depth += not self.full
        self.closed = not (self._further or self.full)
        if len(self._level) > MOST:
            self.full = True
        return found

    async def _from(self, state: _State) -> list[Found]:
        """From one state, by each action that is possible there."""
        found: list[Found] = []
        there = False
        for action in self.stock.actions:
            if self._too_late():
                break
            if not there:
                await self._come_to(state)
                there = True
            preemptions = self._preemptions(action)
            left = state.left.without(0, preemptions)
            if left is None or not await self.play.act((action,)):
                continue
            there = False
            found += self._arrived(state, (action,), left)
            if left.interruptions and self.stock.deck.overflows:
                found += await self._overflowing(state, action, Left(left.interruptions - 1, left.preemptions))
            if left.interruptions and self.stock.deck.amid:
                for moves in await self._amid(state, action):
                    interrupted = left.without(1, moves[0].spec.action in PREEMPTING)
                    if interrupted is None:
                        continue
                    if self._too_late():
                        break
                    await self._come_to(state)
                    if await self.play.act(moves):
                        found += self._arrived(state, moves, interrupted)
        return found

    def _preemptions(self, action: Move) -> int:
        """Of a vCPU that would have gone on where it is: one, or none."""
        if action.spec.action not in PREEMPTING:
            return 0
        vcpu = self.play.script.vcpus[action.spec.target]
        current = self.play.script.current(vcpu.here)
        return int(current is not None and (current is vcpu) == (action.spec.action != "switch"))

    def _too_late(self) -> bool:
        """Then the level is not complete, and none is gone on from it."""
        self.full = self.full or self._late()
        return self.full

    async def _come_to(self, state: _State) -> None:
        self.play.restore(state.kept)
        for moves in state.since:
            await self.play.act(moves)
        self.play.pass_over()  # it was found when it was come to first

    async def _amid(self, state: _State, action: Move) -> list[Moves]:
        """The action with whatever may come amid it, before each of its operations."""
        found: list[Moves] = []
        for move in self.stock.actions:
            if move.may_come_amid:
                await self._come_to(state)
                if await self.play.act((move.at(FAR), action)):
                    operations = int(self.play.given[0].get("operations", 0)) if self.play.given else 0
                    found += [(move.at(operation), action) for operation in range(operations)]
        return found

    async def _overflowing(self, state: _State, action: Move, left: Left) -> list[Found]:
        """The action with the next overflow within each operation of it."""
        found: list[Found] = []
        async with aclosing(self.overflows.each(action, lambda: self._come_to(state))) as every:
            async for passes in every:
                found += self._arrived(state, (action,), left, ((passes,),))
                if self._too_late():
                    break
        return found

    def _arrived(self, state: _State, moves: Moves, left: Left, before: Path = ()) -> list[Found]:
        """Keep the state that this has led to, if it is a new one; what counts of what was found on the way."""
        self.transitions += 1
        play = self.play
        path = (*state.path, *before, moves)
        self.coverage.meet(play)
        self.coverage.new(play, moves)
        found = [Found((*self.stock.opening, *path), one) for one in play.found() if one.counts]
        if play.over:
            return found
        since = (*state.since, *before, moves)
        if play.simulation.entered:
            if self._is_new((state.key, text(since)), left) and not self._last:
                self._level.append(_State(state.kept, state.key, since, path, left))
            return found
        key = self._key.of()
        if self._is_new(key, left) and not self._last:
            kept = (play.save(), key, ()) if len(self._level) < SAVED else (state.kept, state.key, since)
            self._level.append(_State(*kept, path, left))
        return found

    def _is_new(self, key: _Key, left: Left) -> bool:
        """Has it not been met before, with as much left?"""
        known = self._seen.get(key, ())
        if any(one.covers(left) for one in known):
            return False
        self._seen[key] = (left, *(one for one in known if not left.covers(one)))
        self._new += not known
        self._further = True
        return True
