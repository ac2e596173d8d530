"""The numbers with which published times are met."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

from pmulab.fit.trial import BASE, OTHER, NoFitError, Numbers, Times, Trial

STEPS = 3
SYSTEM_STEPS = 6
CLOSE = 0.002  # relative deviation at which repeating ends
MEETS = 0.01  # relative deviation up to which a published time is met
FACTORS = (0.2, 5.0)  # on the software costs of perf: beyond, they are no longer those of that code
CLOSE_SYSTEM = 0.03  # of the system time, which comes in whole ticks


@dataclass(frozen=True, slots=True)
class Line:
    """The share of its time that the guest works under one design, over the perf factor: a + b f."""

    a: float
    b: float


def fit(trial: Trial, start: Numbers) -> tuple[Numbers, dict[str, Times]]:
    """The fitted numbers, and the times that a run with them takes. Raises NoFitError.

    A system time comes in ticks, few of them: the nearest that was found may still be off, as the times tell. With a
    share of the kernel's that it leads to there may be no numbers any more.
    """
    found = nearest = _fit_elapsed(trial, start)
    wanted = trial.system.get(BASE)
    for _ in range(SYSTEM_STEPS):
        numbers, times = found
        if wanted is None or numbers.kernel_share is None or not times[BASE].system:
            break
        if abs(times[BASE].system - wanted) <= abs(nearest[1][BASE].system - wanted):
            nearest = found
        if abs(times[BASE].system / wanted - 1) < CLOSE_SYSTEM:
            break
        share = _rounded(float(numbers.kernel_share) * wanted / times[BASE].system)
        try:
            found = _fit_elapsed(trial, replace(numbers, kernel_share=share))
        except NoFitError:
            break
    return nearest


def _fit_elapsed(trial: Trial, start: Numbers) -> tuple[Numbers, dict[str, Times]]:
    """Base speed and factor."""
    first = (start, trial.run(start))
    if _deviation(trial, first[1]) < CLOSE:
        return first
    guess = replace(start, perf_factor=start.perf_factor * _towards(trial, first[1]))
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
    _refuse_beyond(factor)
    if deviation > MEETS:
        raise NoFitError(f"with factor {factor} a time is missed by {100 * deviation:.1f} %")
    return second


def _towards(trial: Trial, times: dict[str, Times]) -> Decimal:
    """By how much to change the factor for a second point: down where the emulated design takes too much longer."""
    ratio = times[OTHER].elapsed / times[BASE].elapsed
    return Decimal("0.5") if ratio > trial.elapsed[OTHER] / trial.elapsed[BASE] else Decimal(2)


def _refuse_beyond(factor: Decimal) -> None:
    if not FACTORS[0] <= factor <= FACTORS[1]:
        raise NoFitError(f"factor {factor}, which is not between {FACTORS[0]} and {FACTORS[1]}")


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
    if factor > FACTORS[1]:
        _refuse_beyond(_rounded(factor))  # at once: a guest that is interrupted all the time may never end
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
