"""In which order perf's tools open events on several CPUs, and what one that fails means for the others."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace

import pytest

from services.experiment import EventSpec, SessionSpec
from services.linux_perf.pmu import OpenError
from services.linux_perf.tool import Call, Group, Opening, Tool

COVERS = (0, 0, 1, 1, 0)  # the PMUs of five CPUs


def events(*leaders: int, weak: bool = False, pmus: Sequence[int] = ()) -> tuple[EventSpec, ...]:
    return tuple(
        EventSpec(f"r{index}", index, leader, weak=weak, pmu=pmus[index] if pmus else -1)
        for index, leader in enumerate(leaders)
    )


def opening(
    verb: str,
    of: tuple[EventSpec, ...],
    here: int,
    *failures: tuple[int, int],
    number: int = errno.EINVAL,
    members: tuple[int, int] = (9, 9),
    of_task: bool = False,
) -> Opening:
    """On all CPUs. `failures`: events that a PMU refuses; besides, no group on it has more than so many `members`."""

    def check(call: Call, pmu: int, group: Group) -> None:
        if (call.index, pmu) in failures or len(group) >= members[pmu]:
            raise OpenError(number, "no")

    spec = SessionSpec(verb, of)
    return Tool(spec, range(5), here, COVERS.__getitem__, check, of_task=of_task).run()


def calls(of: Opening) -> list[int]:
    """The events in the order in which they are opened; ~n where one is closed."""
    return [~call.index if call.closes else call.index for call in of.calls]


@pytest.mark.parametrize(("here", "opened"), [(0, [0, 1, 2]), (1, [0, 1, 2]), (2, [0, 2]), (3, [0, 2]), (4, [0, 2])])
def test_perf_stat_does_not_try_an_event_again_that_a_cpu_before_has_refused(here: int, opened: list[int]) -> None:
    """stat_handle_error: `errored` is sticky, and the event is not supported on any CPU.

    CPU 4 comes after CPU 2, which refuses it, though its own PMU would not.
    """
    made = opening("stat", events(0, 1, 2), here, (1, 1))
    assert calls(made) == opened
    assert made.unsupported == {1: "EINVAL: no"}
    assert made.refused == ""


@pytest.mark.parametrize(("here", "opened"), [(0, [0, 1, 2]), (1, [0, 1, 2]), (2, [0]), (3, [])])
def test_perf_stat_ends_at_a_leader_of_several_on_whichever_cpu(here: int, opened: list[int]) -> None:
    made = opening("stat", events(0, 1, 1), here, (1, 1), number=errno.ENOENT)
    assert calls(made) == opened
    assert made.refused == "r1: ENOENT: no"


@pytest.mark.parametrize(("here", "opened"), [(0, [0, 1]), (2, [0]), (3, [0])])
def test_perf_record_opens_an_event_on_all_cpus_and_ends_at_the_first_that_fails(here: int, opened: list[int]) -> None:
    made = opening("record", events(0, 1, 2), here, (1, 1))
    assert calls(made) == opened
    assert (made.refused, made.unsupported) == ("r1: EINVAL: no", {1: "EINVAL: no"})


def test_a_weak_group_is_broken_up_on_all_cpus() -> None:
    """evlist__reset_weak_group."""
    of = events(0, 1, 1, 1, 4, weak=True)
    stat, record = (opening(verb, of, 0, members=(2, 2)) for verb in ("stat", "record"))
    assert calls(stat) == [0, 1, 2, ~1, ~2, 4, 1, 2, 3]
    assert calls(record) == [0, 1, 2, ~1, ~2, 1, 2, 3, 4]
    assert [call.alone for call in stat.calls] == [True, True, False, True, True, True, True, True, True]
    assert all(not (made.unsupported or made.refused) for made in (stat, record))
    # The group fits on CPU 0, where that is only known when it does not on CPU 2.
    stat, record = (opening(verb, of, 0, members=(3, 2)) for verb in ("stat", "record"))
    assert calls(stat) == [0, 1, 2, 3, 4, ~1, ~2, ~3, 1, 2, 3]
    assert calls(record) == [0, 1, 2, 3, ~1, ~2, ~3, 1, 2, 3, 4]
    assert calls(opening("stat", of, 4, members=(3, 2))) == [0, 4, 1, 2, 3]


def test_an_event_is_opened_on_the_cpus_of_its_pmu_alone_or_for_a_task_on_none_in_particular() -> None:
    of = events(0, 1, 2, pmus=(0, 1, -1))
    assert calls(opening("stat", of, 1)) == [0, 2]
    assert calls(opening("stat", of, 2)) == [1, 2]
    assert calls(opening("stat", of, 2, of_task=True)) == [0, 1, 2]
    assert opening("stat", of, 2, (0, 0), of_task=True).unsupported == {0: "EINVAL: no"}


@pytest.mark.parametrize("verb", ["stat", "record"])
def test_what_is_not_supported_is_tried_once_more_without_guests(verb: str) -> None:
    """evsel__fallback of EOPNOTSUPP. It has the modifier then, on all CPUs."""
    tried: list[EventSpec] = []

    def check(call: Call, pmu: int, group: Group) -> None:
        tried.append(call.event)
        if not call.event.exclude_guest:
            raise OpenError(errno.EOPNOTSUPP, "no")

    plain, user, named, pmu = (EventSpec(name, 0x11, n) for n, name in enumerate(("a", "a:u", "a:GH", "p/a/")))
    of = (plain, user, replace(pmu, leader=2))
    made = Tool(SessionSpec(verb, of), range(2), 0, lambda _: 0, check, of_task=False).run()
    assert [event.name for event in made.events] == ["a:H", "a:uH", "p/a/H"]
    assert [call.event for call in made.calls if not call.closes] == [*made.events]
    assert not made.refused
    tried.clear()
    both = replace(named, leader=0, names_side=True)
    assert Tool(SessionSpec(verb, (both,)), range(2), 0, lambda _: 0, check, of_task=False).run().unsupported
    assert tried == [both]


def test_perf_record_opens_a_software_member_alone_where_the_leader_is_not() -> None:
    """get_group_fd, evsel__hybrid_group_cpu_map_idx: it is on all CPUs, and enabled as a member of a group is."""
    of = events(0, 0, 0, pmus=(1, 1, 1))
    of = (of[0], replace(of[1], software=True), of[2])
    there, elsewhere = opening("record", of, 2), opening("record", of, 0)
    assert calls(there) == [0, 1, 2]
    assert [(call.alone, call.enabled) for call in there.calls] == [(True, False), (False, False), (False, False)]
    assert calls(elsewhere) == [1]
    assert [(call.alone, call.enabled) for call in elsewhere.calls] == [(True, True)]


def test_a_software_leader_is_opened_on_all_cpus_and_has_its_group_where_the_others_pmu_is() -> None:
    of = events(0, 0, pmus=(-1, 1))
    of = (replace(of[0], software=True), of[1])
    assert [calls(opening("record", of, cpu)) for cpu in (0, 2)] == [[0], [0, 1]]
    assert [call.alone for call in opening("record", of, 2).calls] == [True, False]
    assert not any(call.enabled for call in opening("record", of, 0).calls)
