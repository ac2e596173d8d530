"""Handoffs by guests and hosts that are processes: what they give and break is what it is embedded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.handoff.ownership import DESIGNS, Played, play
from tests.handoff.transitions import Transition, all_of_them

BREAKING = (*(f"partitioned-v{number}" for number in range(1, 10)), "raw")


async def over_grpc(directory: Path, of: Transition, design: str) -> Played:
    """What it gives, which is the same embedded."""
    embedded, processes = [
        await play(directory, of.steps, design, where, guests=of.guests, pcpus=of.pcpus)
        for where in ("embedded", "processes")
    ]
    assert processes == embedded
    return processes


@pytest.mark.parametrize("design", [*DESIGNS, "gunyah"])
async def test_over_grpc_each_transition_after_the_other_breaks_nothing(tmp_path: Path, design: str) -> None:
    """A topology for each design that is right in them, in which the same two VMs are put through all."""
    found = await over_grpc(tmp_path, all_of_them(), design)
    assert found.violations == ()


@pytest.mark.parametrize("design", BREAKING)
async def test_over_grpc_a_design_breaks_what_it_breaks_embedded(tmp_path: Path, design: str) -> None:
    found = await over_grpc(tmp_path, all_of_them(), design)
    assert found.violations
