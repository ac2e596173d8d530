"""A part of a search, as tests have it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict, Unpack

import trio

from pmulab.check.job import Job, Searched, search
from pmulab.check.shrink import Signature
from pmulab.check.worlds import decks, worlds


class How(TypedDict, total=False):
    """How far; else by 20 walks."""

    depth: int
    walks: int
    seed: int
    preemptions: int | None


def job(design: str, deck: str, world: str, **how: Unpack[How]) -> Job:
    of: How = {"depth": 0, "walks": 20, "seed": 1, "preemptions": None, **how}
    return Job(design, worlds()[world], decks()[deck], of["depth"], 1, of["walks"], of["seed"], None, of["preemptions"])


def searched(design: str, deck: str, world: str, **how: Unpack[How]) -> Searched:
    return trio.run(search, job(design, deck, world, **how))


def searched_knowing(design: str, deck: str, world: str, known: Iterable[Signature]) -> Searched:
    return trio.run(search, job(design, deck, world), lambda: False, known)
