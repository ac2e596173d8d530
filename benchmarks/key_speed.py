"""What the key of a state costs in the worlds of the deck `squeeze`, and how many states it tells apart in `swap`.

    python -m benchmarks.key_speed

Each key is taken after a random action. The floor is a copy of a dict with as many values as the key has. Exit status 1
if the limit is missed.
"""

from __future__ import annotations

import statistics
import sys
import time
from random import Random

import trio

from pmulab.check.key import Key
from pmulab.check.play import Play, Stock
from pmulab.check.worlds import decks, worlds
from services.kvm.errors import SimulationError

DESIGNS = ("partitioned", "emulated")
ACTIONS = 1_000
LIMIT = 60.0  # microseconds
DEPTH = 5


def main() -> int:
    print(f"{'':36} {'µs, min':>8} {'median':>8} {'at most':>8} {'of floor':>9}")
    missed = False
    for design in DESIGNS:
        for world in decks()["squeeze"].worlds:
            times, floor, values = trio.run(_timed, design, world)
            middle = statistics.median(times)
            missed |= middle > LIMIT
            what = f"{design}, {world}, {values} values"
            told = "  MISSED" if middle > LIMIT else ""
            print(f"{what:36} {min(times):8.1f} {middle:8.1f} {LIMIT:8.0f} {middle / floor:9.1f}{told}")
    print(f"distinct states of {DESIGNS[0]}, deck swap, world pair, by depth: {trio.run(_distinct)}")
    return int(missed)


async def _opened(deck: str, world: str, design: str) -> Play:
    play = Play(Stock.of(worlds()[world], decks()[deck], design))
    await play.boot()
    for move in play.stock.opening:
        await play.act([move])
    return play


async def _timed(design: str, world: str) -> tuple[list[float], float, int]:
    """µs of each key, and of the floor; how many values there are."""
    play = await _opened("squeeze", world, design)
    key, chance, root = Key(play), Random(1), play.save()
    times, floors, values = [], [], 0
    for number in range(ACTIONS):
        if number % 8 == 0:  # as deep as a search goes
            play.restore(root)
        try:
            await play.act([chance.choice(play.stock.actions)])
        except SimulationError:
            continue
        began = time.perf_counter()
        key.of()
        times.append(1e6 * (time.perf_counter() - began))
        if number % 100 == 0:
            plain = key.parts()
            values = max(values, len(plain))
            floors += [_copied(plain) for _ in range(10)]
    return times, min(floors), values


def _copied(plain: dict[str, object]) -> float:
    began = time.perf_counter()
    plain.copy()
    return 1e6 * (time.perf_counter() - began)


async def _distinct() -> list[int]:
    """States after so many actions at most, from 1 on."""
    play = await _opened("swap", "pair", DESIGNS[0])
    key = Key(play)
    known, frontier = {key.of()}, [play.save()]
    found = []
    for _ in range(DEPTH):
        level = []
        for saved in frontier:
            for move in play.stock.actions:
                play.restore(saved)
                if await play.act([move]) and key.of() not in known:
                    known.add(key.of())
                    level.append(play.save())
        frontier = level
        found.append(len(known))
    return found


if __name__ == "__main__":
    sys.exit(main())
