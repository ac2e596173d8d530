"""How fast the simulation is: wall time beside the virtual time that it simulates.

    python benchmarks/speed.py [SCENARIO] [--set key=value]…

runs each of the scenario's designs once, embedded, and prints a line per design. `accesses` are the register accesses
of all actors, the unit in which the simulation's work grows.
"""

from __future__ import annotations

import argparse
import time

import trio

from pmulab import scenario
from pmulab.designs import label
from services.embedded import Embedded


def main() -> None:
    parser = argparse.ArgumentParser(description="Wall time beside virtual time, per design.")
    parser.add_argument("scenario", nargs="?", default="gzip-record")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="key=value")
    arguments = parser.parse_args()
    print(f"{'design':<40} {'virtual s':>10} {'wall s':>8} {'wall/virtual':>13} {'accesses':>12} {'ns/access':>10}")
    for experiment in scenario.load(arguments.scenario, overrides=arguments.overrides).experiments:
        simulation = Embedded.of(experiment).simulation
        began = time.perf_counter()
        trio.run(simulation.run)
        wall = time.perf_counter() - began
        virtual = simulation.now / experiment.frequency_hz
        accesses = sum(simulation.board.machine.accesses(cpu) for cpu in range(len(experiment.cpus)))
        per_access = 1e9 * wall / accesses if accesses else 0.0
        print(
            f"{label(experiment.design):<40} {virtual:>10.3f} {wall:>8.2f} {wall / virtual:>13.2f}"
            f" {accesses:>12,} {per_access:>10.0f}"
        )


if __name__ == "__main__":
    main()
