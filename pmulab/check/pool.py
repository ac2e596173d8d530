"""The jobs of a search, each in a process of its own, several at once."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from multiprocessing.synchronize import Event

import trio

from pmulab.check.job import Job, Searched, search

_FORK = multiprocessing.get_context("fork")  # what is loaded is loaded once, and nobody needs a `__main__` guard
_stop: Event  # a worker's, by which it is told to end


def stop() -> Event:
    """What to set so that the jobs under way end with what they have, and no other is begun."""
    return _FORK.Event()


def searched(jobs: Sequence[Job], at_once: int, stopped: Event) -> Iterator[tuple[int, Searched]]:
    """What comes of each, with its number, as it is done.

    A caller that ends earlier, by an exception say, leaves no process behind.
    """
    if at_once == 1 or len(jobs) == 1:
        for number, job in enumerate(jobs):
            yield number, trio.run(search, job, stopped.is_set)
        return
    with _FORK.Pool(min(at_once, len(jobs)), _begin, (stopped,)) as pool:
        yield from pool.imap_unordered(_do, enumerate(jobs))


def _begin(stopped: Event) -> None:
    """A Ctrl-C on the terminal reaches every process: the one that started these has them end."""
    global _stop
    _stop = stopped
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _do(numbered: tuple[int, Job]) -> tuple[int, Searched]:
    number, job = numbered
    return number, trio.run(search, job, _stop.is_set)
