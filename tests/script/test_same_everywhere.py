"""A script gives the same embedded and in processes, and however often it is saved and restored on its way."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import trio

from pmulab import scenario, topology
from pmulab.designs import label
from pmulab.embedded import run_embedded
from services import embedded
from services import result as results
from services.embedded import Embedded
from services.experiment import Experiment
from tests.script.scenes import experiment

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "steps").glob("*.toml"))
LIMITS = sorted((Path(__file__).parents[2] / "examples" / "steps" / "limits").glob("*.toml"))
SCRIPTS = [*map(str, EXAMPLES), "handoff"]


def experiments(script: str) -> tuple[Experiment, ...]:
    """One for each design of the script's own."""
    loaded = scenario.load(script)
    assert not loaded.refused
    return loaded.experiments


@pytest.mark.parametrize("script", [*SCRIPTS, *map(str, LIMITS)], ids=lambda script: Path(script).stem)
async def test_in_processes_it_gives_and_breaks_what_it_does_embedded(script: str) -> None:
    for of in experiments(script):
        (run,) = (await topology.run(of, lambda share, seconds: None)).runs
        (alone,) = results.of(of, await embedded.run(of), "embedded").runs
        assert (run.digest, run.steps, run.violations) == (alone.digest, alone.steps, alone.violations)


@pytest.mark.parametrize("script", [*SCRIPTS, *map(str, LIMITS)], ids=lambda script: Path(script).stem)
def test_a_topology_that_stays_up_has_the_same_script_to_play(script: str) -> None:
    """`pmulab up`, whose clients may open events of their own elsewhere, but not beside steps."""
    assert scenario.load(script, every_event=True).experiments == experiments(script)


@pytest.mark.parametrize("script", [*SCRIPTS, *map(str, LIMITS)], ids=lambda script: Path(script).stem)
def test_what_counts_of_what_an_example_breaks_is_on_its_page(script: str) -> None:
    """docs/counterexamples.md says which of them end with exit status 3."""
    counting = {"denied-event": {"partitioned-v1"}, "instruction-counter": {"partitioned-v8"}}
    found = set()
    for of in experiments(script):
        (run,) = run_embedded(of).runs
        found |= {label(of.design)} if any(one.counts for one in run.violations) else set()
    assert found == counting.get(Path(script).stem, set())


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


async def test_a_lab_that_has_failed_in_the_middle_of_a_step_can_be_restored(tmp_path: Path) -> None:
    steps = """
    host perf_open name=a events=cycles
    vm0/0 switch
    vm0/0 msr register=PMSELR_EL0 value=3
    vm0/0 preempt
    host perf_read name=a at=1
    vm0/0 switch
    vm0/0 mrs register=PMSELR_EL0
    """
    of = experiment(tmp_path, steps)
    expected = await finished(Embedded.of(of))
    lab = Embedded.of(of)
    while lab.simulation.script is None or lab.simulation.script.next < 5:
        await lab.simulation.step()
    saved = lab.state()
    host = lab.simulation.pcpus[0].host

    class Failing:
        def enter(self, executor: object, entry: object) -> bytes:
            raise RuntimeError("in the middle")

        def refuse(self, who: str, problem: str) -> Exception:
            return RuntimeError(problem)

    lab.simulation.pcpus[0].host = Failing()
    with pytest.raises(RuntimeError, match="in the middle"):
        await lab.simulation.run()
    lab.simulation.pcpus[0].host = host
    lab.restore(saved)
    assert await finished(lab) == expected
