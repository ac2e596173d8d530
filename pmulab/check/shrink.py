"""The shortest way to a violation: what of a path is not needed for it is left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pmulab.check.fewest import Fewest, actions_of, fewest
from pmulab.check.play import Move, Moves, Path, Play, Stock
from services.kvm.errors import SimulationError
from services.result import Violation
from services.state import Saved

_WINDOWS = (5, 4, 3, 2, 1)  # how many neighbours are left out at once


@dataclass(frozen=True, slots=True)
class Signature:
    """By what two violations are the same one."""

    invariant: str
    kind: str
    register: str  # without its number
    victim: str  # whose role, not which: "vcpu" or "host"
    other: str  # likewise, and "itself" if it is the victim
    sign: int  # of what is more or less than it should be

    @classmethod
    def of(cls, found: Violation) -> Signature:
        other = "itself" if found.other == found.victim else _role(found.other)
        sign = (found.actual > found.expected) - (found.actual < found.expected)
        return cls(found.invariant, found.kind, _unnumbered(found.register), _role(found.victim), other, sign)

    def is_of(self, found: Violation) -> bool:
        return Signature.of(found) == self


def _role(party: str) -> str:
    return "vcpu" if "/" in party else party


def _unnumbered(register: str | None) -> str:
    if register is None:
        return ""
    name, _, suffix = register.partition("_")
    stem = name.rstrip("0123456789")
    return register if stem == name else f"{stem}<n>_{suffix}"


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A path that has been made shorter."""

    path: Path
    fewest: bool  # no fewer of its actions lead to it, in any order and number: all sequences were looked at


class Shrinker:
    """Of what is found in one world."""

    def __init__(self, play: Play, root: Saved) -> None:
        """`root` is the world once its CPUs have booted."""
        self.play = play
        self.root = root
        self.runs = 0
        self._known: dict[tuple[str, Signature], bool] = {}

    @classmethod
    async def booted(cls, stock: Stock) -> Shrinker:
        """In a world of its own. Raises UserError, SimulationError."""
        play = Play(stock)
        await play.boot()
        return cls(play, play.save())

    async def shortest(self, path: Path, signature: Signature) -> Shrunk:
        """Of the actions of a path that is `reduced`, the fewest that lead to it."""
        best = path
        while True:
            fewer = await self._fewest(best, signature)
            if fewer.path is None:
                return Shrunk(best, fewer.all)
            best = await self.reduced(fewer.path, signature)

    async def _fewest(self, path: Path, signature: Signature) -> Fewest:
        """In any order and number."""
        self.runs += 1
        return await fewest(self.play, self.root, actions_of(path), signature.is_of, len(path) - 1)

    async def reduced(self, path: Path, signature: Signature) -> Path:
        """A path of which no part can be left out."""
        best = path
        while True:
            before = best
            for shorter in (self._windows, self._pairs, self._alone, self._simpler, self._earlier):
                found: Path | None = best
                while found is not None:
                    best = found
                    found = await self._first(shorter(best), signature)
            if best == before:
                return best

    async def _first(self, candidates: Iterator[Path], signature: Signature) -> Path | None:
        for one in candidates:
            if await self.finds(one, signature):
                return one
        return None

    async def finds(self, path: Path, signature: Signature) -> bool:
        """Is it found by the last move of `path`, and each of its moves possible?"""
        key = (text(path), signature)
        if key not in self._known:
            self.runs += 1
            self._known[key] = signature in {Signature.of(one) for one in await self.found_on(path)}
        return self._known[key]

    async def found_on(self, path: Path) -> list[Violation]:
        """What counts, at the last move; nothing if a move is not possible."""
        play = self.play
        play.restore(self.root)
        found: list[Violation] = []
        try:
            for moves in path:
                found = []
                if play.over or not await play.act(moves):
                    return []
                found = [one for one in play.found() if one.counts]
        except SimulationError:
            return []
        return found

    # What may be left out, or be simpler.

    def _windows(self, path: Path) -> Iterator[Path]:
        """Neighbours, from the back, but for the last one."""
        for width in _WINDOWS:
            for first in range(len(path) - 1 - width, -1, -1):
                yield path[:first] + path[first + width :]

    def _pairs(self, path: Path) -> Iterator[Path]:
        """Two that are no neighbours: what is enabled and disabled, say."""
        last = len(path) - 1
        for second in range(last - 1, 0, -1):
            for first in range(second - 1, -1, -1):
                yield path[:first] + path[first + 1 : second] + path[second + 1 :]

    def _alone(self, path: Path) -> Iterator[Path]:
        """Without what comes amid a step."""
        for place, moves in enumerate(path):
            for which in range(len(moves) - 1):
                yield (*path[:place], moves[:which] + moves[which + 1 :], *path[place + 1 :])

    def _earlier(self, path: Path) -> Iterator[Path]:
        """What comes amid a step, at an earlier operation."""
        for place, moves in enumerate(path):
            for which, move in enumerate(moves[:-1]):
                for at in range(move.spec.at):
                    yield (*path[:place], (*moves[:which], move.at(at), *moves[which + 1 :]), *path[place + 1 :])

    def _simpler(self, path: Path) -> Iterator[Path]:
        """With simpler values and times."""
        for place, moves in enumerate(path):
            for move in _simpler(moves[-1]):
                yield (*path[:place], (*moves[:-1], move), *path[place + 1 :])


def _simpler(move: Move) -> Iterator[Move]:
    step, spec = move.step, move.spec
    if "value" in step:
        fewer = [spec.value & ~(1 << bit) for bit in reversed(range(64)) if spec.value >> bit & 1]
        for value in dict.fromkeys((0, 1, *fewer)):
            if value < spec.value:
                yield Move({**step, "value": value}, replace(spec, value=value))
    if "cycles" in step:
        for cycles in (1, 10, 100, 1_000, 10_000):
            if cycles < spec.cycles:
                yield Move({**step, "cycles": cycles}, replace(spec, cycles=cycles))


def text(path: Sequence[Moves]) -> str:
    """A path as text, by which paths are told apart."""
    return "\n".join(repr([*move.step.items()]) for moves in path for move in moves)
