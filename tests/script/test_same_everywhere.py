"""A script gives the same embedded and in processes, and however often it is saved and restored on its way."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio

from pmulab import scenario, topology
from services import embedded
from services.embedded import Embedded
from services.experiment import Experiment

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "steps").glob("*.toml"))
SCRIPTS = [*map(str, EXAMPLES), "handoff"]


def experiments(script: str) -> tuple[Experiment, ...]:
    """One for each design of the script's own."""
    loaded = scenario.load(script)
    assert not loaded.refused
    return loaded.experiments


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: Path(script).stem)
async def test_in_processes_it_has_the_digest_that_it_has_embedded(script: str) -> None:
    for of in experiments(script):
        result = await topology.run(of, lambda share, seconds: None)
        (run,) = result.runs
        alone = await embedded.run(of)
        assert (run.digest, len(run.steps)) == (alone["digest"], len(alone["steps"]))


async def finished(lab: Embedded) -> dict[str, Any]:
    await lab.simulation.run()
    return await lab.simulation.result()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: Path(script).stem)
async def test_it_goes_on_from_wherever_it_was_saved(script: str) -> None:
    """Between any two steps but where a vCPU has been preempted amid a handler."""
    for of in experiments(script):
        lab, saved = Embedded.of(of), []
        while lab.simulation.working:
            await lab.simulation.step()
            if not lab.simulation.entered:
                saved.append(orjson.dumps(lab.state()))
        expected = await lab.simulation.result()
        assert len(saved) > len(of.steps) // 2
        for state in saved:
            assert await finished(Embedded.from_state(of, orjson.loads(state))) == expected


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: Path(script).stem)
def test_it_comes_to_its_end_under_each_of_its_designs(script: str) -> None:
    for of in experiments(script):
        plain = trio.run(partial(embedded.run, of))
        assert [step["step"] for step in plain["steps"]] == [*range(1, len(of.steps) + 1)]
