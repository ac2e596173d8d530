"""The fit over what the publications leave open: HZ, the number of the guest's counters, and costs that are assumed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from pmulab.fit import predictions
from pmulab.fit.predictions import Prediction
from pmulab.fit.solution import fit
from pmulab.fit.trial import BASE, OTHER, NoFitError, Numbers, Times, Trial
from services.errors import UserError

HZ = (100, 250, 1000)
COUNTERS = (6, 8, 10)
SHARE = 4  # a quarter of the work: what is fitted are rates
# Costs that nobody has measured, within what the sources allow (services/costs.toml): one changed at a time.
COSTS = {
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
    "irqs off 2 x 20 %": ("machine.exit_irqs_off={out=0.2, into=0.2}",),
}
AGREES = 0.1  # relative deviation up to which a prediction is said to agree


@dataclass(frozen=True, slots=True)
class Setting:
    """One combination."""

    hz: int
    counters: int
    costs: str

    @property
    def name(self) -> str:
        return f"HZ {self.hz}, {self.counters} counters, {self.costs}"

    @property
    def overrides(self) -> tuple[str, ...]:
        """As settings of a scenario."""
        hz, counters = self.hz, self.counters
        return (f"guest.hz={hz}", f"host.hz={hz}", f"guest.counters={counters}", *COSTS[self.costs])


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one setting: the fit and what it predicts, or why there is none."""

    setting: Setting
    numbers: Numbers | None = None
    times: dict[str, Times] | None = None
    predicted: Prediction | None = None
    problem: str = ""


def settings() -> list[Setting]:
    return [Setting(hz, counters, costs) for costs in COSTS for hz in HZ for counters in COUNTERS]


def rows(scenario: str, start: Numbers) -> Iterator[Row]:
    """A row for each setting, in order: as many at once as there are cores. A fit under changed costs starts from the
    one with those shipped, if there is one."""
    ignored = (signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for who asks for the rows, and ends the pool
    shipped: dict[tuple[int, int], Numbers] = {}
    with multiprocessing.Pool(len(os.sched_getaffinity(0)), signal.signal, ignored) as pool:
        for changed in (False, True):
            of = [setting for setting in settings() if bool(COSTS[setting.costs]) == changed]
            starts = [shipped.get((setting.hz, setting.counters), start) for setting in of]
            for found in pool.imap(partial(_row, scenario), zip(starts, of, strict=True)):
                if found.numbers is not None and not changed:
                    shipped[found.setting.hz, found.setting.counters] = found.numbers
                yield found


def _row(scenario: str, of: tuple[Numbers, Setting]) -> Row:
    return row(scenario, *of)


def row(scenario: str, start: Numbers, setting: Setting) -> Row:
    """Fit and predict in this process."""
    trial = Trial(scenario, setting.overrides, SHARE, jobs=1)
    try:
        numbers, times = fit(trial, start)
    except NoFitError as error:
        return Row(setting, problem=f"no fit ({error})")
    if numbers.kernel_share is None:
        return Row(setting, numbers, times)
    overrides = [*setting.overrides, f"machine.perf_factor={numbers.perf_factor}"]
    try:
        return Row(setting, numbers, times, predictions.predict(overrides, OTHER, BASE, jobs=1))
    except UserError as error:
        return Row(setting, problem=f"no prediction ({error})")


def summary(found: Sequence[Row]) -> Iterator[str]:
    """Lines: how the settings agree with what was published."""
    predicted = [(row.setting, row.predicted) for row in found if row.predicted is not None]
    if predicted:
        yield from _agreement(predicted)
        yield from _nearest(predicted)


def _agreement(found: Sequence[tuple[Setting, Prediction]]) -> Iterator[str]:
    """Which settings predict both numbers, and between what these lie as an assumed cost changes."""
    measured = predictions.published(OTHER, BASE)
    yield ""
    head = f"{'over all costs':<24} {'specint':>20} {'host kernel':>20} {BASE:>20}"
    yield f"{head}  specint and the emulated host kernel within {AGREES:.0%}"
    for hz, counters in dict.fromkeys((setting.hz, setting.counters) for setting, _ in found):
        of = [(setting, one) for setting, one in found if (setting.hz, setting.counters) == (hz, counters)]
        ranges = [
            _range([one.longer for _, one in of]),
            *(_range([one.kernel[n] for _, one in of]) for n in (0, 1)),
        ]
        agreeing = [setting.costs for setting, one in of if one.agrees(measured, AGREES)]
        cells = " ".join(f"{text:>20}" for text in ranges)
        yield f"{f'HZ {hz}, {counters} counters':<24} {cells}  {'; '.join(agreeing) or 'none'}"


def _nearest(found: Sequence[tuple[Setting, Prediction]]) -> Iterator[str]:
    """Which HZ and number of counters predict best, under each set of costs: how far this hangs on an assumed cost."""
    measured = predictions.published(OTHER, BASE)
    yield ""
    yield f"{'nearest setting':<24} {'':<20} {'specint':>12} {'host kernel':>12} {BASE:>16}"
    for costs in COSTS:
        of = [(setting, one) for setting, one in found if setting.costs == costs]
        if not of:
            yield f"{costs:<24} no fit"
            continue
        setting, nearest = min(of, key=lambda pair: pair[1].distance(measured))
        cells = f"{nearest.longer:>+10.2f} % {nearest.kernel[0]:>10.2f} % {nearest.kernel[1]:>14.2f} %"
        yield f"{costs:<24} {f'HZ {setting.hz}, {setting.counters} counters':<20} {cells}"


def _range(numbers: Sequence[float]) -> str:
    return f"{min(numbers):.2f} to {max(numbers):.2f} %"
