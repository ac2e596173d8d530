"""The search for what kills a mutant: walks through every deck in every world, in an order that the seed draws, until a
violation counts."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import FrameType
from typing import Any

import trio

from pmulab.check.accesses import Step
from pmulab.check.coverage import Coverage
from pmulab.check.finding import run_of
from pmulab.check.play import Found, Play, Stock, steps_of
from pmulab.check.shrink import Shrinker, Signature
from pmulab.check.walks import Walks
from pmulab.check.worlds import decks, scenario_text, worlds
from pmulab.errors import SearchError
from services.errors import UserError
from services.kvm.errors import SimulationError
from services.state import Saved

PLACES = tuple((deck.name, world) for deck in decks().values() for world in deck.worlds)
WALKS = 2  # in one place, before the next one's turn
ENDLESS = 5.0  # seconds of CPU time that a walk takes in a loop without an end
FAULT = "fault"  # what kills a mutant that no simulation survives


class Endless(BaseException):
    """A walk has no end."""


@dataclass(frozen=True, slots=True)
class Kill:
    """By what a mutant is killed, and after how much."""

    by: tuple[str, ...]  # invariants, or FAULT
    deck: str
    world: str
    actions: int
    seconds: float
    steps: tuple[Step, ...] = ()  # of the counterexample, where it has been made short
    error: str = ""  # of a fault


@dataclass
class _Place:
    """A deck in a world, ready for walks."""

    stock: Stock
    play: Play
    start: Saved  # behind the boot
    root: Saved  # behind the deck's opening
    walks: dict[int, Walks] = field(default_factory=dict)  # by seed


class Hunt:
    """For one design, whose code may be a mutant's."""

    def __init__(self, design: str) -> None:
        self.design = design
        self._places: dict[tuple[str, str], _Place | None] = {}

    def kill(self, seed: int, rounds: int, shorten: bool, places: Sequence[tuple[str, str]] = PLACES) -> Kill | None:
        """None: it survives as many rounds through all places."""
        began, actions = time.perf_counter(), 0
        order = list(places)
        random.Random(f"{seed} order").shuffle(order)
        for turn in range(rounds):
            for name in order:
                found, taken, error = self._walks(name, seed, range(turn * WALKS, (turn + 1) * WALKS))
                actions += taken
                if error:
                    return Kill((FAULT,), *name, actions, time.perf_counter() - began, error=error)
                if found:
                    by = tuple(dict.fromkeys(one.violation.invariant for one in found))
                    seconds = time.perf_counter() - began
                    steps = self._shortened(name, found[0]) if shorten else ()
                    return Kill(by, *name, actions, seconds, steps)
        return None

    def killers(self, name: tuple[str, str], seed: int, walks: int) -> set[str]:
        """Every invariant that is broken in some walks through one place."""
        by: set[str] = set()
        for number in range(walks):
            found, _, error = self._walks(name, seed, range(number, number + 1))
            by |= {one.violation.invariant for one in found} | ({FAULT} if error else set())
        return by

    def _walks(self, name: tuple[str, str], seed: int, numbers: range) -> tuple[list[Found], int, str]:
        """What counts of what the first walk finds that finds something; actions; and what is at fault else."""
        walks: Walks | None = None
        before = 0
        try:
            with bounded():
                place = self._place(name)
                if place is None:
                    return [], 0, ""
                walks = place.walks.get(seed)
                if walks is None:
                    walks = place.walks[seed] = Walks(
                        place.stock, place.play, place.root, f"{seed} {self.design}", Coverage()
                    )
                before = walks.actions
                for number in numbers:
                    found, _ = trio.run(walks._walk, number)
                    if found:
                        return found, walks.actions - before, ""
        except Endless:
            return [], 0 if walks is None else walks.actions - before, "it has no end"
        except (UserError, SearchError):
            return [], 0, ""
        except (SimulationError, Exception) as error:
            return [], 0 if walks is None else walks.actions - before, f"{type(error).__name__}: {error}"[:120]
        return [], walks.actions - before, ""

    def _place(self, name: tuple[str, str]) -> _Place | None:
        """None where the design cannot be had."""
        if name not in self._places:
            try:
                self._places[name] = trio.run(_opened, name, self.design)
            except UserError:
                self._places[name] = None
        return self._places[name]

    def _shortened(self, name: tuple[str, str], found: Found) -> tuple[Step, ...]:
        place = self._places[name]
        assert place is not None
        shrinker = Shrinker(place.play, place.start)
        try:
            with bounded():
                best = trio.run(shrinker.reduced, found.path, Signature.of(found.violation))
        except (Exception, Endless):
            best = found.path
        return steps_of(best)


@cache
def _stock(name: tuple[str, str], design: str) -> Stock:
    """Which no mutant changes."""
    return Stock.of(worlds()[name[1]], decks()[name[0]], design)


async def _opened(name: tuple[str, str], design: str) -> _Place:
    stock = _stock(name, design)
    play = Play(stock)
    await play.boot()
    start = play.save()
    for moves in stock.opening:
        if not await play.act(moves):
            raise SearchError("the deck's opening is not possible")
    return _Place(stock, play, start, play.save())


def replayed(design: str, world: str, steps: Sequence[Step]) -> tuple[str, ...]:
    """The invariants that these steps have a design break; FAULT if they have it fail."""
    text = scenario_text(worlds()[world], steps, designs=[design])
    try:
        with bounded():
            _, run = run_of(text)
    except Endless:
        return (FAULT,)
    except UserError:
        return ()
    except Exception:
        return (FAULT,)
    return tuple(dict.fromkeys(one.invariant for one in run.violations if one.counts))


@contextmanager
def bounded() -> Iterator[None]:
    """What has no end is ended. Raises Endless."""

    def ended(_signal: int, _frame: FrameType | None) -> Any:
        raise Endless

    before = signal.signal(signal.SIGVTALRM, ended)
    signal.setitimer(signal.ITIMER_VIRTUAL, ENDLESS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
