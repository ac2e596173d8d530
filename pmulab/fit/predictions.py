"""What the numbers that were fitted to one published benchmark say of the other two."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pmulab import scenario
from pmulab.batch import run_designs
from services.errors import UserError
from services.result import Run

STAT, STRESS = "specint-stat", "stress-record"
STAT_SECONDS, STRESS_SECONDS = 2, 1  # of work: see `lengths` and `stress_lengths`
LENGTHS, STRESS_LENGTHS = (1, 10, 100), (0.25, 1, 4)  # seconds


@dataclass(frozen=True, slots=True)
class Prediction:
    """Of one setting, in per cent; of two designs: the emulated one, and the one that it is compared with."""

    longer: float  # what the emulated vPMU adds to specint's elapsed time
    kernel: tuple[float, float]  # the host's kernel while the guest records, as the host prints it
    guest: tuple[float, float]  # and the guest
    # What only a simulation knows; None of what was published.
    without_stalls: float | None = None  # `longer` where perf stat does not count the two stalls
    true_kernel: tuple[float, float] | None = None  # `kernel` by exception level
    ticks: tuple[int, int] | None = None  # of the host, by which it prints `kernel` and `guest`

    @property
    def kernel_error(self) -> tuple[float, float] | None:
        """One standard error of `kernel` as a share of so many ticks, were each at a random time."""
        if self.ticks is None:
            return None
        first, second = (math.sqrt(p * (100 - p) / n) for p, n in zip(self.kernel, self.ticks, strict=True))
        return first, second

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
    guest = [number(stress[design].guest_percent) for design in (other, base)]
    return Prediction(100 * (elapsed[0] / elapsed[1] - 1), (kernel[0], kernel[1]), (guest[0], guest[1]))


def number(found: float | None) -> float:
    if found is None:
        raise UserError("[published]", "a number that predictions are compared with is not there", "add it")
    return found


def predict(overrides: Sequence[str], other: str, base: str, *, jobs: int | None = None) -> Prediction:
    """Run both, at most `jobs` designs at once. Raises UserError if a run fails."""
    length = f"guest.task.seconds={STAT_SECONDS}"
    hz = scenario.load(STRESS, overrides=list(overrides)).experiments[0].host.hz
    first, second = runs(STRESS, [*overrides, f"guest.task.seconds={STRESS_SECONDS}"], other, base, jobs)
    return Prediction(
        _longer(runs(STAT, [*overrides, length], other, base, jobs)),
        (kernel_share(first), kernel_share(second)),
        (guest_share(first), guest_share(second)),
        _longer(runs(STAT, [*overrides, length, _without_stalls()], other, base, jobs)),
        (_true_kernel(first), _true_kernel(second)),
        (round(first.printed * hz), round(second.printed * hz)),
    )


def kernel_share(run: Run) -> float:
    """The host's kernel as the host prints it, in per cent."""
    return 100 * run.cputime.host_kernel / run.printed


def guest_share(run: Run) -> float:
    """The guest, likewise."""
    return 100 * run.cputime.guest / run.printed


def _true_kernel(run: Run) -> float:
    return 100 * run.time.host_kernel / run.time.total


def lengths(overrides: Sequence[str], other: str, base: str) -> Iterator[tuple[int, float, float, float]]:
    """Seconds of work, what the emulated vPMU adds to specint's time, and either design's sys; per cent."""
    for seconds in LENGTHS:
        found = runs(STAT, [*overrides, f"guest.task.seconds={seconds}"], other, base)
        system = [100 * run.guests[0].system_seconds / run.guests[0].elapsed_seconds for run in found]
        yield seconds, _longer(found), system[0], system[1]


def stress_lengths(overrides: Sequence[str], other: str, base: str) -> Iterator[tuple[float, float, float]]:
    """Seconds of work, and the host's kernel while the guest records under either design, as printed; per cent."""
    for seconds in STRESS_LENGTHS:
        first, second = runs(STRESS, [*overrides, f"guest.task.seconds={seconds}"], other, base)
        yield seconds, kernel_share(first), kernel_share(second)


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
    loaded = scenario.load(name, designs=(other, base), overrides=list(overrides), judge=False)
    result = run_designs(loaded, jobs=jobs)
    if result.failures:
        raise UserError(name, str(result.failures[0]), "")
    first, second = result.runs
    return first, second
