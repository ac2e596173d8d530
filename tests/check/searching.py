"""A part of a search, as tests have it."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from pmulab.check.job import Job, Searched, search
from pmulab.check.shrink import Signature
from pmulab.check.worlds import decks, worlds


def job(
    design: str,
    deck: str,
    world: str,
    *,
    depth: int = 0,
    walks: int = 20,
    seed: int = 1,
    preemptions: int | None = None,
) -> Job:
    return Job(design, worlds()[world], decks()[deck], depth, 1, walks, seed, None, preemptions)


def searched(
    design: str,
    deck: str,
    world: str,
    *,
    depth: int = 0,
    walks: int = 20,
    seed: int = 1,
    preemptions: int | None = None,
) -> Searched:
    of = job(design, deck, world, depth=depth, walks=walks, seed=seed, preemptions=preemptions)
    return trio.run(search, of)


def searched_knowing(design: str, deck: str, world: str, known: Iterable[Signature]) -> Searched:
    return trio.run(search, job(design, deck, world), lambda: False, known)
