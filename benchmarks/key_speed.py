"""What the key of a state costs in the worlds of the deck `squeeze`, and how many states it tells apart in `swap`.

    python -m benchmarks.key_speed

Each key is taken after a random action, and again at once, with its data at hand. The limit is for the latter's median,
which says more of the key than of who else uses the core; the floor is a copy of a dict with as many values as the key
has. Exit status 1 if the limit is missed.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
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
    print(f"{'':44} {'µs, first':>9} {'again':>6} {'at most':>8} {'of floor':>9}")
    missed = False
    for design in DESIGNS:
        for world in decks()["squeeze"].worlds:
            firsts, times, floor, values = trio.run(_timed, design, world)
            first, middle = statistics.median(firsts), statistics.median(times)
            missed |= middle > LIMIT
            what = f"{design}, {world}, {values} values"
            told = "  MISSED" if middle > LIMIT else ""
            print(f"{what:44} {first:9.1f} {middle:6.1f} {LIMIT:8.0f} {middle / floor:9.1f}{told}")
    print(f"distinct states of {DESIGNS[0]}, deck swap, world pair, by depth: {trio.run(_distinct)}")
    return int(missed)


async def _opened(deck: str, world: str, design: str) -> Play:
    play = Play(Stock.of(worlds()[world], decks()[deck], design))
    await play.boot()
    for move in play.stock.opening:
        await play.act([move])
    return play


async def _timed(design: str, world: str) -> tuple[list[float], list[float], float, int]:
    """µs of each key, the first time and again, and of the floor; how many values there are."""
    play = await _opened("squeeze", world, design)
    key, chance, root = Key(play), Random(1), play.save()
    firsts, times, floors, values = [], [], [], 0
    for number in range(ACTIONS):
        if number % 8 == 0:  # as deep as a search goes
            play.restore(root)
        try:
            await play.act([chance.choice(play.stock.actions)])
        except SimulationError:
            continue
        firsts.append(_taken(key.of))
        times.append(min(_taken(key.of), _taken(key.of)))
        if number % 100 == 0:
            plain = key.parts()
            values = max(values, len(plain))
            floors += [_taken(plain.copy) for _ in range(10)]
    return firsts, times, min(floors), values


def _taken(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
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
