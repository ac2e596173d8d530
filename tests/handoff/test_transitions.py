"""The rules of ownership, one test for each way in which a counter changes hands."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.kvm.errors import SimulationError
from tests.handoff import transitions
from tests.handoff.ownership import DESIGNS, PARTITIONED, Played, play
from tests.handoff.transitions import AMID, Transition, arrival, preempted


async def put_through(directory: Path, of: Transition, design: str) -> Played:
    """Whatever a design does, no invariant is broken meanwhile."""
    found = await play(directory, of.steps, design, guests=of.guests, pcpus=of.pcpus)
    assert found.violations == ()
    return found


@pytest.mark.parametrize("design", DESIGNS)
async def test_at_boot_a_guest_finds_what_its_vmm_has_left_and_nothing_of_the_hosts(
    tmp_path: Path, design: str
) -> None:
    """The host's events are on at the time, and have flags and enables of their own."""
    found = await put_through(tmp_path, transitions.BOOT, design)
    assert found.values == [1, 2, 4]


@pytest.mark.parametrize("design", DESIGNS)
async def test_a_load_takes_no_count_from_the_host_and_gives_it_none_of_the_guests(tmp_path: Path, design: str) -> None:
    found = await put_through(tmp_path, transitions.LOAD, design)
    assert found.counts() == [[1000], [1000]]
    assert found.values == [307]


@pytest.mark.parametrize("design", DESIGNS)
async def test_after_a_put_a_guest_counts_nothing_and_the_host_all_that_is_its_own(tmp_path: Path, design: str) -> None:
    found = await put_through(tmp_path, transitions.PUT, design)
    assert found.counts() == [[1000]]
    assert found.values == [307, 308]


@pytest.mark.parametrize("design", DESIGNS)
async def test_the_first_access_since_a_load_finds_the_guests_own(tmp_path: Path, design: str) -> None:
    """And not what another guest has left on the CPU in between."""
    found = await put_through(tmp_path, transitions.FIRST_ACCESS, design)
    assert found.values == [111, 0x8000_0008, 222]


@pytest.mark.parametrize("design", DESIGNS)
async def test_a_preemption_anywhere_in_a_load_an_access_or_a_put_changes_no_count(tmp_path: Path, design: str) -> None:
    """Before each operation of KVM's that there is."""
    for amid in AMID:
        at, operations = 0, 1
        while at < operations:
            found = await put_through(tmp_path, preempted(amid, at), design)
            assert found.values[-2:] == [133, 233], (amid, at)
            assert found.counts() == [[1000]], (amid, at)
            (step,) = (one for one in found.of("preempt") if one.operations is not None)
            assert step.operations is not None
            assert step.reached is (at < step.operations)
            operations = step.operations
            at += 1


@pytest.mark.parametrize("design", DESIGNS)
async def test_a_vcpu_that_migrates_takes_its_counts_along_and_leaves_both_hosts_theirs(
    tmp_path: Path, design: str
) -> None:
    found = await put_through(tmp_path, transitions.MIGRATION, design)
    assert found.values == [133]
    assert found.counts() == [[1000], [2000]]


@pytest.mark.parametrize("design", DESIGNS)
async def test_a_host_event_that_is_opened_while_a_vcpu_is_loaded_takes_nothing_from_its_guest(
    tmp_path: Path, design: str
) -> None:
    """And counts for the host when the vCPU is gone. It comes while the guest runs, or amid its load."""
    for at in (None, 0, 2):
        found = await put_through(tmp_path, arrival(at), design)
        assert found.values == [150, 250, 350, 450], at
        assert found.counts() == [[1000]], at


@pytest.mark.parametrize("design", ["emulated", *(design for design in PARTITIONED if "static" not in design)])
async def test_events_that_a_guest_squeezes_out_say_so_and_come_back_when_it_is_gone(
    tmp_path: Path, design: str
) -> None:
    """Where the host has all six counters while no vCPU is loaded, and two while one uses four."""
    found = await put_through(tmp_path, transitions.SQUEEZE, design)
    before, loaded, later, after = (events[0] for events in found.events())
    assert found.values == [150, 250, 350, 450]
    assert before.running_ns == before.enabled_ns
    assert later.running_ns == loaded.running_ns
    assert later.enabled_ns > loaded.enabled_ns
    assert after.running_ns > later.running_ns
    assert (before.count, later.count, after.count) == (1000, 1000, 2000)


@pytest.mark.parametrize("design", DESIGNS)
async def test_a_vm_that_dies_loaded_leaves_its_neighbour_and_the_host_theirs(tmp_path: Path, design: str) -> None:
    found = await put_through(tmp_path, transitions.DEATH, design)
    assert found.counts() == [[1000]]
    assert found.values == [144]


@pytest.mark.parametrize("design", [*(design for design in DESIGNS if "static" not in design)])
async def test_the_host_has_every_counter_again_when_the_last_vm_is_dead(tmp_path: Path, design: str) -> None:
    """A group that needs five of six is on, all the time."""
    found = await put_through(tmp_path, transitions.LAST_DEATH, design)
    (group,) = found.events()
    assert [event.count for event in group] == [1000, 0, 0, 0, 0]
    assert all(event.running_ns == event.enabled_ns for event in group)


@pytest.mark.parametrize("design", ["mediated", "partitioned"])
async def test_an_event_that_counts_guests_too_is_refused_by_a_mediated_pmu_alone_and_while_there_are_vms(
    tmp_path: Path, design: str
) -> None:
    """perf's tools then ask for one that excludes guests."""
    found = await put_through(tmp_path, transitions.OPENED_AFTER_DEATH, design)
    names = ["instructions:H" if design == "mediated" else "instructions", "instructions"]
    assert [events[0].event for events in found.events()] == names


async def test_nor_has_a_vm_a_mediated_pmu_while_there_are_such_events(tmp_path: Path) -> None:
    """EBUSY, until they are closed; ones that exclude guests are in nobody's way."""
    create = "vm0 create\nvm0/0 switch\n"
    with pytest.raises(SimulationError, match="EBUSY: there are events that count guests, of a"):
        await play(tmp_path, f"host perf_open name=a events=instructions\n{create}", "mediated")
    for before in ("events=instructions\nhost perf_close name=a", "events=instructions:H"):
        await play(tmp_path, f"host perf_open name=a {before}\n{create}", "mediated")
    await play(tmp_path, f"host perf_open name=a events=instructions\n{create}", "partitioned")


@pytest.mark.parametrize("design", DESIGNS)
async def test_a_session_of_the_host_that_is_closed_while_a_vcpu_is_loaded_leaves_it_its_counters(
    tmp_path: Path, design: str
) -> None:
    found = await put_through(tmp_path, transitions.CLOSE, design)
    assert found.values == [133, 233, 333, 433]
    assert found.counts() == [[1000]]


@pytest.mark.parametrize("design", DESIGNS)
async def test_a_vm_that_is_restored_by_one_reg_goes_on_where_the_other_was_saved(tmp_path: Path, design: str) -> None:
    """KVM_GET_ONE_REG of each register, of a vCPU that has been put, and KVM_SET_ONE_REG of what it gave."""
    saved = (await put_through(tmp_path, transitions.save(), design)).values
    found = await put_through(tmp_path, transitions.restore(*saved), design)
    assert found.values == [*saved, 0x8000_0008, 111, 133]
