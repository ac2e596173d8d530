"""What is fitted: runs of a scenario with three numbers left open, and the published times that they are to meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from pmulab import scenario
from pmulab.batch import run_designs
from services.errors import UserError
from services.result import Run

BASE, OTHER = "partitioned-v1", "emulated-6.15"  # the base speed follows from the first, the factor from both


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers that are free; a share of None is the scenario's own and is not fitted."""

    ipc: Decimal
    perf_factor: Decimal
    kernel_share: Decimal | None = None

    def overrides(self) -> list[str]:
        """As settings of a scenario."""
        share = [] if self.kernel_share is None else [f"guest.task.kernel_share={self.kernel_share}"]
        return [f"guest.task.ipc={self.ipc}", f"machine.perf_factor={self.perf_factor}", *share]


@dataclass(frozen=True, slots=True)
class Times:
    """One design's run, in seconds, at the published size."""

    elapsed: float
    user: float
    system: float


class NoFitError(Exception):
    """There are no numbers, within reason, that meet the published times."""


class Trial:
    """Runs of a scenario with the numbers left open; `share` divides its work, and times are multiplied by it.

    At most `jobs` designs run at once.
    """

    elapsed: Mapping[str, float]
    system: Mapping[str, float] = {}

    runs: tuple[Run, ...] = ()  # the last ones

    def __init__(self, name: str, overrides: tuple[str, ...] = (), share: int = 1, *, jobs: int | None = None) -> None:
        self._name = name
        self._jobs = jobs
        self._share = share
        published = scenario.load(name).published
        self.elapsed = {d: of.elapsed_seconds for d, of in published.items() if of.elapsed_seconds is not None}
        self.system = {d: of.system_seconds for d, of in published.items() if of.system_seconds is not None}
        if not (self.elapsed.get(BASE) and self.elapsed.get(OTHER)):
            remedy = f"give [published] elapsed_seconds of {BASE} and {OTHER}"
            raise UserError(name, "there is nothing to fit to", remedy)
        self._overrides = [*overrides, f"guest.task.repeat={self._repeat() // share}"]

    def _repeat(self) -> int:
        """How often the one task of the scenario's first guest does its work."""
        tasks = scenario.load(self._name).experiments[0].guests[0].vcpus[0].tasks
        if not tasks:
            raise UserError(self._name, "its first guest has no task", "add a [[guest.task]]")
        return tasks[0].repeat

    def run(self, numbers: Numbers) -> dict[str, Times]:
        """Run both designs. Times by design. Raises NoFitError if a run fails."""
        overrides = [*self._overrides, *numbers.overrides()]
        loaded = scenario.load(self._name, designs=(OTHER, BASE), overrides=overrides, judge=False)
        result = run_designs(loaded, jobs=self._jobs)
        if result.failures:
            raise NoFitError(str(result.failures[0]))
        times, self.runs = {}, result.runs
        for run in result.runs:
            guest = run.guests[0]
            parts = (guest.elapsed_seconds, guest.true_user_seconds, guest.system_seconds)
            times[run.design.name] = Times(*(part * self._share for part in parts))
        return times
