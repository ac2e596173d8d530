"""Whether the key is sound: two states with the same key must have the same futures, one action on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from random import Random

from pmulab.check.key import Key
from pmulab.check.overflows import Overflows
from pmulab.check.play import Move, Moves, Play
from pmulab.check.shrink import Signature
from services.kvm.errors import SimulationError
from services.state import Saved

Found = tuple[int, str, tuple[Signature, ...]]  # key, what became of the action, what the judge found


@dataclass(frozen=True, slots=True)
class Difference:
    """One action leads two states with the same key apart."""

    action: str
    field: str  # of the key; or "possible" and "found"
    first: object
    second: object

    def __str__(self) -> str:
        return f"{self.action}: {self.field} is {self.first} and {self.second}"


Pair = tuple[Saved, Saved]
_AMID = 12  # operations of KVM's, before one of which something comes amid an action


def actions_of(play: Play, chance: Random) -> list[Moves]:
    """What a deck has happen: each action, and where something may come amid it, one of that before an operation."""
    actions = play.stock.actions
    found: list[Moves] = [(move,) for move in actions]
    amid = [move for move in actions if move.may_come_amid] if play.stock.deck.amid else []
    return found + [(chance.choice(amid).at(chance.randrange(_AMID)), move) for move in actions if amid]


async def same_keys(
    play: Play, actions: Sequence[Moves], depth: int, most: int, wanted: int, chance: Random
) -> list[Pair]:
    """As many pairs of states with the same key as are `wanted`, or all that there are, up to that depth, by `most` new
    states of each level. The first of each pair was come to first."""
    key = Key(play)
    known, level = {key.of(): play.save()}, [play.save()]
    pairs, met = list[Pair](), 0
    for _ in range(depth):
        following: list[Saved] = []
        for saved in level:
            for moves in actions:
                play.restore(saved)
                if not await _goes_on(play, moves):
                    continue
                found, now = key.of(), play.save()
                if found in known:
                    met += 1
                    place = len(pairs) if len(pairs) < wanted else chance.randrange(met)
                    if place < wanted:
                        pairs[place : place + 1] = [(known[found], now)]
                else:
                    known[found] = now
                    following.append(now)
        level = chance.sample(following, min(most, len(following)))
    return pairs


async def _goes_on(play: Play, moves: Moves) -> bool:
    """To a state that is data, and nothing is found on the way: behind a violation the judge goes by what was found."""
    try:
        possible = await play.act(moves)
    except SimulationError:
        return False
    return possible and not (play.over or play.simulation.entered) and not any(one.counts for one in play.found())


class Audit:
    """Of the states of one play."""

    def __init__(self, play: Play, actions: Sequence[Moves]) -> None:
        self.play = play
        self.key = Key(play)
        self.overflows = Overflows(play)
        self.actions = actions
        self.pairs = 0

    async def differences(self, first: Saved, second: Saved) -> list[Difference]:
        """By which actions two states, which have the same key, come to have different ones."""
        self.pairs += 1
        found: list[Difference] = []
        for moves in self.actions:
            ends = [await self._end(saved, moves) for saved in (first, second)]
            if ends[0] != ends[1]:
                ends = self._new_to_both(ends, first, second)
            if ends[0] != ends[1]:
                found += [await self._difference(moves, first, second, ends)]
        if self.play.stock.deck.overflows:
            found += await self._apart_by_overflows(self.actions[self.pairs % len(self.actions)][-1], first, second)
        return found

    async def _apart_by_overflows(self, action: Move, *states: Saved) -> list[Difference]:
        """By the next overflow within one of the operations of an action: at the first of them, where that is so."""
        one, other = [[end async for end in self._overflowing(action, saved)] for saved in states]
        at = [place for place, (first, second) in enumerate(zip_longest(one, other)) if first != second]
        return [Difference(_text((action,)), f"overflow {at[0]}", one[at[0] :][:1], other[at[0] :][:1])] if at else []

    async def _overflowing(self, action: Move, saved: Saved) -> AsyncIterator[Found]:
        async def come_to() -> None:
            self.play.restore(saved)

        async for _ in self.overflows.each(action, come_to):
            yield self.key.of(), str(self.play.over), tuple(Signature.of(one) for one in self.play.found())

    def _new_to_both(self, ends: Sequence[Found], *states: Saved) -> list[Found]:
        """Without what is like a violation that one of the states had before: it is told once."""
        before: set[Signature] = set()
        for saved in states:
            self.play.restore(saved)
            before |= {_like(Signature.of(one)) for one in self.play.simulation.judging.found()["violations"]}
        return [(key, became, tuple(one for one in found if _like(one) not in before)) for key, became, found in ends]

    async def _end(self, saved: Saved, moves: Sequence[Move]) -> Found:
        self.play.restore(saved)
        try:
            became = str(await self.play.act(moves))
        except SimulationError as exc:
            return 0, f"{type(exc).__name__}", ()
        found = tuple(Signature.of(one) for one in self.play.found())
        return 0 if self.play.simulation.entered else self.key.of(), became, found

    async def _difference(
        self, moves: Sequence[Move], first: Saved, second: Saved, ends: Sequence[Found]
    ) -> Difference:
        action = _text(moves)
        (_, *one), (_, *other) = ends
        if one != other:
            return Difference(action, "possible, found", one, other)
        parts = []
        for saved in (first, second):
            await self._end(saved, moves)
            parts.append(self.key.parts())
        fields = [*differing(*parts)]
        name = fields[0] if len(fields) == 1 else f"{fields[0]} (and {len(fields) - 1} more)"
        return Difference(action, name, parts[0].get(fields[0]), parts[1].get(fields[0]))


def _text(moves: Sequence[Move]) -> str:
    return "; ".join(" ".join(map(str, move.step.values())) for move in moves)


def _like(found: Signature) -> Signature:
    return replace(found, sign=0)


def differing(first: dict[str, object], second: dict[str, object]) -> Iterator[str]:
    """The names of what two keys differ in."""
    for name in dict.fromkeys((*first, *second)):
        if first.get(name) != second.get(name):
            yield name
