"""A part of a search, as tests have it."""

from __future__ import annotations

import trio

from pmulab.check.job import Job, Searched, search
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
