"""The fit of three numbers to three published times: base speed, the factor on the software costs of perf, and the
share of the own time of the program in its kernel.

    python -m pmulab.fit [SCENARIO] [--grid]

A guest that works for U seconds in T seconds works for the share U / T of its time. The share is linear in the
factor f, because every interrupt, rotation and tick recurs at a rate and costs something plus f times something:
U / T = a + b f. Two runs per design give a and b; the published times of both designs then give f, and U, which is the
base speed. Throttling bends the line, so the fit is repeated around what it found. The share in the kernel follows from
the system time of the partitioned design, to which it is nearly proportional; that of the emulated one is a prediction.

What was fitted to one benchmark then predicts two others (`pmulab.predictions`).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from pmulab import predictions, scenario, unexplained
from pmulab.batch import run_designs
from pmulab.command import Parser, carry_out
from pmulab.exit_status import FAILED, OK
from pmulab.predictions import Prediction
from pmulab.report import assumed_costs
from services.errors import UserError
from services.result import Run

BASE, OTHER = "partitioned-v1", "emulated-6.15"  # the base speed follows from the first, the factor from both
GRID_HZ = (100, 250, 1000)
GRID_COUNTERS = (6, 8, 10)
GRID_SHARE = 4  # the grid runs a quarter of the work: what is fitted are rates
# Costs that nobody has measured, within what the sources allow (services/costs.toml): one changed at a time.
GRID_COSTS = {
    "costs as shipped": (),
    "release/create 1 us": ("machine.cost.perf_release_create=1000 ns",),
    "release/create 10 us": ("machine.cost.perf_release_create=10000 ns",),
    "calls x 2": tuple(
        f"machine.cost.{name}={2 * ns} ns"
        for name, ns in (("perf_call", 200), ("event_out", 100), ("event_in", 120), ("perf_read", 200))
    ),
    "traps 306 ns": ("machine.cost.exit_full_sysreg=306 ns",),
    "traps 451 ns": ("machine.cost.exit_full_sysreg=451 ns",),
    "MRS and MSR x 3": ("machine.cost.mrs=6 ns", "machine.cost.msr=12 ns"),
}
STEPS = 3
CLOSE = 0.002  # relative deviation at which repeating ends
MEETS = 0.01  # relative deviation up to which a published time is met
FACTORS = (0.2, 5.0)  # on the software costs of perf: beyond, they are no longer those of that code
AGREES = 0.1  # relative deviation up to which a prediction is said to agree
NAME = 44  # characters of a setting's name
CLOSE_SYSTEM = 0.03  # of the system time, which comes in whole ticks


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


@dataclass(frozen=True, slots=True)
class Line:
    """The share of its time that the guest works under one design, over the perf factor: a + b f."""

    a: float
    b: float


class NoFitError(Exception):
    """No base speed and factor, neither negative, meet both published times, with a factor within FACTORS."""


class Trial:
    """Runs of a scenario with the numbers left open; `share` divides its work, and times are multiplied by it."""

    elapsed: Mapping[str, float]
    system: Mapping[str, float] = {}

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
        overrides = [*self._overrides, *numbers.overrides()]
        result = run_designs(scenario.load(self._name, designs=(BASE, OTHER), overrides=overrides))
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
    found = _fit_elapsed(trial, start)
    wanted = trial.system.get(BASE)
    for _ in range(STEPS):
        numbers, times = found
        if wanted is None or numbers.kernel_share is None or not times[BASE].system:
            break
        if abs(times[BASE].system / wanted - 1) < CLOSE_SYSTEM:
            break
        share = _rounded(float(numbers.kernel_share) * wanted / times[BASE].system)
        found = _fit_elapsed(trial, replace(numbers, kernel_share=share))
    return found


def _fit_elapsed(trial: Trial, start: Numbers) -> tuple[Numbers, dict[str, Times]]:
    """Base speed and factor."""
    first = (start, trial.run(start))
    guess = replace(start, perf_factor=start.perf_factor * 2)
    if _deviation(trial, first[1]) < CLOSE:
        return first
    for _ in range(STEPS):
        second = (guess, trial.run(guess))
        if _deviation(trial, second[1]) < CLOSE:
            break
        guess = _solve(trial, first, second)
        if _deviation(trial, first[1]) > _deviation(trial, second[1]):
            first = second
    else:
        second = (guess, trial.run(guess))
    factor, deviation = second[0].perf_factor, _deviation(trial, second[1])
    if not FACTORS[0] <= factor <= FACTORS[1]:
        raise NoFitError(f"factor {factor}, which is not between {FACTORS[0]} and {FACTORS[1]}")
    if deviation > MEETS:
        raise NoFitError(f"with factor {factor} a time is missed by {100 * deviation:.1f} %")
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
    return replace(
        numbers,
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


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one setting."""

    hz: int
    counters: int
    costs: str
    predicted: Prediction


def _print_row(
    trial: Trial, name: str, start: Numbers, overrides: Sequence[str] = ()
) -> tuple[Numbers, Prediction | None] | None:
    """One line of the table: the fit and what it predicts, or that there is none."""
    try:
        numbers, times = fit(trial, start)
    except NoFitError as error:
        print(f"{name:<{NAME}} no fit ({error})", flush=True)
        return None
    share = "" if numbers.kernel_share is None else f"{numbers.kernel_share}"
    cells = [f"{name:<{NAME}} {numbers.ipc:>8} {numbers.perf_factor:>11} {share:>6}"]
    for design in (OTHER, BASE):
        deviation = 100 * (times[design].elapsed / trial.elapsed[design] - 1)
        cells.append(f"{times[design].elapsed:>7.3f} s {deviation:>+6.2f} % {times[design].system:>6.3f} s")
    found = None
    if numbers.kernel_share is not None:
        found = predictions.predict([*overrides, f"machine.perf_factor={numbers.perf_factor}"], OTHER, BASE)
        cells.append(_prediction(found))
    print(" ".join(cells), flush=True)
    return numbers, found


