"""`python -m pmulab.fit`: three numbers, so that three published times are met."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

import pmulab
from pmulab import exit_status, scenario
from pmulab.fit import __main__ as command
from pmulab.fit import grid
from pmulab.fit.grid import Row, Setting
from pmulab.fit.predictions import Prediction
from pmulab.fit.solution import CLOSE, fit
from pmulab.fit.trial import BASE, OTHER, NoFitError, Numbers, Times, Trial

PUBLISHED = '[published]\nsource = "x"\nelapsed_seconds = { "emulated-6.15" = 2, "partitioned-v1" = 1 }\n'

NUMBERS = Numbers(Decimal("1.25"), Decimal(1))


class Linear(Trial):
    """Runs whose time is a program's, over the share of it that interrupts leave: 1 - a - b times the factor."""

    def __init__(self, work: float, lines: dict[str, tuple[float, float]], elapsed: dict[str, float]) -> None:
        self.work = work
        self.lines = lines
        self.elapsed = elapsed

    def run(self, numbers: Numbers) -> dict[str, Times]:
        user = self.work / float(numbers.ipc)
        factor, share = float(numbers.perf_factor), float(numbers.kernel_share or 0)
        found = {}
        for design, (a, b) in self.lines.items():
            elapsed = user / (1 - a - b * factor - share)
            found[design] = Times(elapsed, user, share * elapsed)
        return found


def test_both_times_are_met_by_the_numbers_that_they_were_made_with() -> None:
    lines = {BASE: (0.03, 0.02), OTHER: (0.1, 0.4)}
    made = Linear(4.0, lines, {}).run(Numbers(Decimal("1.6"), Decimal("0.5")))
    trial = Linear(4.0, lines, {design: times.elapsed for design, times in made.items()})
    found, times = fit(trial, NUMBERS)
    assert found == Numbers(Decimal("1.6"), Decimal("0.5"))
    assert all(times[design].elapsed == pytest.approx(trial.elapsed[design], rel=CLOSE) for design in lines)


def test_the_share_in_the_kernel_is_that_with_which_the_system_time_is_met() -> None:
    lines = {BASE: (0.03, 0.02), OTHER: (0.1, 0.4)}
    made = Linear(4.0, lines, {}).run(Numbers(Decimal("1.6"), Decimal("0.5"), Decimal("0.04")))
    trial = Linear(4.0, lines, {design: times.elapsed for design, times in made.items()})
    trial.system = {BASE: made[BASE].system}
    found, _ = fit(trial, Numbers(Decimal("1.25"), Decimal(1), Decimal("0.01")))
    assert found == Numbers(Decimal("1.6"), Decimal("0.5"), Decimal("0.04"))


def test_a_fit_stands_though_the_share_that_it_leads_to_has_none() -> None:
    class Ends(Linear):
        def run(self, numbers: Numbers) -> dict[str, Times]:
            if numbers.kernel_share != share:
                raise NoFitError("a run fails")
            return super().run(numbers)

    share, lines = Decimal("0.01"), {BASE: (0.03, 0.02), OTHER: (0.1, 0.4)}
    made = Linear(4.0, lines, {}).run(Numbers(Decimal("1.6"), Decimal("0.5"), share))
    trial = Ends(4.0, lines, {design: times.elapsed for design, times in made.items()})
    trial.system = {BASE: 4 * made[BASE].system}
    found, _ = fit(trial, Numbers(Decimal("1.25"), Decimal(1), share))
    assert found == Numbers(Decimal("1.6"), Decimal("0.5"), share)


class Ticks(Linear):
    """Whose elapsed times are always met, and whose system times are what happened to be found."""

    found: tuple[float, ...] = (0.2, 0.06, 0.13, 0.12, 0.3, 0.05, 0.2)

    def run(self, numbers: Numbers) -> dict[str, Times]:
        system, *rest = self.found
        self.found = tuple(rest)
        return {design: Times(elapsed, 1.0, system) for design, elapsed in self.elapsed.items()}


def test_where_ticks_never_meet_the_system_time_the_nearest_fit_is_taken() -> None:
    trial = Ticks(4.0, {}, {BASE: 3.0, OTHER: 4.0})
    trial.system = {BASE: 0.11}
    _, times = fit(trial, replace(NUMBERS, kernel_share=Decimal("0.01")))
    assert times[BASE].system == 0.12


def test_times_that_no_factor_meets_have_no_fit() -> None:
    trial = Linear(4.0, {BASE: (0.03, 0.02), OTHER: (0.1, 0.4)}, {BASE: 3.0, OTHER: 2.0})
    with pytest.raises(NoFitError, match="factor -"):
        fit(trial, NUMBERS)


def test_a_factor_beyond_what_the_costs_can_be_is_no_fit() -> None:
    lines = {BASE: (0.03, 0.0), OTHER: (0.03, 0.01)}
    made = Linear(4.0, lines, {}).run(Numbers(Decimal("1.6"), Decimal(24)))
    trial = Linear(4.0, lines, {design: times.elapsed for design, times in made.items()})
    with pytest.raises(NoFitError, match=r"factor 24\.0000, which is not between 0\.2 and 5"):
        fit(trial, NUMBERS)


