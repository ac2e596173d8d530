"""The fit of two numbers to two published times: the guest's base speed and the factor on perf's software costs.

    python -m pmulab.fit [SCENARIO] [--grid]

A guest that works for U seconds in T seconds works for the share U / T of its time. The share is linear in the
factor f, because every interrupt, rotation and tick recurs at a rate and costs something plus f times something:
U / T = a + b f. Two runs per design give a and b; the published times of both designs then give f, and U, which is the
base speed. Throttling bends the line, so the fit is repeated around what it found.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from pmulab import scenario
from pmulab.batch import run_designs
from pmulab.command import Parser, carry_out
from pmulab.exit_status import FAILED, OK
from pmulab.report import assumed_costs
from services.errors import UserError
from services.result import Run

BASE, OTHER = "partitioned", "emulated"  # the base speed follows from the first, the factor from both
GRID_HZ = (100, 250, 1000)
GRID_COUNTERS = (6, 8, 10)
GRID_SHARE = 4  # the grid runs a quarter of the work: what is fitted are rates
STEPS = 3
CLOSE = 0.002  # relative deviation at which repeating ends


@dataclass(frozen=True, slots=True)
class Numbers:
    """The two numbers that are free."""

    ipc: Decimal
    perf_factor: Decimal


@dataclass(frozen=True, slots=True)
class Times:
    """One design's run, in seconds, at the published size."""

    elapsed: float
    user: float
    system: float


@dataclass(frozen=True, slots=True)
class Line:
    """The share of its time that the guest works under one design, over the perf factor: a + b f."""

    a: float
    b: float


class NoFitError(Exception):
    """No base speed and factor, neither negative, meet both published times."""


class Trial:
    """Runs of a scenario with the two numbers left open; `share` divides its work, and times are multiplied by it."""

    runs: tuple[Run, ...] = ()  # the last ones

    def __init__(self, name: str, overrides: tuple[str, ...] = (), share: int = 1) -> None:
        self._name = name
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
        free = [f"guest.task.ipc={numbers.ipc}", f"machine.perf_factor={numbers.perf_factor}"]
        loaded = scenario.load(self._name, designs=(BASE, OTHER), overrides=[*self._overrides, *free])
        result = run_designs(loaded)
        if result.failures:
            raise NoFitError(str(result.failures[0]))
        times, self.runs = {}, result.runs
        for run in result.runs:
            guest = run.guests[0]
            parts = (guest.elapsed_seconds, guest.true_user_seconds, guest.system_seconds)
            times[run.design.name] = Times(*(part * self._share for part in parts))
        return times


def fit(trial: Trial, start: Numbers) -> tuple[Numbers, dict[str, Times]]:
    """The fitted numbers, and the times that a run with them takes. Raises NoFitError."""
    first = (start, trial.run(start))
    guess = Numbers(start.ipc, start.perf_factor * 2)
    for _ in range(STEPS):
        second = (guess, trial.run(guess))
        if _deviation(trial, second[1]) < CLOSE:
            break
        guess = _solve(trial, first, second)
        if _deviation(trial, first[1]) > _deviation(trial, second[1]):
            first = second
    else:
        second = (guess, trial.run(guess))
    return second


def _solve(trial: Trial, first: tuple[Numbers, dict[str, Times]], second: tuple[Numbers, dict[str, Times]]) -> Numbers:
    """The numbers at which the lines through two runs meet both published times."""
    base, other = (_line(design, first, second) for design in (BASE, OTHER))
    # The guest works for the same U in both: T_base (a + b f) = T_other (a' + b' f).
    t_base, t_other = trial.elapsed[BASE], trial.elapsed[OTHER]
    slope = t_other * other.b - t_base * base.b
    factor = (t_base * base.a - t_other * other.a) / slope if slope else -1.0
    work = t_base * (base.a + base.b * factor)
    if factor < 0 or work <= 0:
        raise NoFitError(f"factor {factor:.3f}, {work:.3f} s of work" if slope else "the factor makes no difference")
    numbers, times = second
    return Numbers(
        ipc=_rounded(float(numbers.ipc) * times[BASE].user / work),
        perf_factor=_rounded(factor),
    )


def _line(design: str, first: tuple[Numbers, dict[str, Times]], second: tuple[Numbers, dict[str, Times]]) -> Line:
    (x0, y0), (x1, y1) = (
        (float(numbers.perf_factor), times[design].user / times[design].elapsed) for numbers, times in (first, second)
    )
    b = (y1 - y0) / (x1 - x0) if x1 != x0 else 0.0
    return Line(y0 - b * x0, b)


def _deviation(trial: Trial, times: dict[str, Times]) -> float:
    return max(abs(times[design].elapsed / trial.elapsed[design] - 1) for design in (BASE, OTHER))


def _rounded(number: float) -> Decimal:
    return Decimal(f"{number:.4f}")


def _print_row(trial: Trial, name: str, start: Numbers) -> int:
    """One line of the table: the fit, or that there is none. An exit status."""
    try:
        numbers, times = fit(trial, start)
    except NoFitError as error:
        print(f"{name:<24} no non-negative solution ({error})", flush=True)
        return FAILED
    cells = [f"{name:<24} {numbers.ipc:>8} {numbers.perf_factor:>11}"]
    for design in (OTHER, BASE):
        deviation = 100 * (times[design].elapsed / trial.elapsed[design] - 1)
        cells.append(f"{times[design].elapsed:>9.3f} s {deviation:>+6.2f} % {times[design].system:>9.3f} s")
    print(" ".join(cells), flush=True)
    return OK


def main(given: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m pmulab.fit", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("scenario", nargs="?", default="gzip-record")
    parser.add_argument("--grid", action="store_true", help="also over HZ and the number of counters")
    return carry_out("pmulab.fit", lambda: _print_table(parser.parse_args(given)))


def _print_table(given: argparse.Namespace) -> int:
    """All fits; the exit status: is there one of the scenario as it is? Raises UserError."""
    trial = Trial(given.scenario)
    start = Numbers(Decimal("1.25"), Decimal(1))
    _print_head(trial)
    status = _print_row(trial, "as the scenario has it", start)
    if given.grid:
        for hz in GRID_HZ:
            for counters in GRID_COUNTERS:
                overrides = (
                    f"guest.hz={hz}",
                    f"host.hz={hz}",
                    f"guest.counters={counters}",
                    f"machine.counters={counters}",
                )
                varied = Trial(given.scenario, overrides, GRID_SHARE)
                _print_row(varied, f"HZ {hz}, {counters} counters", start)  # that there is none is what it tells
    if named := assumed_costs(trial.runs):
        print(f"\n{named}")
    return status


def _print_head(trial: Trial) -> None:
    print(f"{'':<24} {'fitted:':>8} {'':>11} {OTHER + ':':>11} {'':>8} {'':>11} {BASE + ':':>11}")
    print(f"{'':<24} {'ipc':>8} {'perf_factor':>11}" + 2 * f" {'elapsed':>11} {'off':>8} {'sys':>11}")
    cells = [f"{'published':<24} {'':>8} {'':>11}"]
    for design in (OTHER, BASE):
        system = f"{trial.system[design]:.3f} s" if design in trial.system else ""
        cells.append(f"{trial.elapsed[design]:>9.3f} s {'':>8} {system:>11}")
    print(" ".join(cells), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
