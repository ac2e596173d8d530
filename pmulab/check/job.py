"""One part of a search: a deck in a world under a design, first exhaustively and then at random. A worker does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from pmulab.check.accesses import Step
from pmulab.check.coverage import Coverage
from pmulab.check.exhaustive import Exhaustive
from pmulab.check.fault import Fault
from pmulab.check.play import Found, Path, Play, Stock, steps_of
from pmulab.check.shrink import Shrinker, Signature
from pmulab.check.walks import Walks
from pmulab.check.worlds import Deck, World, decks
from pmulab.errors import SearchError
from services.errors import UserError
from services.result import Violation

Tell = Callable[[Callable[[], str]], None]  # how far it is, which is only put into words if somebody asks

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

    @property
    def place(self) -> str:
        return f"{self.deck.name} in {self.world.name}"


@dataclass(frozen=True, slots=True)
class Shortest:
    """The shortest path to a violation, or one that is still to be made short."""

    signature: Signature
    world: World
    deck: str
    steps: tuple[Step, ...]
    violation: Violation
    after: int  # actions, when it was found
    length: int  # of the path on which it was found
    runs: int  # in which that was made shorter
    fewest: bool = False  # no fewer of its steps lead to it, in any order and number (`pmulab.check.shorter`)
    path: Path = ()  # as it was found, where it has not been yet

    def __str__(self) -> str:
        return f"{self.signature.invariant} {self.signature.kind}, of {self.deck} in {self.world.name}"


@dataclass(slots=True)
class Searched:
    """What has come of a job."""

    job: Job
    refused: str = ""  # why the design cannot be had there
    failed: str = ""  # why it could not be carried out
    at: str = ""  # what it did when that happened
    traceback: str = ""  # of that, where the fault is ours
    cut: bool = False  # it was ended early
    late: bool = False  # there was no time left for it
    found: list[Shortest] = field(default_factory=list)
    states: int = 0
    transitions: int = 0
    levels: tuple[int, ...] = ()  # new states at each depth
    depth: int = 0  # up to which all of them have been gone on from
    closed: bool = False  # there are no others
    walks: int = 0
    actions: int = 0
    seconds: float = 0.0  # wall time
    exhaustive_seconds: float = 0.0  # of it, in which states were come to
    walk_seconds: float = 0.0  # likewise, walks gone
    coverage: Coverage = field(default_factory=Coverage)

    @property
    def anything(self) -> bool:
        """Was anything done?"""
        return self.transitions + self.actions > 0

    @property
    def problem(self) -> str:
        """Why it could not be carried out, and where."""
        where = f"{self.job.design}, deck {self.job.deck.name} in world {self.job.world.name}"
        return f"{where}{f', {self.at}' if self.at else ''}: {self.failed}"


def _untold(_what: Callable[[], str]) -> None:
    """Nobody waits for it."""


async def search(
    job: Job,
    stopped: Callable[[], bool] = lambda: False,
    known: Iterable[Signature] = (),
    tell: Tell = _untold,
    clock: Callable[[], float] = time.monotonic,
) -> Searched:
    """Do it, or as much as there is until it is `stopped`. What is `known` already is not made short, nor kept.

    With a bound on its time it only searches: what it finds is still to be made short (`shortened`).
    """
    searched = Searched(job)
    part = _Search(searched, stopped, known, tell, clock)
    try:
        await part.run()
    except UserError as error:
        searched.refused = error.problem
    except Exception as error:  # of the design's code, or ours: the other parts are searched all the same
        fault = Fault.of(error, job.design)
        searched.failed, searched.traceback, searched.at = fault.what, fault.traceback, part.doing
    searched.late = job.seconds is not None and not (
        searched.anything or searched.cut or searched.refused or searched.failed
    )
    searched.seconds = clock() - part.began
    return searched


async def shortened(design: str, one: Shortest) -> Shortest:
    """What was found, on its shortest path. Raises SearchError, SimulationError."""
    if not one.path:
        return one
    return await _shortest(one, await Shrinker.booted(Stock.of(one.world, decks()[one.deck], design)))


async def _shortest(one: Shortest, shrinker: Shrinker) -> Shortest:
    before = shrinker.runs
    best = await shrinker.reduced(one.path, one.signature)
    again = [found for found in await shrinker.found_on(best) if one.signature.is_of(found)]
    if not again:
        raise SearchError(f"{one.signature.invariant} {one.signature.kind} was found, and not again on the same path")
    return replace(one, steps=steps_of(best), violation=again[0], runs=shrinker.runs - before, path=())


class _Search:
    """A job, while it is done."""

    def __init__(
        self,
        searched: Searched,
        stopped: Callable[[], bool],
        known: Iterable[Signature],
        tell: Tell,
        clock: Callable[[], float],
    ) -> None:
        self.searched = searched
        self.stopped = stopped
        self.job = searched.job
        self.known = set(known)
        self.tell = tell
        self.clock = clock
        self.began = clock()
        self.play: Play | None = None  # that in which something happens
        self.states: Exhaustive | None = None  # while they are come to

    @property
    def doing(self) -> str:
        """In words."""
        if self.play is None:
            return "as the world is made"
        return f"at {_words(self.play.doing[-1].step)}" if self.play.doing else "as its pCPUs boot"

    def _so_far(self) -> str:
        if self.states is not None:
            return f"depth {self.states.depth + 1}, {self.states.transitions:,} transitions"
        return f"{self.searched.walks:,} walks, {self.searched.actions:,} actions"

    def _late(self, share: float = 1.0) -> bool:
        """Is that share of the time over, has it been stopped, or is what was looked for found?"""
        self.tell(self._so_far)
        if self._enough:
            return True
        if self.stopped():
            self.searched.cut = True
            return True
        seconds = self.job.seconds
        return seconds is not None and self.clock() >= self.began + share * seconds

    @property
    def _enough(self) -> bool:
        return self.job.first and bool(self.searched.found)

    async def run(self) -> None:
        job, searched = self.job, self.searched
        if self._late():
            return
        stock = Stock.of(job.world, job.deck, job.design)
        self.play = play = Play(stock)
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
            began = self.clock()
            found = await walks.walk(number)
            searched.walk_seconds += self.clock() - began
            searched.walks, searched.actions = walks.walks, walks.actions
            await self._take(found, shrinker)

    async def _exhaustively(self, states: Exhaustive, shrinker: Shrinker) -> None:
        searched = self.searched
        while states.depth < self.job.depth and not (states.closed or states.full or self._enough):
            last = states.depth + 1 == self.job.depth
            began, self.states = self.clock(), states
            found = await states.next_level(lambda: self._late(_EXHAUSTIVE), last=last)
            self.states = None
            searched.exhaustive_seconds += self.clock() - began
            searched.states, searched.transitions = states.states, states.transitions
            searched.levels, searched.depth, searched.closed = tuple(states.levels), states.depth, states.closed
            await self._take(found, shrinker)

    async def _take(self, found: Iterable[Found], shrinker: Shrinker) -> None:
        """The first of each signature, made as short as can be where nothing presses."""
        for one in found:
            if self._enough:
                break
            signature = Signature.of(one.violation)
            if signature in self.known:
                continue
            self.known.add(signature)
            job, after = self.job, self.searched.transitions + self.searched.actions
            steps, length = steps_of(one.path), len(one.path)
            kept = Shortest(
                signature, job.world, job.deck.name, steps, one.violation, after, length, runs=0, path=one.path
            )
            if job.seconds is None:
                before, self.play = self.play, shrinker.play
                kept = await _shortest(kept, shrinker)
                self.play = before
            self.searched.found.append(kept)


def _words(step: Step) -> str:
    rest = (f" {key}={value}" for key, value in step.items() if key not in ("party", "action"))
    return f"{step['party']} {step['action']}{''.join(rest)}"
