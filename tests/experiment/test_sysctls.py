"""What a kernel's perf sysctls change in a run."""

from __future__ import annotations

from pathlib import Path

import pytest

import pmulab
from pmulab import Event

GUEST = """
[[guest]]
pin = [0]
[[guest.task]]
workload = "gzip-random"
seconds = 0.04
[guest.task.perf]
verb = "record"
events = "instructions:u"
"""


def recorded(tmp_path: Path, session: str, **settings: int) -> Event:
    path = tmp_path / "record.toml"
    path.write_text(GUEST + session)
    (run,) = pmulab.run(path, overrides={f"guest.{key}": value for key, value in settings.items()}).runs
    return run.guests[0].events[0]


def test_the_sample_rate_throttles_what_has_a_period(tmp_path: Path) -> None:
    """__perf_event_account_interrupt: the event that takes max_samples_per_tick stands still until the next tick."""
    period = "period = 200000"
    free = recorded(tmp_path, period)
    held = recorded(tmp_path, period, perf_event_max_sample_rate=1000)
    assert free.samples > 400
    assert held.samples == pytest.approx(40, abs=4)  # four in each of ten ticks
    assert held.count is not None
    assert free.count is not None
    assert held.count < free.count / 5
    assert free.throttles == 0
    assert held.throttles == pytest.approx(held.samples / 4, abs=1)
    assert held.error is not None
    assert held.error.throttled == pytest.approx(held.count - held.truth, abs=held.truth / 1000)


def test_record_lowers_its_frequency_to_the_sample_rate(tmp_path: Path) -> None:
    """record_opts__config_freq."""
    asked = recorded(tmp_path, "frequency = 2000", perf_event_max_sample_rate=2000)
    assert recorded(tmp_path, "frequency = 100000", perf_event_max_sample_rate=2000) == asked


def test_the_share_of_time_lowers_the_sample_rate(tmp_path: Path) -> None:
    """perf_sample_event_took."""
    period = "period = 20000"
    lowered = recorded(tmp_path, period, perf_cpu_time_max_percent=1)
    assert lowered.samples < recorded(tmp_path, period, perf_cpu_time_max_percent=0).samples / 5
