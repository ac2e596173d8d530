"""An idle CPU that loses its power, under each design: nothing of a guest or of the host's events is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

import pmulab
from pmulab import Event, Run, scenario
from services.embedded import Embedded
from services.registers import MDCR_EL2, MDCR_EL2_HPMN, PMCR_EL0

TEXT = """
[machine]
core = "neoverse-v3"
[host]
powerdown_residency_us = 1000
[kvm]
halt_poll_ns = 0
[[host.perf]]
verb = "stat"
events = "cycles:H,instructions:H"
[[guest]]
pin = [0]
counters = 3
[[guest.task]]
workload = "gzip-random"
seconds = 0.003
repeat = 5
sleep_ms = 8
[guest.task.perf]
verb = "stat"
events = "cycles,instructions:u,branches:u"
"""
DESIGNS = ["emulated", "partitioned", "partitioned-v1", "partitioned-v4", "partitioned-v8"]


def run_of(tmp_path: Path, design: str, **settings: int) -> Run:
    path = tmp_path / "own.toml"
    path.write_text(TEXT)
    (run,) = pmulab.run(
        path, designs=[design], overrides={f"host.{key}": value for key, value in settings.items()}
    ).runs
    return run


def counts(events: tuple[Event, ...]) -> list[int | None]:
    return [event.count for event in events]


@pytest.mark.parametrize("design", DESIGNS)
def test_a_guest_counts_what_it_would_have_counted(tmp_path: Path, design: str) -> None:
    """A blocked vCPU has been put before its CPU idles; vcpu_load writes all that the core has lost."""
    powered, down = run_of(tmp_path, design, powerdown_residency_us=0), run_of(tmp_path, design)
    assert down.digest != powered.digest
    assert down.guests[0].events[0].running == 1
    assert counts(down.guests[0].events) == counts(powered.guests[0].events)


def test_what_nobody_saves_is_lost(tmp_path: Path) -> None:
    """Under `raw` a guest's registers stay on the CPU: they do not survive its power."""
    guest = TEXT[TEXT.index("[[guest]]") : TEXT.index("[guest.task.perf]")].replace("counters = 3\n", "")
    path = tmp_path / "own.toml"
    path.write_text(guest + '[[guest.perf]]\nverb = "stat"\nevents = "cycles"\n')
    (down,), (powered,) = (
        pmulab.run(path, designs=["raw"], overrides={"host.powerdown_residency_us": residency}).runs
        for residency in (1000, 0)
    )
    (lost, *_), (kept, *_) = down.guests[0].events, powered.guests[0].events
    assert lost.count is not None
    assert kept.count is not None
    assert abs(lost.count - lost.truth) > lost.truth, "the counter restarted from 0 under its driver"
    assert kept.count == pytest.approx(kept.truth, rel=0.01)


def test_the_host_s_events_go_on(tmp_path: Path) -> None:
    for event in run_of(tmp_path, "partitioned,reservation=static").host.events:
        assert event.running == 1
        assert event.count == pytest.approx(event.truth, rel=0.06)  # handlers while the counters stand are most of it


@pytest.mark.parametrize("design", DESIGNS)
async def test_the_core_comes_back_as_it_was_reset_and_the_driver_resets_it_again(tmp_path: Path, design: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(TEXT)
    (of,) = scenario.load(str(path), designs=[design]).experiments
    lab = Embedded.of(of)
    simulation = lab.simulation
    machine, (pcpu,) = simulation.board.machine, simulation.pcpus
    machine.observe(True)
    resets = writes = 0
    while simulation.working:
        idle = pcpu.rq.current is None and not pcpu.rq.waiting
        machine.observed()
        state = lab.state() if idle and not resets else None
        await simulation.step()
        if not idle:
            continue
        seen = [row[4] for row in machine.observed() if row[3] <= 1]
        if MDCR_EL2 not in seen:
            continue
        resets += 1
        writes += seen.count(PMCR_EL0)
        assert machine.peek(0, MDCR_EL2) & MDCR_EL2_HPMN == 6, "HPMN is N again: no vCPU is loaded"
        if state is not None:  # from before the core went down
            other = Embedded.from_state(of, state)
            await other.simulation.step()
            assert other.simulation.board.machine.digest() == machine.digest()
            assert other.host.state() == lab.host.state()
    assert resets >= 4
    assert writes >= resets


def test_what_takes_power_up_delays_what_woke_it(tmp_path: Path) -> None:
    soon, late = (run_of(tmp_path, "emulated", powerdown_exit_us=exit_us) for exit_us in (0, 300))
    assert late.virtual_seconds - soon.virtual_seconds == pytest.approx(4 * 300e-6, rel=0.3)
    assert late.time.idle - soon.time.idle == pytest.approx(4 * 300e-6, rel=0.3)