def _prediction(found: Prediction) -> str:
    without = "" if found.without_stalls is None else f"{found.without_stalls:>+7.2f} %"
    kernel = " ".join(f"{share:>6.2f} %" for share in found.kernel)
    true = " ".join(f"{share:>6.2f} %" for share in found.true_kernel or ())
    return f"{found.longer:>+7.2f} % {without:>9} {kernel} {true}".rstrip()


def main(given: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m pmulab.fit", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("scenario", nargs="?", default="gzip-record")
    parser.add_argument("--grid", action="store_true", help="also over HZ, the number of counters and assumed costs")
    return carry_out("pmulab.fit", lambda: _print_table(parser.parse_args(given)))


def _print_table(given: argparse.Namespace) -> int:
    """All fits; the exit status: is there one of the scenario as it is? Raises UserError."""
    trial = Trial(given.scenario)
    start = Numbers(Decimal("1.25"), Decimal(1), Decimal("0.035") if trial.system.get(BASE) else None)
    _print_head(trial)
    own = _print_row(trial, "as the scenario has it", start)
    rows = []
    if given.grid:
        for hz in GRID_HZ:
            for counters in GRID_COUNTERS:
                for costs, of_costs in GRID_COSTS.items():
                    overrides = (f"guest.hz={hz}", f"host.hz={hz}", f"guest.counters={counters}", *of_costs)
                    varied = Trial(given.scenario, overrides, GRID_SHARE)
                    # That there is no fit is what it tells.
                    found = _print_row(varied, f"HZ {hz}, {counters} counters, {costs}", start, overrides)
                    if found is not None and found[1] is not None:
                        rows.append(Row(hz, counters, costs, found[1]))
    if rows:
        _print_agreement(rows)
        _print_nearest(rows)
    if own is not None and own[1] is not None:
        _print_lengths(own[0])
        print()
        for line in unexplained.lines([f"machine.perf_factor={own[0].perf_factor}"], OTHER, BASE):
            print(line, flush=True)
    if named := assumed_costs(trial.runs):
        print(f"\n{named}")
    return FAILED if own is None else OK


def _print_head(trial: Trial) -> None:
    head = f"{OTHER:>27} {BASE:>28}   specint, no stalls, host kernel, true"
    print(f"{'':<{NAME}} {'fitted:':>8} {'':>11} {'':>6} {head}")
    cells = [f"{'published':<{NAME}} {'ipc':>8} {'perf_factor':>11} {'kernel':>6}"]
    for design in (OTHER, BASE):
        system = f"{trial.system[design]:.3f} s" if design in trial.system else ""
        cells.append(f"{trial.elapsed[design]:>7.3f} s {'':>8} {system:>8}")
    if trial.system.get(BASE):
        cells.append(_prediction(predictions.published(OTHER, BASE)))
    print(" ".join(cells), flush=True)


def _print_agreement(rows: Sequence[Row]) -> None:
    """Which settings predict both numbers, and between what these lie as an assumed cost changes."""
    measured = predictions.published(OTHER, BASE)
    print(
        f"\n{'over all costs':<24} {'specint':>20} {'host kernel':>20} {BASE:>20}  within {AGREES:.0%} of the published"
    )
    for hz, counters in dict.fromkeys((row.hz, row.counters) for row in rows):
        found = [row for row in rows if (row.hz, row.counters) == (hz, counters)]
        ranges = [
            _range([row.predicted.longer for row in found]),
            *(_range([row.predicted.kernel[n] for row in found]) for n in (0, 1)),
        ]
        agreeing = [row.costs for row in found if row.predicted.agrees(measured, AGREES)]
        cells = " ".join(f"{text:>20}" for text in ranges)
        print(f"{f'HZ {hz}, {counters} counters':<24} {cells}  {'; '.join(agreeing) or 'none'}")


def _print_nearest(rows: Sequence[Row]) -> None:
    """Which HZ and number of counters predict best, under each set of costs: how far this hangs on an assumed cost."""
    measured = predictions.published(OTHER, BASE)
    print(f"\n{'nearest setting':<24} {'':<20} {'specint':>12} {'host kernel':>12} {BASE:>16}")
    for costs in dict.fromkeys(row.costs for row in rows):
        nearest = min((row for row in rows if row.costs == costs), key=lambda row: row.predicted.distance(measured))
        found = nearest.predicted
        cells = f"{found.longer:>+10.2f} % {found.kernel[0]:>10.2f} % {found.kernel[1]:>14.2f} %"
        print(f"{costs:<24} {f'HZ {nearest.hz}, {nearest.counters} counters':<20} {cells}")


def _range(numbers: Sequence[float]) -> str:
    return f"{min(numbers):.2f} to {max(numbers):.2f} %"


def _print_lengths(numbers: Numbers) -> None:
    """specint over the length of the run: does its result converge?"""
    print(f"\n{'specint, work of':<24} {'longer by':>12} {'sys ' + OTHER:>20} {'sys ' + BASE:>20}", flush=True)
    for seconds, longer, *system in predictions.lengths([f"machine.perf_factor={numbers.perf_factor}"], OTHER, BASE):
        shares = " ".join(f"{share:>18.2f} %" for share in system)
        print(f"{f'{seconds} s':<24} {longer:>+10.2f} % {shares}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
