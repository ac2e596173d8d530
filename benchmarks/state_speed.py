"""How fast a small world is saved and restored in place, as a search over its states does by the million.

    python -m benchmarks.state_speed

Between two of them the world runs on a little, so that a restore has something to take back. The floor is a copy of a
dict with as many plain values as the state has. Each figure is taken in turn with the floor, many times, and its best
one counts, which is what it takes on an idle core. Exit status 1 if a limit is missed.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import trio

from benchmarks.small_world import World

INTERACTIONS = 10_000  # before the state that is restored
ON = 5  # interactions from there on each time
ROUNDS = 1_000
DESIGNS = ("emulated", "partitioned")
SAVE, RESTORE = 150.0, 100.0  # microseconds


def main() -> int:
    print(f"{'':32} {'µs, min':>8} {'median':>8} {'at most':>8} {'of floor':>9}")
    missed = False
    for design in DESIGNS:
        for what, limit, times, floor in trio.run(_measured, design):
            best = min(times)
            missed |= best > limit
            print(
                f"{what:32} {best:8.1f} {statistics.median(times):8.1f} {limit:8.0f} {best / floor:9.1f}"
                f"{'  MISSED' if best > limit else ''}"
            )
        print(f"{'  floor':32} {floor:8.1f}")
    return int(missed)


async def _measured(design: str) -> list[tuple[str, float, list[float], float]]:
    """What, its limit, its times and the best floor; times are µs."""
    world = World(design)
    await world.run(INTERACTIONS)
    state = world.state()
    plain = {str(number): number for number in range(_values(state))}
    saves, restores, floors = [], [], []
    for _ in range(ROUNDS):
        await world.run(ON)
        saves.append(_time(world.state))
        restores.append(_time(lambda: world.restore(state)))
        floors.append(_time(plain.copy))
    floor = min(floors)
    return [
        (f"{design}, {len(plain)} values, saved", SAVE, saves, floor),
        (f"{design}, {len(plain)} values, restored", RESTORE, restores, floor),
    ]


def _values(saved: Any) -> int:
    """How many plain values there are in a state."""
    if isinstance(saved, dict):
        return sum(_values(one) for one in saved.values())
    if isinstance(saved, (list, tuple)):
        return sum(_values(one) for one in saved)
    return 1


def _time(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return 1e6 * (time.perf_counter() - began)


if __name__ == "__main__":
    sys.exit(main())
