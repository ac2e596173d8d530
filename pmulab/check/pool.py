"""Work in processes of its own, several at once: the jobs of a search, and what is made of its findings.

One process does one piece and ends, so what one of them does to itself, or is killed by, concerns that piece alone.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

import trio

from pmulab.check.job import Job, Searched, Tell, search
from pmulab.check.key import Key
from pmulab.check.play import Play, Stock
from pmulab.check.worlds import decks, worlds
from pmulab.exit_status import FAILED, describe_exit

T = TypeVar("T")
R = TypeVar("R")

INTERVAL = 0.5  # seconds between two words of a process on how far it has come

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_FORK = multiprocessing.get_context("fork")  # what is loaded is loaded once, and nobody needs a `__main__` guard

Watch = Callable[[Mapping[int, str]], None]  # what is under way, by its number, and what it has said last


class Stop:
    """Set, it has the jobs under way end with what they have, and no other is begun.

    A byte that all processes share: none that is killed can leave it locked.
    """

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._byte[0] = 1

    def is_set(self) -> bool:
        return self._byte[0] == 1


class Shares:
    """A time for some jobs in all, `at_once` at a time: how much of it each may take, asked as it begins."""

    def __init__(self, seconds: float, jobs: int, at_once: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self._jobs = jobs  # that have not begun
        self._at_once = min(at_once, jobs)
        self._ends: list[float] = []  # of those that have

    def next(self) -> float:
        """Seconds; 0 if the time is over."""
        now = self._clock()
        left = max(self._end - now, 0.0)
        taken = sum(max(end - now, 0.0) for end in self._ends)
        share = min(left, max(self._at_once * left - taken, 0.0) / self._jobs)
        self._jobs -= 1
        self._ends.append(now + share)
        return share


@dataclass(frozen=True, slots=True)
class Lost:
    """What a process was to give that has ended without it."""

    why: str


def searched(
    jobs: Sequence[Job], at_once: int, stopped: Stop, seconds: float | None = None, watch: Watch = lambda _: None
) -> Generator[tuple[int, Searched], None, None]:
    """What comes of each, with its number, as it is done; in so many `seconds` in all, if that is said.

    A caller that ends earlier, by an exception say, closes this, and no process is left behind.
    """
    trio.run(_read)
    shares = None if seconds is None else Shares(seconds, len(jobs), at_once)
    begun = 0

    def coming() -> Iterator[Job]:
        nonlocal begun
        for job in jobs:
            share = None if shares is None else shares.next()
            if stopped.is_set() or share == 0:
                return
            begun += 1
            yield replace(job, seconds=share)

    for number, one in carried_out(partial(_search, stopped), coming(), at_once, watch):
        yield number, Searched(jobs[number], failed=one.why) if isinstance(one, Lost) else one
    for number in range(begun, len(jobs)):
        yield number, Searched(jobs[number], cut=stopped.is_set(), late=not stopped.is_set())


async def _read() -> None:
    """What every search reads, tables say, is read before the processes part, and not in each of them."""
    deck = next(iter(decks().values()))
    play = Play(Stock.of(worlds()[deck.worlds[0]], deck, "partitioned"))
    await play.boot()
    Key(play).of()
    play.save()


def _search(stopped: Stop, job: Job, tell: Tell) -> Searched:
    return trio.run(search, job, stopped.is_set, (), tell)


def carried_out(
    work: Callable[[T, Tell], R], items: Iterable[T], at_once: int, watch: Watch = lambda _: None
) -> Generator[tuple[int, R | Lost], None, None]:
    """What `work` gives of each item, with its number, as it is done. An item is asked for when it can begin."""
    coming = enumerate(items)
    under_way: dict[Connection[Any, Any], _Worker[T, R]] = {}
    try:
        while True:
            while len(under_way) < at_once and (numbered := next(coming, None)) is not None:
                worker = _Worker(work, *numbered)
                under_way[worker.pipe] = worker
            if not under_way:
                return
            for pipe in wait([*under_way], INTERVAL):
                assert isinstance(pipe, Connection)
                worker = under_way[pipe]
                given = worker.receive()
                if given is not None:
                    del under_way[pipe]
                    yield worker.number, given
            watch({worker.number: worker.said for worker in under_way.values()})
    finally:
        for worker in under_way.values():
            worker.end()


class _Worker(Generic[T, R]):
    """A process that does one piece of work."""

    def __init__(self, work: Callable[[T, Tell], R], number: int, item: T) -> None:
        self.number = number
        self.said = ""
        self.pipe, there = _FORK.Pipe(duplex=False)
        self._process = _FORK.Process(target=_do, args=(work, item, there, os.getpid()), daemon=True)
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until it has handlers of its own
        self._process.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        there.close()  # so that the pipe ends with the process

    def receive(self) -> R | Lost | None:
        """What it has given; None if it has only said how far it has come."""
        try:
            ended, given = self.pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            status = self._process.exitcode or 0
            self.end()
            memory = " (is memory short?)" if status == -signal.SIGKILL else ""
            return Lost(f"its process {describe_exit(status)}{memory}")
        if ended:
            self.end()
            result: R = given
            return result
        self.said = given
        return None

    def end(self) -> None:
        """At once."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self.pipe.close()


def _do(work: Callable[[T, Tell], R], item: T, pipe: Connection[Any, Any], parent: int) -> None:
    """In the process: a Ctrl-C on the terminal reaches it too, and the one that started it sees to that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    sys.stdout = sys.stderr  # that is for the result: a design that prints does so there
    last = 0.0

    def tell(what: Callable[[], str]) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < INTERVAL:
            return
        if os.getppid() != parent:
            os._exit(FAILED)  # whoever started this has gone
        last = now
        pipe.send((False, what()))

    pipe.send((True, work(item, tell)))
