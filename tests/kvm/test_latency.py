"""Interrupt latency is from the line's rise to the handler that owns the overflow, and of no other overflow."""

from __future__ import annotations

import pytest
import trio

from pmulab import scenario
from services import embedded

SECOND_NS = 10**9


@pytest.mark.parametrize("design", ["emulated", "partitioned"])
def test_a_flag_that_the_guest_clears_before_its_handler_makes_no_later_interrupt_late(design: str) -> None:
    # Rotation stops counters every tick, and now and then one that has just overflowed.
    (experiment,) = scenario.load("two-vms", designs=[design]).experiments
    plain = trio.run(embedded.run, experiment)
    latency = plain["guests"][0]["vcpus"][0]["interrupt_latency"]
    assert latency["times"] > 100
    assert latency["max"] * SECOND_NS // experiment.frequency_hz < 10_000
