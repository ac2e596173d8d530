"""What does not fit of the published numbers: each statement stands with the figures that it rests on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pmulab.fit import unexplained
from pmulab.fit.trial import BASE, OTHER


def test_the_published_figures_and_those_of_runs_stand_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(asleep: bool) -> Any:
        guest = SimpleNamespace(system_seconds=0.5, elapsed_seconds=10.0)
        time = SimpleNamespace(total=3.02 if asleep else 1.0, idle=2.0 if asleep else 0.0)
        cputime = SimpleNamespace(guest=6.0, host_kernel=3.0)
        return SimpleNamespace(guests=[guest], time=time, cputime=cputime, printed=10.0, host=SimpleNamespace(irq=1.0))

    def both(name: str, overrides: list[str], other: str, base: str) -> tuple[Any, Any]:
        one = run("guest.task.sleep_ms=1" in overrides)
        return one, one

    monkeypatch.setattr(unexplained, "runs", both)
    text = "\n".join(unexplained.lines([], OTHER, BASE))
    assert "rises by 208 s of the 263 s" in text  # 224.45 - 15.98 of 3789.16 - 3525.67
    assert "at 100 us each it would take 550 a second" in text  # 0.02 s for 200; 208.47 / 3789.16 / 100 us
    assert "9.2 and 8.0 % are neither" in text  # 100 - 34.96 - 55.85, 100 - 0.97 - 91.06
    rows = [line.split() for line in text.splitlines()]
    assert ["vtime", "0.500", "0.500", "5.00", "5.00"] in rows
    assert ["vtime+irq", "60.00", "60.00", "30.00", "30.00", "10.00", "10.00"] in rows
