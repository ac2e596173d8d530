"""The rules of ownership, one test for each way in which a counter changes hands."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.kvm.errors import SimulationError
from tests.handoff import transitions
from tests.handoff.ownership import (
    AT_BOOT,
    DESIGNS,
    EMULATED,
    MEDIATED,
    Amidst,
    Left,
    Played,
    left_by,
    play,
    scripted,
)
from tests.handoff.transitions import AMID, GIVEN, Transition, arrival, first_event, preempted


async def put_through(directory: Path, of: Transition, design: str) -> Played:
    """Whatever a design does, no invariant is broken meanwhile."""
    found = await play(directory, of.steps, design, guests=of.guests, pcpus=of.pcpus)
    assert found.violations == ()
    return found


async def left(directory: Path, of: Transition, design: str) -> Left:
    """What there is in the host afterwards."""
    return await left_by(directory, of.steps, design, guests=of.guests, pcpus=of.pcpus)


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
async def test_nor_does_what_is_left_of_it_on_the_cpu(tmp_path: Path, design: str) -> None:
    """A counter of its that the host's work would have overflow interrupts nobody. Without the host's events no counter
    is on, and none interrupts."""
    found = await put_through(tmp_path, transitions.PUT_ENABLED, design)
    assert found.values == [307, 0xFFFF_FC00 + 300]
    assert [step.interrupted for step in found.of("run")] == [False, False]
    assert [step.taken for step in found.of("irq")] == [False]
    after = await left(tmp_path, transitions.PUT_ENABLED, design)
    assert (after.events, after.enabled, after.interrupting) == ((), (0,), (0,))


@pytest.mark.parametrize("design", DESIGNS)
async def test_the_first_access_since_a_load_finds_the_guests_own(tmp_path: Path, design: str) -> None:
    """And not what another guest has left on the CPU in between."""
    found = await put_through(tmp_path, transitions.FIRST_ACCESS, design)
    assert found.values == [111, 0x8000_0008, 222]


LOADS = ("load", "put", "migration", "squeeze", "release", "death", "restore")
EXITS = ("arrival", "close")


def has_operations(design: str, name: str) -> bool:
    """Has KVM anything of its own to do in it?

    In a load and a put there are trap controls to write at least. A first access has a guest's registers loaded, where
    that is not done at each load, and if it traps there is more to do. When the host's perf is called a guest is left,
    in which its counters change hands only if they do so at each exit.
    """
    if name in LOADS:
        return True
    if name in EXITS or design in EMULATED:
        return name in EXITS and design in MEDIATED
    if design == "mediated":
        return name == "access"  # a type, which traps
    if design == "mediated,traps=fast-path":
        return name != "access"  # which it finds in memory
    if design.startswith("partitioned,swap"):
        return design.endswith("=lazy") or (design.endswith("sticky") and name == "first-access")
    return True


async def before_each(directory: Path, design: str, name: str, of: Transition) -> list[Played]:
    """What is played where that which comes amid the named, in `of` before operation 0, comes before each that there
    is."""
    script = Amidst(scripted(directory, of.steps, design, of.guests, of.pcpus))
    played: list[Played] = []
    reached = True
    while reached:
        at = len(played)
        found = await script.play(at)
        assert found.violations == (), (name, at)
        (coming,) = (step for step in found.steps if step.operations is not None)
        assert coming.operations is not None
        reached = at < coming.operations
        assert coming.reached is reached, (name, at)
        if reached:
            played.append(found)
    assert bool(played) is has_operations(design, name), (name, len(played))
    return played


@pytest.mark.parametrize("name", AMID)
@pytest.mark.parametrize("design", DESIGNS)
async def test_a_preemption_anywhere_in_a_transition_changes_no_count(tmp_path: Path, design: str, name: str) -> None:
    """Before each operation of KVM's that there is in it."""
    for found in await before_each(tmp_path, design, name, preempted(name, 0)):
        assert found.values[-2:] == [133, 233]
        assert found.counts() == [[1000]]


@pytest.mark.parametrize("name", ["load", "access", "first-access", "put", "death", "restore"])
@pytest.mark.parametrize("design", DESIGNS)
async def test_the_first_host_event_that_arrives_anywhere_in_a_transition_counts_from_there_on(
    tmp_path: Path, design: str, name: str
) -> None:
    """And changes no count of the guest's, with the PMU that it starts."""
    if has_operations(design, name):
        for found in await before_each(tmp_path, design, name, first_event(name, 0)):
            assert found.values[-2:] == [133, 233]
            assert found.counts() == [[1000]]


