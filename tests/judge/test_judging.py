"""What kvm does with its judge: a fault of it is no violation, and what it has seen is part of the machine's state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from pmulab import batch, scenario
from pmulab.client import RpcError
from pmulab.topology import up
from services import _pmu
from services.embedded import Embedded
from services.experiment import Experiment
from services.kvm import judging
from services.kvm.errors import JudgeFault
from services.kvm.lab import Lab
from services.result import Violation

BROKEN = Path(__file__).parents[1] / "cli" / "scenarios" / "one-pcpu-two-vms.toml"


def broken(*, stop: bool = False) -> Experiment:
    (experiment,) = scenario.load(BROKEN, stop_on_violation=stop).experiments
    return experiment


@pytest.mark.parametrize("stop", [False, True])
def test_a_fault_of_the_judge_is_a_failure_and_no_violation(monkeypatch: pytest.MonkeyPatch, stop: bool) -> None:
    def read(_: bytes) -> None:
        raise ValueError("judgement.premises: I12 is missing")

    monkeypatch.setattr(judging, "read", read)
    result = batch.run_designs(scenario.load(BROKEN, stop_on_violation=stop), jobs=1)
    assert result.runs == ()
    (failure,) = result.failures
    assert failure.problem == "the judge has failed: judgement.premises: I12 is missing"


def confuse(lab: Embedded | Lab) -> None:
    """The judge is told of counters that there cannot be, and panics."""
    simulation = lab.simulation
    simulation.board.machine.note(0, _pmu.NOTE_SET_NR_COUNTERS, simulation.vcpus[0].context, 255)


def test_a_panic_of_the_judge_is_a_fault_of_it_and_changes_nothing_of_the_run() -> None:
    lab = Embedded.of(broken())
    confuse(lab)
    trio.run(lab.simulation.run)
    with pytest.raises(JudgeFault, match="the judge has failed: Note"):
        lab.simulation.judging.found()
    with pytest.raises(JudgeFault):
        Embedded.from_state(broken(), lab.state()).simulation.judging.found()
    unjudged = Embedded.of(replace(broken(), judged=False)).simulation
    trio.run(unjudged.run)
    assert lab.simulation.board.machine.digest() == unjudged.board.machine.digest()


CONFUSES = """
import sys
if "services.kvm" in sys.orig_argv:
    from services.kvm import lab
    from tests.judge.test_judging import confuse
    of = lab.Lab.__init__
    def confused(self, *arguments, **named):
        of(self, *arguments, **named)
        confuse(self)
    lab.Lab.__init__ = confused
"""


async def test_it_is_in_processes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(CONFUSES)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    with pytest.raises(RpcError, match="the judge has failed: Note"):
        async with up(broken()) as topology:
            await topology.lab.result(wait=True)


def test_what_the_judge_has_seen_is_in_a_snapshot_and_nothing_else_is() -> None:
    experiment = broken()
    lab = Embedded.of(experiment)
    simulation = lab.simulation

    async def some_way() -> None:
        while not simulation.judging.found()["violations"] or simulation.entered:
            await simulation.step()

    trio.run(some_way)
    early, state = simulation.judging.found(), lab.state()
    trio.run(simulation.run)
    late = simulation.judging.found()
    assert late != early
    lab.restore(state)
    assert simulation.judging.found() == early
    again = Embedded.from_state(experiment, state).simulation
    assert again.judging.found() == early
    trio.run(again.run)
    assert again.judging.found() == late


def test_a_run_that_has_stopped_goes_on_from_a_snapshot_of_before() -> None:
    lab = Embedded.of(broken(stop=True))
    simulation, start = lab.simulation, lab.state()
    trio.run(simulation.run)
    stopped = simulation.judging.found()
    assert stopped["stopped"]
    assert not simulation.working
    lab.restore(start)
    assert simulation.working
    trio.run(simulation.run)
    assert simulation.judging.found() == stopped


def test_what_is_known_of_its_design_does_not_stop_it() -> None:
    experiment = broken(stop=True)
    found = {one.invariant for one in _violations(replace(experiment, stop_on_violation=False))}
    lab = Embedded.of(replace(experiment, known=tuple(found)))
    trio.run(lab.simulation.run)
    assert not lab.simulation.judging.found()["stopped"]


def _violations(experiment: Experiment) -> tuple[Violation, ...]:
    simulation = Embedded.of(experiment).simulation
    trio.run(simulation.run)
    violations: tuple[Violation, ...] = simulation.judging.found()["violations"]
    return violations