def test_a_factor_that_is_too_large_is_not_run_with() -> None:
    """The guest would hardly get on."""
    lines = {BASE: (0.03, 0.0), OTHER: (0.03, 0.01)}
    made = Linear(4.0, lines, {}).run(Numbers(Decimal("1.6"), Decimal(24)))
    trial = Linear(4.0, lines, {design: times.elapsed for design, times in made.items()})
    factors = [numbers.perf_factor for numbers in _asked(trial)]
    assert factors == [1, 2]
    twice = Linear(4.0, lines, {design: times.elapsed for design, times in trial.run(NUMBERS).items()})
    assert [numbers.perf_factor for numbers in _asked(twice, replace(NUMBERS, perf_factor=Decimal(4)))][:2] == [4, 2]


def _asked(trial: Linear, start: Numbers = NUMBERS) -> list[Numbers]:
    """What a fit has the trial run with."""
    asked = []

    class Asked(Linear):
        def run(self, numbers: Numbers) -> dict[str, Times]:
            asked.append(numbers)
            return super().run(numbers)

    with suppress(NoFitError):
        fit(Asked(trial.work, trial.lines, dict(trial.elapsed)), start)
    return asked


def test_a_fit_that_there_is_not_is_told_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slower = Linear(4.0, {BASE: (0.03, 0.02), OTHER: (0.1, 0.4)}, {BASE: 3.0, OTHER: 2.0})
    slower.system = {}
    monkeypatch.setattr(command, "Trial", lambda _: slower)
    assert command.main([]) == exit_status.FAILED
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("as the scenario has it"))
    assert "no fit (factor -" in line


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "no such file; give a path"),
        ('[[guest]]\n[[host.task]]\nworkload = "sha256"\n', "there is nothing to fit to; give [published]"),
        ('[[guest]]\n[[host.task]]\nworkload = "sha256"\n' + PUBLISHED, "its first guest has no task; add a"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    tmp_path: Path, document: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "scenario.toml"
    if document is not None:
        path.write_text(document)
    assert command.main([str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"pmulab.fit: {path}: {message}")
    assert printed.err.count("\n") == 1


def test_the_assumed_costs_of_its_runs_stand_below_a_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = Linear(4.0, {BASE: (0.03, 0.02), OTHER: (0.1, 0.4)}, {BASE: 3.0, OTHER: 3.8})
    line.runs = pmulab.run("quick", designs=["partitioned"], overrides={"guest.task.seconds": 0.01}, jobs=1).runs
    line.system = {}
    monkeypatch.setattr(command, "Trial", lambda _: line)
    command.main([])
    _, assumed = capsys.readouterr().out.split("\n\n")
    assert assumed.startswith("Costs charged here that nobody has measured\n")
    assert "  exit_full_sysreg: " in assumed


def test_the_grid_says_which_settings_agree_and_which_are_nearest_under_each_set_of_costs() -> None:
    def found(hz: int, costs: str, longer: float) -> Row:
        return Row(Setting(hz, 6, costs), predicted=Prediction(longer, (34.96, 0.5), (55.85, 91.06)))

    rows = [
        found(1000, "costs as shipped", 7.5),
        found(1000, "calls x 2", 9.0),
        found(250, "calls x 2", 2.0),
        Row(Setting(250, 6, "costs as shipped"), problem="no fit (factor -1)"),
    ]
    text = [" ".join(line.split()) for line in grid.summary(rows)]
    assert "HZ 1000, 6 counters 7.50 to 9.00 % 34.96 to 34.96 % 0.50 to 0.50 % costs as shipped" in text
    assert "HZ 250, 6 counters 2.00 to 2.00 % 34.96 to 34.96 % 0.50 to 0.50 % none" in text
    assert "calls x 2 HZ 1000, 6 counters +9.00 % 34.96 % 0.50 %" in text
    assert "traps 306 ns no fit" in text


def test_every_setting_of_the_grid_is_one_that_the_scenario_can_have() -> None:
    for setting in {setting.costs: setting for setting in grid.settings()}.values():
        experiment = scenario.load("gzip-record", designs=(BASE,), overrides=list(setting.overrides)).experiments[0]
        assert (experiment.host.hz, experiment.guests[0].counters) == (setting.hz, setting.counters)


def test_a_setting_that_no_factor_fits_is_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    slower = Linear(4.0, {BASE: (0.03, 0.02), OTHER: (0.1, 0.4)}, {BASE: 3.0, OTHER: 2.0})
    monkeypatch.setattr(grid, "Trial", lambda *_, **__: slower)
    row = grid.row("gzip-record", NUMBERS, Setting(100, 6, "calls x 2"))
    assert row.problem.startswith("no fit (factor -")