@pytest.mark.parametrize("design", DESIGNS)
async def test_a_host_event_that_is_opened_while_a_vcpu_is_loaded_takes_nothing_from_its_guest(
    tmp_path: Path, design: str
) -> None:
    """And counts for the host when the vCPU is gone."""
    found = await put_through(tmp_path, arrival(None), design)
    assert found.values == [150, 250, 350, 450]
    assert found.counts() == [[1000]]


@pytest.mark.parametrize("design", DESIGNS)
async def test_nor_does_one_that_arrives_anywhere_in_its_load(tmp_path: Path, design: str) -> None:
    for found in await before_each(tmp_path, design, "load", arrival(0)):
        assert found.values == [150, 250, 350, 450]
        assert found.counts() == [[1000]]


@pytest.mark.parametrize("design", DESIGNS)
async def test_a_vcpu_that_migrates_takes_its_counts_along_and_leaves_both_hosts_theirs(
    tmp_path: Path, design: str
) -> None:
    found = await put_through(tmp_path, transitions.MIGRATION, design)
    assert found.values == [133]
    assert found.counts() == [[1000], [2000]]


# Whose clocks leave out what passes while a guest has the counters: an event that makes room has been on all the time.
WITHOUT_GUESTS_TIME = (*MEDIATED, "partitioned,host_time=less-guest")


@pytest.mark.parametrize("design", DESIGNS)
async def test_events_that_a_guest_squeezes_out_say_so_and_come_back_when_it_is_gone(
    tmp_path: Path, design: str
) -> None:
    """The host's group needs four counters, and the guest leaves it two or none; reserved at boot it never has them."""
    found = await put_through(tmp_path, transitions.SQUEEZE, design)
    before, loaded, later, after = (events[0] for events in found.events())
    assert found.values == [150, 250, 350, 450]
    if design in AT_BOOT:
        assert [(one.count, one.running_ns) for one in (before, loaded, later, after)] == [(0, 0)] * 4
        assert before.enabled_ns < loaded.enabled_ns < later.enabled_ns < after.enabled_ns
        return
    assert (before.count, later.count, after.count) == (1000, 1000, 2000)
    assert before.running_ns == before.enabled_ns
    assert after.running_ns > later.running_ns
    if design in WITHOUT_GUESTS_TIME:
        assert after.running_ns == after.enabled_ns
    else:
        assert later.running_ns == loaded.running_ns
        assert later.enabled_ns > loaded.enabled_ns


@pytest.mark.parametrize("design", DESIGNS)
async def test_for_pinned_events_somebody_goes_without_and_only_as_declared(tmp_path: Path, design: str) -> None:
    """Three of them, where a guest with four counters leaves two: the last waits for the put. It is in ERROR for good
    under pinned=error, which is declared, and from its opening on where the host never has a third counter; under
    `emulated` the guest's last counter counts nothing, which is declared."""
    of = transitions.PINNED
    found = await play(tmp_path, of.steps, design)
    ((*others, last),) = found.events()
    assert [(event.count, event.running_ns == event.enabled_ns) for event in others] == [(2000, True), (0, True)]
    assert found.values == [150, 250, 350, 400 if design in EMULATED else 450]
    gives_up = {"I4 guest_read"} if design in EMULATED else {"I10 event_pinned"} if "error" in design else set()
    assert found.found == gives_up
    assert all(violation.declared for violation in found.violations)
    in_error = design in AT_BOOT or "error" in design
    assert (last.state, last.count) == (("error", None) if in_error else ("active", 0))


@pytest.mark.parametrize("design", DESIGNS)
async def test_what_a_vmm_has_restored_counts_before_the_guest_has_accessed_it(tmp_path: Path, design: str) -> None:
    found = await put_through(tmp_path, transitions.RESTORED_COUNTING, design)
    assert found.values == [433, 533]
    assert found.counts() == [[1000]]


