"""One experiment in this process, with its progress as a share of the work and virtual seconds."""

from __future__ import annotations

from collections.abc import Callable

import trio

from services import embedded
from services import result as results
from services.experiment import Experiment
from services.kvm.simulation import Simulation
from services.result import Result

Progress = Callable[[float, float], None]


def _untold(_share: float, _seconds: float) -> None:
    """Nobody waits for it."""


def run_embedded(experiment: Experiment, progress: Progress = _untold) -> Result:
    """Run `experiment` to its end.

    `progress` is given the share of the work that is done and the virtual time in seconds. Raises SimulationError.
    """

    def update(simulation: Simulation) -> None:
        total, left = simulation.progress()
        progress(1 - left / total if total else 0.0, simulation.now / experiment.frequency_hz)

    return results.of(experiment, trio.run(embedded.run, experiment, update), "embedded")
