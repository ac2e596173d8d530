"""Ours beside published numbers: of the first guest's run, and of the host's CPU time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pmulab.designs import label
from services.experiment import DesignSpec
from services.result import Published, Run

GUEST_TIMES = (("real", "elapsed_seconds"), ("user", "user_seconds"), ("sys", "system_seconds"))

# What mpstat prints, in per cent of all that it prints.
HOST_SHARES: tuple[tuple[str, str, Callable[[Run], float]], ...] = (
    ("host kernel", "host_kernel_percent", lambda run: run.cputime.host_kernel),
    ("guest", "guest_percent", lambda run: run.cputime.guest),
)

Rows = list[list[str]]


def fitted(runs: Sequence[Run], kind: str) -> bool:
    """Were the published numbers of this kind what the scenario's fitted numbers were fitted to, all of them?"""
    found = [run.published for run in runs if run.published is not None and getattr(run.published, kind) is not None]
    return bool(found) and all(_is_fitted(published, kind) for published in found)


def _is_fitted(published: Published, kind: str) -> bool:
    """With another setting than the scenario's, what comes out is a prediction."""
    return kind in published.fitted and not published.changed


def changed(runs: Sequence[Run]) -> str:
    """By what the runs differ from what was published, a line; or nothing."""
    found = next((run.published.changed for run in runs if run.published is not None), ())
    return "Published was another setting: here --set " + " --set ".join(found) if found else ""


def rows(runs: Sequence[Run]) -> Rows:
    """A table's rows, a column for each run: first what is predicted, then what was fitted."""
    base = next((run for run in runs if run.published is not None and _is(run, run.published.relative_to)), None)
    relative = any(run.published is not None and run.published.relative_to for run in runs)
    if relative and base is None:
        return []  # the design that the others are measured by has not been run
    found: Rows = []
    for name, kind in sorted(GUEST_TIMES, key=lambda time: fitted(runs, time[1])):
        numbers = _numbers(runs, kind)
        if any(number is not None for number in numbers):
            found += _times(name, kind, runs, numbers) if base is None else _ratios(name, kind, runs, numbers, base)
    for name, kind, seconds in HOST_SHARES:
        numbers = _numbers(runs, kind)
        if any(number is not None for number in numbers):
            ours = [100 * seconds(run) / run.printed if run.printed else 0.0 for run in runs]
            found.append([f"{name}, predicted", *map(_percent, ours)])
            found.append(["  published", *map(_percent, numbers)])
    return found


def _is(run: Run, name: str) -> bool:
    return name == label(DesignSpec(run.design.name, run.design.axes))


def _numbers(runs: Sequence[Run], kind: str) -> list[float | None]:
    return [getattr(run.published, kind) if run.published else None for run in runs]


def _heading(name: str, kind: str, runs: Sequence[Run]) -> str:
    return f"{name}, {'fitted' if fitted(runs, kind) else 'predicted'}"


def _times(name: str, kind: str, runs: Sequence[Run], numbers: Sequence[float | None]) -> Rows:
    ours: list[float] = [getattr(run.guests[0], kind) for run in runs]
    alone = [not fitted(runs, kind) and run.published is not None and _is_fitted(run.published, kind) for run in runs]
    cells = [f"{'(fitted) ' if is_fitted else ''}{our:.3f} s" for our, is_fitted in zip(ours, alone, strict=True)]
    deviations = [
        f"{100 * (our - number) / number:+.1f} %" if number else "" for our, number in zip(ours, numbers, strict=True)
    ]
    return [
        [_heading(name, kind, runs), *cells],
        ["  published", *("" if number is None else f"{number:.3f} s" for number in numbers)],
        ["  deviation", *deviations],
    ]


def _ratios(name: str, kind: str, runs: Sequence[Run], numbers: Sequence[float | None], base: Run) -> Rows:
    """Of a run of another length than the published one: how much longer than the base, or the share of real."""
    if kind != "elapsed_seconds":
        ours = [100 * getattr(run.guests[0], kind) / run.guests[0].elapsed_seconds for run in runs]
        wholes = _numbers(runs, "elapsed_seconds")
        shares = [100 * a / b if a is not None and b else None for a, b in zip(numbers, wholes, strict=True)]
        return [[f"{name}, share of real", *map(_percent, ours)], ["  published", *map(_percent, shares)]]
    of_base = base.published
    assert of_base is not None
    ours = [100 * (run.guests[0].elapsed_seconds / base.guests[0].elapsed_seconds - 1) for run in runs]
    theirs = [_longer(number, of_base) for number in numbers]
    return [
        [f"{name}, against {of_base.relative_to}", *(f"{our:+.2f} %" for our in ours)],
        ["  published", *("" if longer is None else f"{longer:+.2f} %" for longer in theirs)],
    ]


def _longer(number: float | None, base: Published) -> float | None:
    """In per cent, than the base."""
    return 100 * (number / base.elapsed_seconds - 1) if number is not None and base.elapsed_seconds else None


def _percent(number: float | None) -> str:
    return "" if number is None else f"{number:.2f} %"