@pytest.mark.parametrize("design", DESIGNS)
async def test_a_flag_that_a_guest_sets_interrupts_it_whenever_it_lets_it(tmp_path: Path, design: str) -> None:
    """Whoever completes the write."""
    found = await put_through(tmp_path, transitions.OWN_FLAG, design)
    assert [step.taken for step in found.of("irq")] == [False, True, False, True, False, True]
    assert found.values == [2, 2, 2]


@pytest.mark.parametrize("design", DESIGNS)
async def test_an_operator_takes_a_pinned_events_counter_by_the_parameter_alone_and_that_is_declared(
    tmp_path: Path, design: str
) -> None:
    """Elsewhere the write fails, and the event is on all the time that no guest has its counter."""
    of = transitions.PARAMETER
    found = await play(tmp_path, of.steps, design)
    (write,) = found.of("sysfs")
    (before,), (after,) = found.events()
    assert before.count == 1000
    if design.endswith("sysfs"):
        assert found.found == {"I10 event_pinned"}
        assert all(violation.declared for violation in found.violations)
        assert (write.error, after.state, after.count) == ("", "error", None)
    else:
        assert found.violations == ()
        assert write.error.startswith("EACCES")
        assert (after.state, after.count) == ("active", 2000)


@pytest.mark.parametrize("design", DESIGNS)
async def test_a_vm_that_dies_loaded_leaves_its_neighbour_and_the_host_theirs(tmp_path: Path, design: str) -> None:
    """The session on its thread ends with it, and is not left in the host's perf."""
    found = await put_through(tmp_path, transitions.DEATH, design)
    assert found.counts() == [[1000]]
    assert found.values == [144]
    assert (await left(tmp_path, transitions.DEATH, design)).events == ("instructions:uH",)


@pytest.mark.parametrize("design", [design for design in DESIGNS if design not in AT_BOOT])
async def test_the_host_has_every_counter_again_when_the_last_vm_is_dead(tmp_path: Path, design: str) -> None:
    """A group that needs all six is on, all the time; KVM has no counter of perf's any more."""
    found = await put_through(tmp_path, transitions.LAST_DEATH, design)
    (group,) = found.events()
    assert [event.count for event in group] == [1000, 0, 0, 0, 0, 0]
    assert all(event.running_ns == event.enabled_ns for event in group)
    assert (await left(tmp_path, transitions.LAST_DEATH, design)).kernels == 0


@pytest.mark.parametrize("design", AT_BOOT)
async def test_the_host_has_no_more_than_its_own_range_where_the_guests_was_reserved_at_boot(
    tmp_path: Path, design: str
) -> None:
    """The group says that it does not fit."""
    found = await put_through(tmp_path, transitions.LAST_DEATH, design)
    ((first, *_),) = found.events()
    assert (first.count, first.running_ns) == (0, 0)
    assert first.enabled_ns > 0


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
    """Its own counter counts nothing any more, and is free for whoever comes: a group of all that the host may have."""
    found = await put_through(tmp_path, transitions.CLOSE, design)
    assert found.values == [133, 233, 333, 433]
    own, (instructions, *others) = found.events()
    assert own[0].count == 1000
    if design not in AT_BOOT:
        assert instructions.count == 1000
        assert all(event.running_ns == event.enabled_ns for event in (instructions, *others))
    after = await left(tmp_path, transitions.CLOSED, design)
    assert (after.events, after.enabled, after.interrupting) == ((), (0,), (0,))


@pytest.mark.parametrize("design", DESIGNS)
async def test_a_vm_that_is_restored_by_one_reg_goes_on_where_the_other_was_saved(tmp_path: Path, design: str) -> None:
    """KVM_GET_ONE_REG of each register, of a vCPU that has been put, and KVM_SET_ONE_REG of what it gave: its guest
    reads each as the other has left it (PMCR_EL0 with the CPU's IMP and IDCODE, perhaps), and counts on from there."""
    saved = (await put_through(tmp_path, transitions.save(), design)).values
    assert dict(zip(GIVEN, saved, strict=True)) == GIVEN
    found = await put_through(tmp_path, transitions.restore(*saved), design)
    again = found.values[len(saved) : 2 * len(saved)]
    assert {
        name: value & 0xFFFF if name == "PMCR_EL0" else value for name, value in zip(GIVEN, again, strict=True)
    } == GIVEN
    assert found.values[2 * len(saved) :] == [133]
