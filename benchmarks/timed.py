"""Runs one experiment for each line that it is given, and says how long that took.

    python benchmarks/timed.py

reads lines of JSON, `[SCENARIO, [key=value, …], DESIGN]`, and answers each by one line, a `Timed`.
`benchmarks/speed.py` has the interpreter of another commit run this file, so it uses nothing but what both have.
"""

from __future__ import annotations

import gc
import sys
import time
from dataclasses import dataclass
from typing import Any

import orjson
import trio

from pmulab import scenario
from services.embedded import Embedded


@dataclass(frozen=True, slots=True)
class Timed:
    """One run, embedded, with all that is built before it left out."""

    cpu: float  # seconds of CPU time
    virtual: float  # seconds that were simulated
    accesses: int  # register accesses of all actors
    log: str  # hash of all that was accessed


def timed(name: str, overrides: list[str], design: str) -> Timed:
    """One run of the scenario `name` under `design`."""
    (experiment,) = scenario.load(name, designs=[design], overrides=overrides).experiments
    simulation = Embedded.of(experiment).simulation
    gc.collect()
    began = time.process_time()
    trio.run(simulation.run)
    cpu = time.process_time() - began
    board: Any = getattr(simulation, "board", simulation)  # once the simulation held the machine itself
    machine = board.machine
    accesses = sum(machine.accesses(number) for number in range(len(experiment.cpus)))
    return Timed(cpu, simulation.now / experiment.frequency_hz, accesses, machine.digest())


def main() -> None:
    for line in sys.stdin:
        print(orjson.dumps(timed(*orjson.loads(line))).decode(), flush=True)


if __name__ == "__main__":
    main()
