"""What the judge says of recorded accesses: nothing where a Linux guest's are made again under a correct design, and
what v8's own code did wrong where its own are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest

from services import registers as r
from services._pmu import register_name
from services.experiment import CpuSpec, EventSpec, Experiment, HostCpuSpec, PhaseSpec, SessionSpec, TaskSpec
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.simulation import Simulation
from tests.kvm.linux_guest import FGT, WITHOUT_FGT, LinuxGuest, world
from tests.kvm.posted_traffic import Replay
from tests.kvm.recorded_6_12 import SCENARIOS, Linux612
from tests.kvm.recordings import RECORDINGS, Recording, Vm, named, situation
from tests.kvm.scripted import INST_RETIRED, Scripted, experiment

REFERENCE = ["partitioned", "emulated", "emulated-6.15"]


async def found(of: Experiment, guest: Scripted) -> dict[str, Any]:
    """What the judge has found where `guest` has run."""
    made = Simulation(of)
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    made.attend_guest("vm0", 0, LocalSoftware(guest))
    await made.run()
    return made.judging.found()


def met(premises: Mapping[str, int]) -> set[str]:
    return {invariant for invariant, times in premises.items() if times}


def expected(design: str, events: int) -> set[str]:
    """Invariants that a run could break: only where registers are swapped KVM writes a guest's, or enters it with
    them; and an emulated guest's counters are events of the host's."""
    of_guest = {"I1", "I4", "I8", "I9"} | {"I7" if design == "partitioned" else "I10"}
    return of_guest | ({"I3", "I10"} if events else set())


def busy(design: str, events: int) -> Experiment:
    """A guest of six counters beside a task of the host's, and events of the host's of which one counts guests, too."""
    of = experiment(design, counters=6)
    counted = tuple(EventSpec(f"e{n}", INST_RETIRED, n, exclude_guest=n > 0) for n in range(events))
    sessions = (SessionSpec("host", counted, cpu_wide=True),) if events else ()
    task = TaskSpec("task", (PhaseSpec(0, 2_000),), repeat=200, sleep=50_000)
    return replace(of, host=replace(of.host, cpus=(HostCpuSpec(tasks=(task,), sessions=sessions),)))


@pytest.mark.parametrize("events", [0, 3])
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("design", REFERENCE)
async def test_nothing_is_wrong_where_a_linux_6_12_guest_does_what_was_recorded(
    design: str, scenario: str, events: int
) -> None:
    guest = Linux612(scenario)
    judged = await found(busy(design, events), guest)
    assert guest.done == len(guest.accesses)
    assert guest.undefined == 0
    assert guest.interrupts > 0 or not guest.samples
    assert judged["violations"] == ()
    assert met(judged["premises"]) >= expected(design, events) | ({"I5"} if guest.samples else set())


@pytest.mark.parametrize("cpu", [FGT, WITHOUT_FGT], ids=["FGT", "no FGT"])
@pytest.mark.parametrize("events", [0, 3])
@pytest.mark.parametrize("under", ["partitioned", "emulated"])
@pytest.mark.parametrize("design", REFERENCE)
async def test_nothing_is_wrong_where_a_linux_7_2_guest_does_what_was_recorded(
    design: str, under: str, events: int, cpu: CpuSpec
) -> None:
    """`guest_sequence` of each recording, `under` v8 or the emulated vPMU beside it."""
    guest = LinuxGuest(under)
    judged = await found(world(design, cpu, events), guest)
    assert guest.ended > 0
    assert judged["violations"] == ()
    assert met(judged["premises"]) >= expected(design, events)
