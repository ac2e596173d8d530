"""Random worlds (`tests.kvm.random_runs`): nothing undeclared is found in them, and they are not vacuous."""

from __future__ import annotations

import pytest
import trio

from tests.kvm.random_runs import REFERENCE, judged, run
from tests.kvm.random_worlds import RandomWorld

RUNS = 100
NEVER = {  # by a design's nature
    "partitioned": {"I6"},  # no access of KVM's by PMSELR_EL0
    "emulated": {"I6"},
}


@pytest.mark.parametrize("design", REFERENCE)
def test_nothing_undeclared_is_found_and_each_invariant_could_be_broken(design: str) -> None:
    found = run(design, range(RUNS))
    assert found.undeclared == []
    assert set(found.not_exercised) == NEVER[design]
    assert found.windows["interrupt on its way"] > 0
    assert found.windows["view set by userspace"] > 0


def test_an_invariant_that_neither_reference_design_could_break_another_does() -> None:
    """B49: v6 and v7 swap counters by PMXEVCNTR_EL0 without an ISB behind PMSELR_EL0; v8 does not use it."""
    for design, broken in (("partitioned-v6", True), ("partitioned-v7", True), ("partitioned-v8", False)):
        found = run(design, range(5))
        of_kind = [one for _, one in found.undeclared if one.kind == "unsynchronised"]
        assert bool(of_kind) is broken
        assert ("I6" in found.not_exercised) is not broken
        assert all(one.invariant == "I6" and one.since is not None and one.since < one.cycle for one in of_kind)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("design", REFERENCE)
async def test_restored_at_any_step_the_judge_has_found_the_same(design: str, seed: int) -> None:
    """A machine's snapshot has the judge."""
    once, again = RandomWorld(seed, design).made(), RandomWorld(seed, design).made()
    for made in (once, again):
        while made.working and made.board.interactions < 500:
            await made.step()
            if made is again and not made.entered:
                machine = made.board.machine
                machine.restore(machine.state())
    assert again.board.machine.digest() == once.board.machine.digest()
    assert again.judging.found() == once.judging.found()


def test_a_world_follows_from_its_seed() -> None:
    assert trio.run(judged, RandomWorld(3, "partitioned")) == trio.run(judged, RandomWorld(3, "partitioned"))
    assert RandomWorld(3, "partitioned").experiment() != RandomWorld(4, "partitioned").experiment()
