"""What changes hands wrongly under posted versions, and what swaps nothing: exactly what is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.handoff.known import KNOWN, known_of
from tests.handoff.ownership import play
from tests.handoff.transitions import TRANSITIONS

POSTED = tuple(f"partitioned-v{number}" for number in range(1, 10))
DESIGNS = (*POSTED, "raw", "gunyah")


@pytest.mark.parametrize("transition", TRANSITIONS)
@pytest.mark.parametrize("design", DESIGNS)
async def test_the_judge_finds_what_a_design_is_known_for_and_nothing_else(
    tmp_path: Path, design: str, transition: str
) -> None:
    of = TRANSITIONS[transition]
    found = await play(tmp_path, of.steps, design, guests=of.guests, pcpus=of.pcpus)
    assert found.found == known_of(design, transition)


def test_what_is_known_is_of_designs_and_transitions_that_there_are() -> None:
    for known in KNOWN:
        designs = {f"partitioned-{name}" if name.startswith("v") else name for name in known.designs.split()}
        assert designs <= set(DESIGNS)
        assert set(known.transitions.split()) <= set(TRANSITIONS)
        assert known.why
