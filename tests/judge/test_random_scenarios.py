"""Whole scenarios by chance break no invariant, but for what their designs declare: `tests.judge.random_scenarios`."""

from __future__ import annotations

import pytest

from services.kvm.designs.limits import LIMITS, sets_registers, takes_sides_beside_writes, writes_running_counters
from tests.judge.random_scenarios import DESIGNS, counting, designs_of, experiment_of

SEEDS = range(20)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_invariant_is_broken(seed: int) -> None:
    for design in designs_of(seed):
        experiment = experiment_of(seed, design)
        if experiment is not None:
            assert [f"{design}: {one.invariant} {one.kind}: {one.broken}" for one in counting(experiment)] == []


def test_every_design_has_its_turn() -> None:
    assert {design for seed in SEEDS for design in designs_of(seed)} == set(DESIGNS)


# What the guests of a script do, or its VMM; Linux does neither.
OF_SCRIPTS = {writes_running_counters, takes_sides_beside_writes, sets_registers}


def test_the_limits_of_emulation_are_met_in_some_and_in_others_not() -> None:
    experiments = [experiment_of(seed, "emulated") for seed in range(100)]
    met = {limit.met for limit in LIMITS}
    for condition in met - OF_SCRIPTS:
        assert {condition(one) for one in experiments if one is not None} == {False, True}, condition.__name__
