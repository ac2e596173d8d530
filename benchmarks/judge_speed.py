"""What the judge costs: each run judged and not, in turn, in one process.

    python -m benchmarks.judge_speed

The floor is the same run unjudged. Exit status 1 if the median of the ratios is above the limit.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from dataclasses import replace

import trio

from pmulab import scenario
from services.embedded import Embedded
from services.experiment import Experiment

LIMIT = 1.3
ROUNDS = 7
RUNS = {
    "specint-stat": ("guest.task.seconds=0.1",),
    "stress-record": ("guest.task.seconds=0.05",),
    "two-vms": ("guest.task.seconds=0.05",),
}
DESIGNS = ("emulated", "partitioned", "partitioned,traps=slow-path", "partitioned-v1")


def main() -> int:
    print(f"{'':48} {'unjudged':>9} {'judged':>9} {'limit':>6}")
    missed = False
    for name, overrides in RUNS.items():
        for design in DESIGNS:
            (judged,) = scenario.load(name, designs=[design], overrides=overrides).experiments
            unjudged = replace(judged, judged=False)
            pairs = [(_seconds(unjudged), _seconds(judged)) for _ in range(ROUNDS)]
            ratio = statistics.median(with_judge / without for without, with_judge in pairs)
            missed |= ratio > LIMIT
            without = min(pair[0] for pair in pairs)
            print(
                f"{name + ', ' + design:48} {without:7.3f} s {ratio:9.2f} {LIMIT:6.1f}"
                f"{'  MISSED' if ratio > LIMIT else ''}"
            )
    return int(missed)


def _seconds(experiment: Experiment) -> float:
    """Of CPU time."""
    simulation = Embedded.of(experiment).simulation
    gc.collect()
    began = time.process_time()
    trio.run(simulation.run)
    return time.process_time() - began


if __name__ == "__main__":
    sys.exit(main())
