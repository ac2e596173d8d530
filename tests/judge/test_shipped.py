"""No shipped scenario or example of steps breaks what its designs do not declare to give up, nor it lists as known."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmulab import scenario
from pmulab.designs import label
from pmulab.embedded import run_embedded
from tests.repeatability.recorded import SHORTER

EXAMPLES = (Path(__file__).parents[2] / "examples" / "steps").glob("*.toml")


@pytest.mark.parametrize(
    "name", [*sorted(scenario.shipped()), *map(str, sorted(EXAMPLES))], ids=lambda name: Path(name).stem
)
def test_a_scenario_shows_what_it_says_and_ends_with_0(name: str) -> None:
    loaded = scenario.load(name, overrides=SHORTER.get(name, ()))
    counted = {}
    for experiment in loaded.experiments:
        (run,) = run_embedded(experiment).runs
        counted[label(experiment.design)] = [
            f"{one.invariant} {one.kind}: {one.broken}" for one in run.violations if one.counts
        ]
    assert not any(counted.values()), counted
