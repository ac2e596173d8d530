"""perf record on the host has a process that its ring buffers wake (perf_output_wakeup, Linux 6.12)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

import pmulab
from pmulab import scenario
from services.embedded import Embedded
from tests.repeatability.test_restored import finished
from tests.repeatability.worlds import after

RECORD = """
[machine]
core = "ten-counters"
[[host.perf]]
verb = "record"
frequency = 20000
pcpu = 0
events = ["cycles", "instructions", "branches", "L1-dcache-loads"]
[[guest]]
pin = [0]
counters = 4
[[guest.task]]
workload = "gzip-text"
seconds = 0.3
"""
HOG = """
[[host.task]]
workload = "sqlite"
seconds = 0.02
pcpu = 0
"""
PAGES = 256 * 1024 // 4096  # at each wake-up


def run(tmp_path: Path, text: str = RECORD, **overrides: Any) -> pmulab.Run:
    path = tmp_path / "record.toml"
    path.write_text(text)
    settings = {key.replace("__", "."): value for key, value in overrides.items()}
    (one,) = pmulab.run(path, designs=["partitioned"], overrides=settings).runs
    return one


def wakes(of: pmulab.Run) -> int:
    """Half a buffer at a time is 5,461 records of 48 bytes."""
    return sum(event.samples for event in of.host.events) * 48 // (256 * 1024)


def test_each_wake_up_costs_the_vcpu_a_put_and_a_load(tmp_path: Path) -> None:
    recorded = run(tmp_path)
    assert wakes(recorded) >= 3
    (puts,), (loads,) = recorded.guests[0].vcpu_put, recorded.guests[0].vcpu_load
    assert puts.times == wakes(recorded)
    assert loads.times == wakes(recorded) + 1  # and at the beginning
    by_cost = recorded.bill.host_by_cost
    pages = round(by_cost["perf_reader_page"] / 1e-6)
    assert PAGES * wakes(recorded) <= pages <= (PAGES + 3) * wakes(recorded)
    assert by_cost["perf_reader"] > 0
    assert not any(event.lost for event in recorded.host.events)


def test_on_an_idle_pcpu_beside_it_costs_the_vcpu_nothing(tmp_path: Path) -> None:
    recorded = run(tmp_path, machine__pcpus=2)
    assert wakes(recorded) >= 3
    assert recorded.guests[0].vcpu_put[0].times == 0
    assert recorded.bill.host_by_cost["perf_reader_page"] > 0


def test_a_session_that_counts_wakes_nobody(tmp_path: Path) -> None:
    counted = run(tmp_path, RECORD.replace("record", "stat").replace("frequency = 20000", ""))
    assert counted.bill.host_by_cost["perf_reader"] == 0
    assert counted.guests[0].vcpu_put[0].times == 0


def test_a_reader_that_comes_too_late_loses_what_has_no_room(tmp_path: Path) -> None:
    """Behind 40 busy tasks it waits for some 160 ms: PERF_RECORD_LOST, a cause of its own in the error."""
    late = run(tmp_path, RECORD + HOG * 40)
    assert sum(event.lost for event in late.host.events) > 1000
    for event in late.host.events:
        assert event.error is not None
        assert event.scaled is not None
        assert event.deviation is not None
        assert event.error.lost < 0
        parts = [getattr(event.error, part) for part in event.error.__dataclass_fields__]
        assert sum(parts) == event.scaled + event.error.lost - event.truth
        assert event.deviation == pytest.approx(sum(parts) / event.truth)


def test_a_smaller_buffer_wakes_more_often_and_rounds_up(tmp_path: Path) -> None:
    """perf record -m."""
    small = run(tmp_path, host__perf__mmap_pages=24)
    assert small.guests[0].vcpu_put[0].times == pytest.approx(4 * wakes(run(tmp_path)), abs=4)
    with pytest.raises(pmulab.UserError, match="perf stat has no ring buffer"):
        run(tmp_path, RECORD.replace("record", "stat").replace("frequency = 20000", "mmap_pages = 1"))


async def test_a_restore_brings_back_the_readers_that_there_were(tmp_path: Path) -> None:
    path = tmp_path / "record.toml"
    path.write_text(RECORD)

    def lab() -> Embedded:
        (experiment,) = scenario.load(str(path), designs=["emulated"]).experiments
        return Embedded.of(experiment)

    running = lab()
    beginning = orjson.dumps(running.state())
    while not any(reader.pages for reader in running.simulation.readers.known):
        await after(running, 1)
    amid = orjson.dumps(running.state())
    expected = await finished(running)
    running.restore(orjson.loads(beginning))
    assert not any(reader.ran for reader in running.simulation.readers.known)
    assert (await finished(running))["digest"] == expected["digest"]
    for restored in (running, lab()):
        restored.restore(orjson.loads(amid))
        assert orjson.dumps(restored.state()) == amid
        assert (await finished(restored))["digest"] == expected["digest"]
