"""What a real guest kernel counts under a design, against what really happened."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import orjson
import pytest

from pmulab import scenario
from services._pmu import OP_NOTIFY
from services.embedded import Embedded
from services.executor import Work
from services.experiment import EventSpec, Experiment, SessionSpec, TaskSpec
from services.kvm.vcpu import VCpu
from services.linux_perf.driver import Driver

DESIGNS = ["emulated", "emulated-6.15", "partitioned", "partitioned,traps=slow-path", "partitioned,swap=lazy"]
STOPPED, RUNNING = 90, 91  # notices of the test's own


def one_event(design: str, session: SessionSpec) -> Experiment:
    (experiment,) = scenario.load("quick", designs=[design]).experiments
    (guest,) = experiment.guests
    (vcpu,) = guest.vcpus
    task = TaskSpec("work", vcpu.tasks[0].phases, session=session)
    return replace(experiment, guests=(replace(guest, vcpus=(replace(vcpu, tasks=(task,)),)),))


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize(("name", "event"), [("cycles", 0x11), ("instructions", 0x08)])
async def test_not_multiplexed_all_that_is_missed_happened_while_the_driver_had_the_pmu_stopped(
    design: str, name: str, event: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest's driver is made to tell when PMCR_EL0.E goes off and on; the truth between is what it may miss."""
    told: list[tuple[int, int]] = []
    operation, prepared = VCpu.operation, Driver.__init__

    def spy(self: VCpu, index: int, code: int, argument: int, operand: int) -> Work | None:
        if code == OP_NOTIFY and argument in (STOPPED, RUNNING):
            told.append((argument, sum(self.machine.truth(self.context, el, event) for el in (0, 1))))
            return None
        return operation(self, index, code, argument, operand)

    def telling(self: Driver, *arguments: Any) -> None:
        prepared(self, *arguments)
        self.off.notify(STOPPED, 0)
        self.on.notify(RUNNING, 0)

    with monkeypatch.context() as patch:
        patch.setattr(VCpu, "operation", spy)
        lab = Embedded.of(one_event(design, SessionSpec("record", (EventSpec(name, event, 0, frequency=4000),))))
        await lab.simulation.step()  # the host boots, with a driver that tells nothing
        patch.setattr(Driver, "__init__", telling)
        await lab.simulation.run()
        result = orjson.loads(orjson.dumps(await lab.simulation.result()))
    (found,) = result["guests"][0]["vcpus"][0]["sessions"][0]["events"]
    running = [(on, off) for (kind, on), (_, off) in pairwise(told) if kind == RUNNING]
    assert len(running) > 100
    assert found["count"] == sum(off - on for on, off in running)
    assert found["count"] < found["truth"]


@pytest.mark.parametrize("design", ["emulated", "partitioned"])
async def test_a_steady_workloads_scaled_counts_are_within_1_percent_of_the_truth_when_multiplexed(design: str) -> None:
    (experiment,) = scenario.load(
        "gzip-record", designs=[design], overrides=["guest.task.repeat=1", "guest.counters=5"]
    ).experiments
    (guest,) = experiment.guests
    (vcpu,) = guest.vcpus
    (task,) = vcpu.tasks
    assert task.session is not None
    # Of the user's work: the guest's kernel, its own PMU code with it, is not steady.
    session = SessionSpec(
        "stat", tuple(replace(event, frequency=0, exclude_kernel=True) for event in task.session.events)
    )
    task = replace(task, session=session)
    experiment = replace(experiment, guests=(replace(guest, vcpus=(replace(vcpu, tasks=(task,)),)),))
    lab = Embedded.of(experiment)
    await lab.simulation.run()
    result = orjson.loads(orjson.dumps(await lab.simulation.result()))
    events = result["guests"][0]["vcpus"][0]["sessions"][0]["events"]
    assert max(event["running"] / event["enabled"] for event in events) < 0.6
    for event in events:
        assert event["count"] * event["enabled"] / event["running"] == pytest.approx(event["truth"], rel=0.01), event
