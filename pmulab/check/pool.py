"""The jobs of a search, each in a process of its own, several at once."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence

import trio

from pmulab.check.job import Job, Searched, search


def searched(jobs: Sequence[Job], at_once: int) -> Iterator[tuple[int, Searched]]:
    """What comes of each, with its number, as it is done. Raises SearchError.

    A caller that ends earlier, by an exception say, leaves no process behind.
    """
    if at_once == 1 or len(jobs) == 1:
        for number, job in enumerate(jobs):
            yield number, trio.run(search, job)
        return
    # Forked: what is loaded is loaded once, and nobody needs a `__main__` guard. There are no threads here.
    with multiprocessing.get_context("fork").Pool(min(at_once, len(jobs)), _left_to_parent) as pool:
        yield from pool.imap_unordered(_do, enumerate(jobs))


def _left_to_parent() -> None:
    """A Ctrl-C on the terminal reaches every process: the one that started these ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _do(numbered: tuple[int, Job]) -> tuple[int, Searched]:
    number, job = numbered
    return number, trio.run(search, job)
