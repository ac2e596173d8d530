"""A living lab takes up a snapshot in place, whatever it was at, and goes on as it did then."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pmulab import scenario
from services import registers as r
from services.cpu import Cpu, Entry, Eventual
from services.embedded import Embedded
from services.experiment import ANY_PMU, EventSpec, SessionSpec, TaskSpec
from services.kvm.attendant import LocalSoftware
from services.kvm.outcome import digest
from services.kvm.requests import Request
from services.kvm.vpmu import Access
from tests.repeatability.worlds import EVERYTHING, WORLDS, after, experiment, ids

SNAPSHOTS = 6  # of a run, on its way


async def finished(lab: Embedded) -> dict[str, Any]:
    await lab.simulation.run()
    return lab.simulation.measured(await lab.simulation.result(), 0)


@pytest.mark.parametrize("world", WORLDS, ids=ids)
async def test_what_runs_on_leaves_every_snapshot_alone_and_comes_back_to_it(world: tuple[str, str]) -> None:
    """In place, from the snapshot itself and after JSON; round trips are counted as before."""
    straight = Embedded.of(experiment(*world))
    expected = await finished(straight)
    lab = Embedded.of(experiment(*world))
    snapshots = []
    for _ in range(SNAPSHOTS):
        await after(lab, expected["interactions"] // SNAPSHOTS)
        snapshots.append(lab.state())
    told = [orjson.dumps(snapshot) for snapshot in snapshots]
    assert len(set(told)) == SNAPSHOTS
    assert await finished(lab) == expected
    # The last first: what a restore brings back is an earlier time than the one that it finds, and a later one.
    for number in (SNAPSHOTS - 1, *range(SNAPSHOTS)):
        for saved in (snapshots[number], orjson.loads(told[number])):
            lab.restore(saved)
            assert orjson.dumps(lab.state()) == told[number]
        assert await finished(lab) == expected
    assert [orjson.dumps(snapshot) for snapshot in snapshots] == told


@pytest.mark.parametrize("world", [("quick", "emulated"), ("two-vms", "mediated"), (EVERYTHING, "mediated")], ids=ids)
async def test_a_living_lab_goes_back_to_before_its_software_had_booted(world: tuple[str, str]) -> None:
    expected = await finished(Embedded.of(experiment(*world)))
    lab = Embedded.of(experiment(*world))
    snapshots = [lab.state()]
    for _ in range(8):
        await after(lab, 1)
        snapshots.append(lab.state())
    told = [orjson.dumps(snapshot) for snapshot in snapshots]
    await after(lab, 100)
    for number in (4, *range(9)):
        lab.restore(snapshots[number])
        assert orjson.dumps(lab.state()) == told[number]
        assert await finished(lab) == expected


@pytest.mark.parametrize("accesses", [1, 7, 40])
async def test_a_run_that_has_failed_in_the_middle_of_a_handler_can_be_restored(
    accesses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = experiment("quick", "emulated")
    expected = await finished(Embedded.of(of))
    lab = await after(Embedded.of(of), 60)
    snapshot = lab.state()
    (vcpu,) = lab.simulation.vcpus
    access = vcpu.vpmu.access
    left = accesses

    def failing(register: int, write: bool, value: int) -> Access:
        nonlocal left
        left -= 1
        if not left:
            raise RuntimeError("in the middle")
        return access(register, write, value)

    with monkeypatch.context() as patch:
        patch.setattr(vcpu.vpmu, "access", failing)
        with pytest.raises(RuntimeError, match="in the middle"):
            await lab.simulation.run()
    lab.restore(snapshot)
    assert await finished(lab) == expected


async def test_what_a_handler_had_posted_when_it_failed_is_gone_after_a_restore() -> None:
    of = experiment("quick", "partitioned")
    expected = await finished(Embedded.of(of))
    lab = await after(Embedded.of(of), 60)
    snapshot = lab.state()

    class Failing:
        async def enter(self, cpu: Cpu, entry: Entry) -> None:
            cpu.burst.msr(r.PMCR_EL0, 0)
            raise RuntimeError("in the middle")

    (vcpu,) = lab.simulation.vcpus
    assert isinstance(vcpu.guest, LocalSoftware)
    vcpu.guest.software = Failing()
    with pytest.raises(RuntimeError, match="in the middle"):
        await lab.simulation.run()
    lab.restore(snapshot)
    assert await finished(lab) == expected


@pytest.mark.parametrize("world", [("two-vms", "emulated-6.15"), (EVERYTHING, "partitioned")], ids=ids)
async def test_a_run_that_has_failed_between_any_two_bursts_of_anybody_can_be_restored(
    world: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = experiment(*world)
    expected = await finished(Embedded.of(of))
    lab = await after(Embedded.of(of), expected["interactions"] // 3)
    snapshot = lab.state()
    execute = Cpu.execute
    for bursts in range(0, 120, 10):
        left = bursts

        def failing(cpu: Cpu) -> Eventual[list[int]]:
            nonlocal left
            left -= 1
            if left < 0:
                raise RuntimeError("in the middle")
            return execute(cpu)

        with monkeypatch.context() as patch:
            patch.setattr(Cpu, "execute", failing)
            with pytest.raises(RuntimeError, match="in the middle"):
                await lab.simulation.run()
        lab.restore(snapshot)
        assert await finished(lab) == expected
        lab.restore(snapshot)


async def test_a_request_that_waits_is_taken_up_after_a_restore() -> None:
    of = experiment("quick", "emulated")
    lab = await after(Embedded.of(of), 100)
    work = TaskSpec("late", of.guests[0].vcpus[0].tasks[0].phases)
    rates = tuple(of.profiles)
    lab.simulation.requests.add(Request("vm0", 0, rates, task=work))
    saved = orjson.dumps(lab.state())
    expected = await finished(lab)
    assert [taken["request"]["task"]["name"] for taken in expected["injected"]] == ["late"]
    lab.restore(orjson.loads(saved))
    assert digest(await finished(lab)) == digest(expected)


async def test_perfs_that_clients_have_started_are_there_after_a_restore() -> None:
    """A thread of each: those that read from the request on, those that record from their first wake-up."""
    of = experiment("quick", "emulated")
    read = SessionSpec("stat", (EventSpec("cycles", 0x11, 0, exclude_guest=True),), interval=500_000)
    sampled = SessionSpec("record", (EventSpec("cycles", 0x11, 0, period=10_000, pmu=ANY_PMU),), mmap_pages=1)
    lab = await after(Embedded.of(of), 100)
    early = lab.state()
    snapshots = []
    for session in (sampled, read, sampled, read):
        lab.simulation.requests.add(Request("host", 0, session=session))
        snapshots.append(lab.state())
        await after(lab, 1000)
    kinds = [type(thread).__name__ for thread in lab.simulation.threads]
    assert kinds[1:] == ["PerfReader", "PerfProcess", "PerfReader", "PerfProcess"]
    snapshots.append(lab.state())
    told = [orjson.dumps(snapshot) for snapshot in snapshots]
    expected = await finished(lab)
    intervals = [len(session.get("intervals", [])) for session in expected["hosts"][0]["sessions"]]
    assert intervals[0] == intervals[2] == 0
    assert intervals[1] > intervals[3] > 1
    lab.restore(snapshots[-1])
    assert await finished(lab) == expected
    fresh = Embedded.from_state(of, orjson.loads(told[-1]))
    assert [type(thread).__name__ for thread in fresh.simulation.threads] == kinds
    assert digest(await finished(fresh)) == digest(expected)
    lab.restore(early)
    assert len(lab.simulation.threads) == 1
    for snapshot, text in zip(snapshots, told, strict=True):
        lab.restore(snapshot)
        assert orjson.dumps(lab.state()) == text


async def test_a_state_does_not_grow_with_what_has_happened() -> None:
    """It does for a while: what the log's hash has not taken up yet is in it."""
    (of,) = scenario.load("gzip-record", designs=["emulated"]).experiments
    lab = Embedded.of(of)

    async def largest() -> int:
        return max([len(orjson.dumps((await after(lab, 25)).simulation.state())) for _ in range(40)])

    early = await largest()
    await after(lab, 8_000)
    late = await largest()
    assert lab.simulation.working
    assert late < 1.1 * early
