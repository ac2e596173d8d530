"""`python -m pmulab.fit [SCENARIO] [--grid]`: the fit as a table, what it predicts, and what it does not explain."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from decimal import Decimal

from pmulab import fit as package
from pmulab.command import Parser, carry_out
from pmulab.exit_status import FAILED, OK
from pmulab.fit import grid, predictions, unexplained
from pmulab.fit.predictions import Prediction
from pmulab.fit.solution import fit
from pmulab.fit.trial import BASE, OTHER, NoFitError, Numbers, Times, Trial
from pmulab.report import assumed_costs

START = Numbers(Decimal("1.25"), Decimal(1))
KERNEL_SHARE = Decimal("0.035")  # likewise, where there is a system time to fit it to
NAME = 44  # characters of a setting's name


def main(given: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m pmulab.fit", description=(package.__doc__ or "").partition("\n\n")[0])
    parser.add_argument("scenario", nargs="?", default="gzip-record")
    parser.add_argument("--grid", action="store_true", help="also over HZ, the number of counters and assumed costs")
    return carry_out("pmulab.fit", lambda: _print_tables(parser.parse_args(given)))


def _print_tables(given: argparse.Namespace) -> int:
    """All fits; the exit status: is there one of the scenario as it is? Raises UserError."""
    trial = Trial(given.scenario)
    start = Numbers(START.ipc, START.perf_factor, KERNEL_SHARE if trial.system.get(BASE) else None)
    _print_head(trial)
    own = _print_own(trial, start)
    if given.grid:
        found = []
        for row in grid.rows(given.scenario, own or start):
            _print_row(row.setting.name, trial, row.numbers, row.times, row.predicted, row.problem)
            found.append(row)
        for line in grid.summary(found):
            print(line)
    if own is not None and own.kernel_share is not None:
        _print_lengths(own)
        _print_stress_lengths(own)
        print()
        for line in unexplained.lines([f"machine.perf_factor={own.perf_factor}"], OTHER, BASE):
            print(line, flush=True)
    if named := assumed_costs(trial.runs):
        print(f"\n{named}")
    return FAILED if own is None else OK


def _print_own(trial: Trial, start: Numbers) -> Numbers | None:
    """The fit of the scenario as it is."""
    name = "as the scenario has it"
    try:
        numbers, times = fit(trial, start)
    except NoFitError as error:
        _print_row(name, trial, problem=f"no fit ({error})")
        return None
    predicted = None
    if numbers.kernel_share is not None:
        predicted = predictions.predict([f"machine.perf_factor={numbers.perf_factor}"], OTHER, BASE)
    _print_row(name, trial, numbers, times, predicted)
    if predicted is not None:
        _print_deviations(trial, times, predicted)
    return numbers


def _print_head(trial: Trial) -> None:
    wide = 9 if trial.system.get(BASE) else 0
    head = f"{OTHER:>{27 + wide}} {BASE:>{28 + wide}}   specint, no stalls, host kernel, true"
    print(f"{'':<{NAME}} {'fitted:':>8} {'':>11} {'':>6} {head}")
    cells = [f"{'published':<{NAME}} {'ipc':>8} {'perf_factor':>11} {'kernel':>6}"]
    for design in (OTHER, BASE):
        system = f"{trial.system[design]:.3f} s" if design in trial.system else ""
        cells.append(f"{trial.elapsed[design]:>7.3f} s {'':>8} {system:>8}{' ' * 9 if system else ''}")
    if trial.system.get(BASE):
        cells.append(_prediction(predictions.published(OTHER, BASE)))
    print(" ".join(cells), flush=True)


def _print_row(
    name: str,
    trial: Trial,
    numbers: Numbers | None = None,
    times: Mapping[str, Times] | None = None,
    predicted: Prediction | None = None,
    problem: str = "",
) -> None:
    """One line: a fit, its times and how far they are off the published ones, what it predicts; or the `problem`."""
    if numbers is None or times is None:
        print(f"{name:<{NAME}} {problem}", flush=True)
        return
    share = "" if numbers.kernel_share is None else f"{numbers.kernel_share}"
    cells = [f"{name:<{NAME}} {numbers.ipc:>8} {numbers.perf_factor:>11} {share:>6}"]
    for design in (OTHER, BASE):
        deviation = 100 * (times[design].elapsed / trial.elapsed[design] - 1)
        cells.append(f"{times[design].elapsed:>7.3f} s {deviation:>+6.2f} % {times[design].system:>6.3f} s")
        if trial.system.get(design):
            cells.append(f"{100 * (times[design].system / trial.system[design] - 1):>+6.1f} %")
    if predicted is not None:
        cells.append(_prediction(predicted))
    print(" ".join(cells), flush=True)


def _prediction(found: Prediction) -> str:
    without = "" if found.without_stalls is None else f"{found.without_stalls:>+7.2f} %"
    kernel = " ".join(f"{share:>6.2f} %" for share in found.kernel)
    true = " ".join(f"{share:>6.2f} %" for share in found.true_kernel or ())
    return f"{found.longer:>+7.2f} % {without:>9} {kernel} {true}".rstrip()


def _print_lengths(numbers: Numbers) -> None:
    """specint over the length of the run: does its result converge?"""
    print(f"\n{'specint, work of':<24} {'longer by':>12} {'sys ' + OTHER:>20} {'sys ' + BASE:>20}", flush=True)
    for seconds, longer, *system in predictions.lengths([f"machine.perf_factor={numbers.perf_factor}"], OTHER, BASE):
        shares = " ".join(f"{share:>18.2f} %" for share in system)
        print(f"{f'{seconds} s':<24} {longer:>+10.2f} % {shares}", flush=True)


def _print_stress_lengths(numbers: Numbers) -> None:
    """Likewise the host's kernel while the guest records, which is found by ticks."""
    print(f"\n{'stress, work of':<24} {'host kernel ' + OTHER:>28} {'host kernel ' + BASE:>28}", flush=True)
    given = [f"machine.perf_factor={numbers.perf_factor}"]
    for seconds, *kernel in predictions.stress_lengths(given, OTHER, BASE):
        shares = " ".join(f"{share:>26.2f} %" for share in kernel)
        print(f"{f'{seconds} s':<24} {shares}", flush=True)


def _print_deviations(trial: Trial, times: Mapping[str, Times], found: Prediction) -> None:
    """Each prediction beside what was published, and how far off it is."""
    measured = predictions.published(OTHER, BASE)
    rows = [
        ("specint, longer by, %", measured.longer, found.longer, 0.0),
        (f"gzip sys, {OTHER}, s", trial.system[OTHER], times[OTHER].system, 0.0),
    ]
    for n, design in enumerate((OTHER, BASE)):
        error = found.kernel_error[n] if found.kernel_error is not None else 0.0
        rows.append((f"host kernel, {design}, %", measured.kernel[n], found.kernel[n], error))
    rows += [(f"guest, {design}, %", measured.guest[n], found.guest[n], 0.0) for n, design in enumerate((OTHER, BASE))]
    print(f"\n{'predicted':<32} {'published':>10} {'here':>10} {'off by':>10}")
    for what, published, here, error in rows:
        within = f"   ± {error:.1f} by the number of its ticks" if error else ""
        print(f"{what:<32} {published:>10.3f} {here:>10.3f} {100 * (here / published - 1):>+8.1f} %{within}")
    print(flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
