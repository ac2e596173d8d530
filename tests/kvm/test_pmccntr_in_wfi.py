"""A core on which PMCCNTR_EL0 counts in WFI: the host's perf keeps off it, a guest has it (`avoid_pmccntr`)."""

from __future__ import annotations

from pathlib import Path

import pytest

import pmulab
from pmulab import Event, Run
from services.cores import load

SLEEPER = """
workload = "gzip-random"
seconds = 0.004
repeat = 3
sleep_ms = 8
"""
ON_HOST = f"""
[[host.task]]
{SLEEPER}
[[host.perf]]
verb = "stat"
events = "cycles"
"""
IN_GUEST = f"""
[[guest]]
pin = [0]
hz = 100
[[guest.task]]
{SLEEPER}
[[guest.perf]]
verb = "stat"
events = "cycles"
"""


def run_of(tmp_path: Path, text: str, design: str = "emulated", **settings: object) -> Run:
    path = tmp_path / "own.toml"
    path.write_text(text)
    settings = {"machine.core": "olympus", **{key.replace("__", "."): value for key, value in settings.items()}}
    (run,) = pmulab.run(path, designs=[design], overrides=settings).runs
    return run


def error_of(event: Event) -> float:
    assert event.count is not None
    return event.count / event.truth - 1


def test_olympus_is_such_a_core() -> None:
    assert load("olympus").spec.pmccntr_in_wfi
    assert not load("neoverse-v3").spec.pmccntr_in_wfi


def test_cycles_of_the_host_do_not_count_while_it_waits(tmp_path: Path) -> None:
    """armv8pmu_can_use_pmccntr: CPU_CYCLES has an event counter, of which there may be one too few then."""
    run = run_of(tmp_path, ON_HOST)
    assert run.time.idle > 0.01
    assert error_of(run.host.events[0]) == pytest.approx(0, abs=1e-3)
    seven = ON_HOST.replace('"cycles"', '"cycles,r1,r2,r3,r4,r5,r10"')
    assert all(event.running < 0.9 for event in run_of(tmp_path, seven).host.events)
    ordinary = run_of(tmp_path, seven, machine__pmccntr_in_wfi=False)
    assert all(event.running == 1 for event in ordinary.host.events)


def test_a_guest_that_waits_with_its_registers_loaded_counts_the_time(tmp_path: Path) -> None:
    """Under the partitioned design, whose guest has the register; a backing event of KVM's is on an event counter."""
    for policy, design, waits in (
        ("notrap", "partitioned", True),
        ("trap", "partitioned", False),  # it is put before the CPU idles
        ("notrap", "emulated", False),
    ):
        run = run_of(tmp_path, IN_GUEST, design, kvm__wfi_trap_policy=policy)
        (event,) = run.guests[0].events
        assert not [one for one in run.violations if not one.declared], (policy, design)
        if waits:
            assert event.count == pytest.approx(event.truth + run.time.idle * 3e9, rel=0.01)
        else:
            assert error_of(event) == pytest.approx(0, abs=0.01), (policy, design)
    run = run_of(tmp_path, IN_GUEST, "partitioned", kvm__wfi_trap_policy="notrap", machine__pmccntr_in_wfi=False)
    assert error_of(run.guests[0].events[0]) == pytest.approx(0, abs=0.01)


def test_a_wfi_that_does_not_trap_costs_no_load_and_its_time_is_the_guests_to_the_host(tmp_path: Path) -> None:
    """kvm_vcpu_should_clear_twi, Linux 6.12."""
    trapped, waits = (
        run_of(tmp_path, IN_GUEST, "partitioned", kvm__wfi_trap_policy=policy, kvm__halt_poll_ns=0)
        for policy in ("trap", "notrap")
    )
    assert trapped.kvm.swaps.loads > waits.kvm.swaps.loads == 1
    assert waits.time.idle > 0.01
    assert waits.cputime.idle < 0.001


def test_pmccntr_of_a_guest_wakes_it(tmp_path: Path) -> None:
    """A sampling event overflows while its guest waits; the wait ends there, wherever the host's tick is."""
    text = IN_GUEST.replace('verb = "stat"', 'verb = "record"\nperiod = 3000000').replace(
        "[[guest]]", "[host]\nhz = 100\n[[guest]]"
    )
    runs = [
        run_of(tmp_path, text, "partitioned", kvm__wfi_trap_policy="notrap", machine__pmccntr_in_wfi=counts)
        for counts in (True, False)
    ]
    counting, standing = (run.guests[0].events[0] for run in runs)
    assert counting.samples > standing.samples + 14  # of 16 ms of waiting, one each ms
