"""What the judge costs: each run judged and not, in turn, in one process.

    python -m benchmarks.judge_speed

The floor is the same run unjudged. A pair is one run of each, straight after each other, now the one first and now the
other; the ratio is the median over all pairs, beside an interval that holds the median of many more in 19 of 20 cases,
whatever the distribution (order statistics, by the binomial distribution), and the ratio of the shortest runs. A row is
MISSED if the whole interval is above the limit, and `close` if the limit is within it: then this says neither. Exit
status 1 if one is missed.
"""

from __future__ import annotations

import gc
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import trio

from pmulab import scenario
from services.embedded import Embedded
from services.experiment import Experiment

LIMIT = 1.3
PAIRS = 30
# So long that the boot, in which the judge has little to do, is no part of it that could be seen.
RUNS = {
    "specint-stat": ("guest.task.seconds=0.4",),
    "stress-record": ("guest.task.seconds=0.03",),
    "two-vms": ("guest.task.seconds=0.1",),
}
DESIGNS = ("emulated", "partitioned", "partitioned,traps=slow-path", "partitioned-v1")


def main() -> int:
    print(f"{PAIRS} pairs{'':40} {'unjudged':>9} {'judged':>8} {'interval':>14} {'shortest':>9} {'limit':>6}")
    missed = False
    for name, overrides in RUNS.items():
        for design in DESIGNS:
            (judged,) = scenario.load(name, designs=[design], overrides=overrides).experiments
            pairs = _pairs(replace(judged, judged=False), judged)
            ratios = [with_judge / without for without, with_judge in pairs]
            low, high = interval(ratios)
            missed |= low > LIMIT
            shortest, shortest_judged = (min(times) for times in zip(*pairs, strict=True))
            print(
                f"{name + ', ' + design:48} {shortest:7.3f} s {statistics.median(ratios):8.2f} {low:6.2f} - {high:.2f}"
                f" {shortest_judged / shortest:9.2f} {LIMIT:6.1f}{_verdict(low, high)}",
                flush=True,
            )
    return int(missed)


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Where their median is, to 95 %."""
    beyond = int(len(ratios) / 2 - 1.96 * math.sqrt(len(ratios)) / 2)
    ordered = sorted(ratios)
    return ordered[beyond], ordered[-1 - beyond]


def _verdict(low: float, high: float) -> str:
    return "  MISSED" if low > LIMIT else "  close" if high > LIMIT else ""


def _pairs(unjudged: Experiment, judged: Experiment) -> list[tuple[float, float]]:
    """Of seconds, unjudged and judged."""
    _seconds(judged)  # what is made once in a process, and caches
    pairs: list[tuple[float, float]] = []
    for number in range(PAIRS):
        if number % 2:
            with_judge = _seconds(judged)
            pairs.append((_seconds(unjudged), with_judge))
        else:
            pairs.append((_seconds(unjudged), _seconds(judged)))
    return pairs


def _seconds(experiment: Experiment) -> float:
    """Of CPU time."""
    simulation = Embedded.of(experiment).simulation
    gc.collect()
    began = time.process_time()
    trio.run(simulation.run)
    return time.process_time() - began


if __name__ == "__main__":
    sys.exit(main())
