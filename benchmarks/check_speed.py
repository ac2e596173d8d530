"""How fast `pmulab check` is, and where its time goes: random actions and exhaustive transitions a second and core.

    python -m benchmarks.check_speed

Decks of which a third of the actions at least are scheduling or perf, with the host's perf in the world, judged. The
floor beside them is the same actions on the same states without the judge, the key and saves. All is CPU time of one
process but the last line: two workers beside one, in wall time, on the same jobs.
"""

from __future__ import annotations

import os
import random
import sys
import time
from dataclasses import replace
from itertools import pairwise

import trio

from pmulab.check.coverage import Coverage
from pmulab.check.exhaustive import Exhaustive
from pmulab.check.job import Job
from pmulab.check.key import Key
from pmulab.check.play import Play, Stock
from pmulab.check.pool import Stop, searched
from pmulab.check.walks import Walks
from pmulab.check.worlds import decks, worlds

DECKS = (("squeeze", "one"), ("swap", "pair"), ("migrate", "two-pcpus"))
DESIGNS = ("partitioned", "emulated")
WALKS, DEPTH, SAMPLE = 100, 4, 2_000


def main() -> int:
    print(f"{'':34}{'random/s':>10}{'floor':>8}{'exhaustive/s':>14}{'act':>6}{'restore':>9}{'key':>6}{'save':>6}  µs")
    for design in DESIGNS:
        for deck, world in DECKS:
            trio.run(_measured, design, deck, world)
    alone, both = (_wall(workers) for workers in (1, 2))
    print(f"two workers beside one: {alone / both:.2f} times as fast, on {len(os.sched_getaffinity(0))} cores")
    return 0


async def _begun(stock: Stock) -> Play:
    play = Play(stock)
    await play.boot()
    for moves in stock.opening:
        await play.act(moves)
    return play


async def _measured(design: str, deck: str, world: str) -> None:
    stock = Stock.of(worlds()[world], decks()[deck], design)
    play = await _begun(stock)
    root = play.save()
    walks = Walks(stock, play, root, "1", Coverage())
    began = time.process_time()
    for number in range(1, WALKS):  # every sixteenth is run twice, as in a search
        await walks.walk(number)
    judged = walks.actions / (time.process_time() - began)
    floor = await _floor(replace(stock, experiment=replace(stock.experiment, judged=False)))
    states = Exhaustive(stock, play, root, Coverage(), 1)
    began = time.process_time()
    for depth in range(DEPTH):
        await states.next_level(lambda: False, last=depth + 1 == DEPTH)
    exhaustive = states.transitions / (time.process_time() - began)
    parts = " ".join(f"{part:6.0f}" for part in await _parts(stock))
    print(f"{f'{design}, {deck} in {world}':34}{judged:10,.0f}{floor:8,.0f}{exhaustive:14,.0f}{parts}", flush=True)


async def _floor(stock: Stock) -> float:
    """Actions a second where nobody judges."""
    play = await _begun(stock)
    root = play.save()
    rng, done = random.Random(1), 0
    began = time.process_time()
    for _ in range(WALKS):
        play.restore(root)
        walk = [(rng.choice(stock.actions),) for _ in range(100)]
        done += sum([await play.act(moves) for moves in walk])
    return done / (time.process_time() - began)


async def _parts(stock: Stock) -> tuple[float, ...]:
    """What an action, a restore, a key and a save take, on average along random walks, in µs."""
    play = await _begun(stock)
    root, key, rng = play.save(), Key(play), random.Random(1)
    act, restore, keys, save, done = 0.0, 0.0, 0.0, 0.0, 0
    for number in range(SAMPLE):
        times = [time.perf_counter()]
        if number % 50 == 0:
            play.restore(root)
        possible = await play.act((rng.choice(stock.actions),))
        times.append(time.perf_counter())
        if possible:
            key.of()
            times.append(time.perf_counter())
            saved = play.save()
            times.append(time.perf_counter())
            play.restore(saved)
            times.append(time.perf_counter())
            steps = [after - before for before, after in pairwise(times)]
            act, keys, save, restore = act + steps[0], keys + steps[1], save + steps[2], restore + steps[3]
            done += 1
    return tuple(part / done * 1e6 for part in (act, restore, keys, save))


def _wall(workers: int) -> float:
    jobs = [
        Job("partitioned", worlds()[world], decks()[deck], 0, 0, WALKS, 1, None) for deck, world in DECKS for _ in "12"
    ]
    began = time.perf_counter()
    for _ in searched(jobs, workers, Stop()):
        pass
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
