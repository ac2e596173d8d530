"""All handoffs, one after the other, by guests and hosts that are processes: what they give and break is the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.handoff.ownership import play
from tests.handoff.transitions import all_of_them

RIGHT = ("partitioned", "mediated")
BREAKING = ("partitioned-v8", "raw")


@pytest.mark.parametrize("design", [*RIGHT, *BREAKING])
async def test_over_grpc_a_handoff_gives_and_breaks_what_it_does_embedded(tmp_path: Path, design: str) -> None:
    of = all_of_them()
    embedded, processes = [
        await play(tmp_path, of.steps, design, where, guests=of.guests, pcpus=of.pcpus)
        for where in ("embedded", "processes")
    ]
    assert processes.steps == embedded.steps
    assert processes.violations == embedded.violations
    assert (not embedded.violations) is (design in RIGHT)
