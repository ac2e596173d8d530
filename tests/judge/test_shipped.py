"""No shipped scenario breaks an invariant that its designs do not declare to give up, nor it lists as known of them."""

from __future__ import annotations

import pytest

from pmulab import scenario
from pmulab.designs import label
from pmulab.embedded import run_embedded
from tests.repeatability.recorded import SHORTER


@pytest.mark.parametrize("name", sorted(scenario.shipped()))
def test_a_shipped_scenario_shows_what_it_says_and_ends_with_0(name: str) -> None:
    loaded = scenario.load(name, overrides=SHORTER.get(name, ()))
    counted = {}
    for experiment in loaded.experiments:
        (run,) = run_embedded(experiment, lambda *_: None).runs
        counted[label(experiment.design)] = [
            f"{one.invariant} {one.kind}: {one.broken}" for one in run.violations if one.counts
        ]
    assert not any(counted.values()), counted
