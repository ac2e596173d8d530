"""What the numbers that were fitted to one published benchmark say of the other two."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pmulab import scenario
from pmulab.batch import run_designs
from services.errors import UserError
from services.result import Run

STAT, STRESS = "specint-stat", "stress-record"
STAT_SECONDS, STRESS_SECONDS = 2, 0.25  # of work: ratios and shares hardly depend on it, see `lengths`
LENGTHS = (1, 10, 100)  # seconds


@dataclass(frozen=True, slots=True)
class Prediction:
    """Of one setting, in per cent; of two designs: the emulated one, and the one that it is compared with."""

    longer: float  # what the emulated vPMU adds to specint's elapsed time
    without_stalls: float | None  # the same where perf stat does not count the two stalls; None: as `longer`
    kernel: tuple[float, float]  # the host's kernel while the guest records, as the host prints it
    true_kernel: tuple[float, float] | None  # the same by exception level, if that is known

    def distance(self, other: Prediction) -> float:
        """From `other`, relatively: of the elapsed time or the emulated kernel share, whichever is farther."""
        pairs = ((self.longer, other.longer), (self.kernel[0], other.kernel[0]))
        return max(abs(ours / theirs - 1) for ours, theirs in pairs)

    def agrees(self, other: Prediction, within: float) -> bool:
        """Are both those of `other`, relatively?"""
        return self.distance(other) <= within


def published(other: str, base: str) -> Prediction:
    """What was measured. Raises UserError if a scenario does not have it."""
    stat, stress = scenario.load(STAT).published, scenario.load(STRESS).published
    elapsed = [number(stat[design].elapsed_seconds) for design in (other, base)]
    kernel = [number(stress[design].host_kernel_percent) for design in (other, base)]
    return Prediction(100 * (elapsed[0] / elapsed[1] - 1), None, (kernel[0], kernel[1]), None)


def number(found: float | None) -> float:
    if found is None:
        raise UserError("[published]", "a number that predictions are compared with is not there", "add it")
    return found


def predict(overrides: Sequence[str], other: str, base: str, *, jobs: int | None = None) -> Prediction:
    """Run both, at most `jobs` designs at once. Raises UserError if a run fails."""
    length = f"guest.task.seconds={STAT_SECONDS}"
    stress = runs(STRESS, [*overrides, f"guest.task.seconds={STRESS_SECONDS}"], other, base, jobs)
    kernel = [100 * run.cputime.host_kernel / run.printed for run in stress]
    true_kernel = [100 * run.time.host_kernel / run.time.total for run in stress]
    return Prediction(
        _longer(runs(STAT, [*overrides, length], other, base, jobs)),
        _longer(runs(STAT, [*overrides, length, _without_stalls()], other, base, jobs)),
        (kernel[0], kernel[1]),
        (true_kernel[0], true_kernel[1]),
    )


def lengths(overrides: Sequence[str], other: str, base: str) -> Iterator[tuple[int, float, float, float]]:
    """Seconds of work, what the emulated vPMU adds to specint's time, and either design's sys; per cent."""
    for seconds in LENGTHS:
        found = runs(STAT, [*overrides, f"guest.task.seconds={seconds}"], other, base)
        system = [100 * run.guests[0].system_seconds / run.guests[0].elapsed_seconds for run in found]
        yield seconds, _longer(found), system[0], system[1]


def _without_stalls() -> str:
    session = scenario.load(STAT).experiments[0].guests[0].vcpus[0].tasks[0].session
    assert session is not None
    kept = [event.name for event in session.events if not event.name.startswith("stalled")]
    return f"guest.task.perf.events={json.dumps(kept)}"


def _longer(runs: tuple[Run, Run]) -> float:
    other, base = (run.guests[0].elapsed_seconds for run in runs)
    return 100 * (other / base - 1)


def runs(name: str, overrides: Sequence[str], other: str, base: str, jobs: int | None = None) -> tuple[Run, Run]:
    """Both designs' runs. Raises UserError if one fails."""
    result = run_designs(scenario.load(name, designs=(other, base), overrides=list(overrides)), jobs=jobs)
    if result.failures:
        raise UserError(name, str(result.failures[0]), "")
    first, second = result.runs
    return first, second
