"""One part of a search: a deck in a world under a design, first exhaustively and then at random. A worker does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pmulab.check.accesses import Step
from pmulab.check.coverage import Coverage
from pmulab.check.exhaustive import Exhaustive
from pmulab.check.play import Found, Path, Play, Stock
from pmulab.check.shrink import Shrinker, Signature
from pmulab.check.walks import Walks
from pmulab.check.worlds import Deck, World
from pmulab.errors import SearchError
from services.errors import UserError
from services.kvm.errors import SimulationError
from services.result import Violation

_EXHAUSTIVE = 0.5  # of the time, where that is what bounds a search


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be searched, and how far."""

    design: str  # as a user writes it
    world: World
    deck: Deck
    depth: int  # of the exhaustive part
    interruptions: int  # on one path of that, at most
    walks: int
    seed: int
    seconds: float | None  # in which it has to be done, if that is said
    preemptions: int | None = None  # on one path of the exhaustive part, at most; None: as many as there are
    first: bool = False  # it ends with the first that is found


@dataclass(frozen=True, slots=True)
class Shortest:
    """The shortest path to a violation that was found on this one."""

    signature: Signature
    world: World
    deck: str
    steps: tuple[Step, ...]
    violation: Violation
    after: int  # actions, when it was found
    length: int  # of the path on which it was found
    runs: int  # in which that was made shorter
    fewest: bool = False  # nothing shorter of the same actions, in any order and number, leads to it


@dataclass(slots=True)
class Searched:
    """What has come of a job."""

    job: Job
    refused: str = ""  # why the design cannot be had there
    failed: str = ""  # why it could not be carried out
    cut: bool = False  # it was ended early
    found: list[Shortest] = field(default_factory=list)
    states: int = 0
    transitions: int = 0
    levels: tuple[int, ...] = ()  # new states at each depth
    depth: int = 0  # up to which all of them have been gone on from
    closed: bool = False  # there are no others
    walks: int = 0
    actions: int = 0
    seconds: float = 0.0  # wall time
    coverage: Coverage = field(default_factory=Coverage)


async def search(job: Job, stopped: Callable[[], bool] = lambda: False, known: Iterable[Signature] = ()) -> Searched:
    """Do it, or as much as there is until it is `stopped`. What is `known` already is not made short, nor kept."""
    began = time.perf_counter()
    searched = Searched(job)
    try:
        await _Search(searched, began, stopped, known).run()
    except UserError as error:
        searched.refused = error.problem
    except (SearchError, SimulationError) as error:
        searched.failed = f"{job.design}, deck {job.deck.name} in world {job.world.name}: {error}"
    searched.seconds = time.perf_counter() - began
    return searched


class _Search:
    """A job, while it is done."""

    def __init__(
        self, searched: Searched, began: float, stopped: Callable[[], bool], known: Iterable[Signature]
    ) -> None:
        self.searched = searched
        self.stopped = stopped
        self.job = searched.job
        self.began = began
        self.known = set(known)

    def _late(self, share: float = 1.0) -> bool:
        """Is that share of the time over, has it been stopped, or is what was looked for found?"""
        if self._enough:
            return True
        if self.stopped():
            self.searched.cut = True
            return True
        seconds = self.job.seconds
        return seconds is not None and time.perf_counter() > self.began + share * seconds

    @property
    def _enough(self) -> bool:
        return self.job.first and bool(self.searched.found)

    async def run(self) -> None:
        job, searched = self.job, self.searched
        if self._late():
            return
        stock = Stock.of(job.world, job.deck, job.design)
        play = Play(stock)
        await play.boot()
        shrinker = Shrinker(Play(stock), play.save())
        opening: Path = ()
        for moves in stock.opening:
            opening = (*opening, moves)
            if not await play.act(moves):
                raise SearchError(f"the deck's opening is not possible: {moves[-1].step}")
            await self._take((Found(opening, one) for one in play.found() if one.counts), shrinker)
            if self._enough:
                return
        root = play.save()
        if job.depth and not job.deck.every_register:  # hundreds of actions: that is walked through alone
            bounds = job.interruptions, job.preemptions
            await self._exhaustively(Exhaustive(stock, play, root, searched.coverage, *bounds), shrinker)
        walks = Walks(stock, play, root, f"{job.seed} {job.design}", searched.coverage)
        for number in range(job.walks):
            if self._late():
                break
            found = await walks.walk(number)
            searched.walks, searched.actions = walks.walks, walks.actions
            await self._take(found, shrinker)

    async def _exhaustively(self, states: Exhaustive, shrinker: Shrinker) -> None:
        searched = self.searched
        while states.depth < self.job.depth and not (states.closed or states.full or self._enough):
            last = states.depth + 1 == self.job.depth
            found = await states.next_level(lambda: self._late(_EXHAUSTIVE), last=last)
            searched.states, searched.transitions = states.states, states.transitions
            searched.levels, searched.depth, searched.closed = tuple(states.levels), states.depth, states.closed
            await self._take(found, shrinker)

    async def _take(self, found: Iterable[Found], shrinker: Shrinker) -> None:
        """The first of each signature, made as short as can be."""
        for one in found:
            if self._enough:
                break
            signature = Signature.of(one.violation)
            if signature not in self.known:
                self.known.add(signature)
                await self._shorten(one.path, signature, shrinker)

    async def _shorten(self, path: Path, signature: Signature, shrinker: Shrinker) -> None:
        job, before = self.job, shrinker.runs
        shrunk = await shrinker.shortest(path, signature)
        again = [one for one in await shrinker.found_on(shrunk.path) if signature.is_of(one)]
        if not again:
            raise SearchError(f"{signature.invariant} {signature.kind} was found, and not again on the same path")
        steps = tuple(move.step for moves in shrunk.path for move in moves)
        after, runs = self.searched.transitions + self.searched.actions, shrinker.runs - before
        self.searched.found.append(
            Shortest(signature, job.world, job.deck.name, steps, again[0], after, len(path), runs, shrunk.fewest)
        )
