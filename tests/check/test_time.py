"""`--seconds`: the search keeps to it, by a clock that only passes when it is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from pmulab.check import pool
from pmulab.check.exhaustive import Exhaustive
from pmulab.check.finding import Finding, finished, shortest_of
from pmulab.check.job import Searched, search
from pmulab.check.play import Found
from pmulab.check.pool import Shares, Stop, carried_out
from pmulab.check.walks import Walks
from tests.check.searching import job

TICK = 0.001  # seconds that pass at every look


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += TICK
        return self.now


def timed(seconds: float, clock: Clock, deck: str = "swap", world: str = "pair", depth: int = 9) -> Searched:
    bound = replace(job("partitioned-v8", deck, world, depth=depth, walks=1 << 40), seconds=seconds)
    return trio.run(search, bound, lambda: False, (), lambda _: None, clock)


def times_of(monkeypatch: pytest.MonkeyPatch, of: type, method: str, clock: Clock) -> list[float]:
    """When it is called, from now on."""
    called: list[float] = []
    original: Callable[..., object] = getattr(of, method)

    def watched(*arguments: object, **more: object) -> object:
        called.append(clock.now)
        return original(*arguments, **more)

    monkeypatch.setattr(of, method, watched)
    return called


def test_no_level_and_no_walk_begins_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    levels = times_of(monkeypatch, Exhaustive, "next_level", clock)
    walks = times_of(monkeypatch, Walks, "walk", clock)
    found = timed(1.0, clock)
    assert len(levels) > 1
    assert max(levels) < 0.5 + TICK, "half of the time is for the walks"
    assert len(walks) == found.walks > 10
    assert max(walks) < 1.0 + TICK
    assert found.seconds < 1.0 + 4 * TICK, "it ends then"


def test_within_a_level_no_action_begins_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the deck `amid` there are thousands of ways on from a single state."""
    clock = Clock()
    late: list[float] = []
    original = Exhaustive._arrived

    def watched(self: Exhaustive, *arguments: Any) -> list[Found]:
        late.extend([clock.now] if clock.now > 0.5 + 2 * TICK else [])
        return original(self, *arguments)

    monkeypatch.setattr(Exhaustive, "_arrived", watched)
    found = timed(1.0, clock, "amid", "one")
    assert found.transitions > 100
    assert late == []
    assert found.depth < len(found.levels), "the level that was cut is not complete"


def test_what_is_found_in_a_bounded_time_is_made_short_afterwards(tmp_path: Path) -> None:
    found = timed(0.3, Clock(), depth=0)
    assert found.found
    assert all(one.path for one in found.found)
    todo = [("partitioned-v8", one, of, tmp_path) for one, of in shortest_of([found])]
    made = [one for _, one in carried_out(finished, todo, 2)]
    assert len(made) == len(todo)
    for one in made:
        assert isinstance(one, Finding)
        assert len(one.shortest.steps) <= one.shortest.length
        assert one.cause is not None


@pytest.mark.parametrize(("jobs", "at_once"), [(1, 4), (7, 1), (75, 2), (8, 4)])
def test_the_shares_of_a_time_fill_it_but_for_one_at_most(jobs: int, at_once: int) -> None:
    now = 0.0
    shares = Shares(10.0, jobs, at_once, lambda: now)
    under_way: list[float] = []
    spent: list[float] = []
    for _ in range(jobs):
        if len(under_way) == at_once:
            now = under_way.pop(0)
        share = shares.next()
        spent.append(share)
        under_way = sorted([*under_way, now + share])
        assert under_way[-1] <= 10.0 + 1e-9
    whole = 10.0 * min(jobs, at_once)
    assert whole - max(spent) < sum(spent) < whole + 1e-9
    assert max(spent) <= 2 * whole / jobs


def test_a_job_that_ends_early_leaves_its_time_to_the_others() -> None:
    now = 0.0
    shares = Shares(10.0, 2, 1, lambda: now)
    assert shares.next() == 5.0
    now = 6.0  # or late
    assert shares.next() == 4.0
    now = 10.0
    shares = Shares(10.0, 2, 1, lambda: now)
    shares.next()
    now = 30.0
    assert shares.next() == 0.0


def test_jobs_for_which_there_is_no_time_are_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_shares: Shares) -> float:
        return next(left)

    left: Iterator[float] = iter([0.2, 0.0])
    monkeypatch.setattr(pool.Shares, "next", none_left)
    jobs = [job("partitioned", "swap", "pair", walks=1)] * 3
    done = dict(pool.searched(jobs, 2, Stop(), 1.0))
    assert [done[number].late for number in range(3)] == [False, True, True]
