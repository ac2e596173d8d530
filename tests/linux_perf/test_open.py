"""What perf_event_open refuses (armv8_pmuv3_map_event, validate_group), and what perf's tools then do."""

from __future__ import annotations

import errno

import pytest

from services.experiment import EventSpec, SessionSpec
from services.linux_perf import EventAttr, PerfEvent, Session, State
from services.linux_perf.pmu import OpenError
from services.registers import BR_RETIRED, CHAIN, PC_WRITE_RETIRED
from tests.linux_perf.bench import CYCLES, INSTRUCTIONS, Kernel

LL_CACHE_RD = 0x36

OF_GUEST = ": the core lacks it"


async def kernel_with(*events: int, counters: int = 6) -> Kernel:
    """One whose PMU has these events, and cycles."""
    kernel = await Kernel.boot(counters=counters)
    pmu = kernel.perf.pmu
    pmu.pmceid0 = sum(1 << event for event in (CYCLES, *events) if event < 32)
    pmu.pmceid1 = sum(1 << event - 32 for event in events if event >= 32)
    return kernel


def refused(kernel: Kernel, attr: EventAttr, leader: PerfEvent | None = None) -> tuple[int, str]:
    opened = set(kernel.perf.shared.events)
    with pytest.raises(OpenError) as error:
        kernel.perf.open(attr, leader)
    assert set(kernel.perf.shared.events) == opened, "nothing is left of it"
    return error.value.number, str(error.value)


async def test_the_probe_finds_out_which_events_the_pmu_has() -> None:
    kernel = await Kernel.boot()
    pmu = kernel.perf.pmu
    assert (pmu.pmceid0, pmu.pmceid1) == (0xFFFF_FFFF, 0xFFFF), "those that the bench tallies"


async def test_a_generic_event_that_the_pmu_lacks_is_enoent_and_a_raw_number_is_not_looked_up() -> None:
    kernel = await kernel_with(INSTRUCTIONS)
    number, why = refused(kernel, EventAttr(LL_CACHE_RD, generic=True))
    assert (number, why) == (errno.ENOENT, f"ENOENT: the PMU has no LL_CACHE_RD (PMCEID1_EL0){OF_GUEST}")
    assert kernel.perf.open(EventAttr(LL_CACHE_RD)).hw.config == LL_CACHE_RD
    assert kernel.perf.open(EventAttr(INSTRUCTIONS, generic=True)).hw.config == INSTRUCTIONS


async def test_branches_are_br_retired_or_else_pc_write_retired() -> None:
    branches = EventAttr(BR_RETIRED, generic=True)
    for events, counted in (
        ((BR_RETIRED, PC_WRITE_RETIRED), BR_RETIRED),
        ((PC_WRITE_RETIRED,), PC_WRITE_RETIRED),
    ):
        kernel = await kernel_with(*events)
        assert kernel.perf.open(branches).hw.config == counted
    assert refused(await kernel_with(INSTRUCTIONS), branches)[0] == errno.ENOENT


async def test_chain_is_einval() -> None:
    assert refused(await Kernel.boot(), EventAttr(CHAIN))[0] == errno.EINVAL


async def test_a_group_that_an_empty_pmu_cannot_hold_is_einval() -> None:
    kernel = await Kernel.boot(counters=2)
    leader = await kernel.open(CYCLES, disabled=True, enable_on_exec=True)
    for _ in range(2):
        await kernel.open(INSTRUCTIONS, leader=leader)
    number, why = refused(kernel, EventAttr(INSTRUCTIONS), leader)
    assert number == errno.EINVAL
    assert why == "EINVAL: a group of 4 does not fit the PMU's 2 event counters and the cycle counter"


async def test_a_leader_that_is_off_without_enable_on_exec_is_not_counted_in_its_group() -> None:
    kernel = await Kernel.boot(counters=2)
    leader = await kernel.open(INSTRUCTIONS, task=None, disabled=True)
    for _ in range(2):
        await kernel.open(INSTRUCTIONS, task=None, leader=leader)
    await kernel.enable(leader)
    assert leader.state == State.INACTIVE, "which is one too many"
    assert refused(kernel, EventAttr(INSTRUCTIONS), leader)[0] == errno.EINVAL, "now that the leader is on"
    await kernel.disable(leader)
    assert refused(kernel, EventAttr(INSTRUCTIONS), leader)[0] == errno.EINVAL, "three without the leader"


@pytest.mark.parametrize("attr", [EventAttr(INSTRUCTIONS, pinned=True), EventAttr(0, software=True, exclusive=True)])
async def test_only_the_leader_of_a_group_can_be_pinned_or_exclusive(attr: EventAttr) -> None:
    """perf_event_open."""
    kernel = await Kernel.boot()
    leader = await kernel.open(CYCLES)
    assert refused(kernel, attr, leader)[0] == errno.EINVAL
    kernel.perf.open(attr)


async def test_other_events_on_the_pmu_do_not_matter_and_pairs_and_pmicntr_do() -> None:
    kernel = await Kernel.boot(counters=2, pmuver=5, hyp=True, icntr=True)
    for _ in range(5):
        await kernel.open(3)
    pair = await kernel.open(3, long=True)
    await kernel.open(INSTRUCTIONS, leader=pair)
    await kernel.open(CYCLES, leader=pair)
    assert refused(kernel, EventAttr(3), pair)[0] == errno.EINVAL, "two counters are the pair's"


async def test_counters_that_are_a_guests_are_not_there_for_a_group() -> None:
    """N3: cntr_mask is what validate_group goes by."""
    kernel = await Kernel.boot(counters=4)
    leader = await kernel.open(INSTRUCTIONS)
    await kernel.perf.set_counters(kernel.cpu, 0b11, reschedule=False)
    await kernel.open(INSTRUCTIONS, leader=leader)
    number, why = refused(kernel, EventAttr(INSTRUCTIONS), leader)
    assert number == errno.EINVAL
    assert why == "EINVAL: a group of 3 does not fit the PMU's 2 event counters: 3 of 5 are the guests' range"


async def test_an_event_that_has_had_a_counter_for_no_time_is_not_said_to_have_had_none() -> None:
    kernel = await Kernel.boot(counters=1, hyp=True, access_cycles=0)
    of = SessionSpec("stat", (EventSpec("first", 3, 0), EventSpec("second", 4, 1)))
    made = Session(of, Kernel.TASK, kernel.perf)
    await made.open(kernel.cpu)
    assert [event is not None and event.state for event in made.events] == [State.ACTIVE, State.INACTIVE]
    await kernel.open(5, pinned=True, name="theirs")
    kernel.bench.work(1000)
    await kernel.switch()
    first, second = (await made.report(kernel.cpu))["events"]
    assert (first["running"], first["count"], second["running"]) == (0, 0, 0)
    assert first["starved"] is None
    assert second["starved"] == ["event:first", "event:theirs"]


# perf's tools.


def spec(verb: str, *events: tuple[int, int]) -> SessionSpec:
    """Of (event, leader)."""
    return SessionSpec(verb, tuple(EventSpec(f"e{event:x}", event, leader, generic=True) for event, leader in events))


async def session(kernel: Kernel, of: SessionSpec) -> Session:
    made = Session(of, Kernel.TASK, kernel.perf, on_exec=True)
    await made.open(kernel.cpu)
    return made


async def test_perf_stat_goes_on_without_an_event_that_stands_alone_or_behind_a_leader() -> None:
    kernel = await kernel_with(INSTRUCTIONS)
    made = await session(kernel, spec("stat", (LL_CACHE_RD, 0), (CYCLES, 1), (LL_CACHE_RD, 1), (INSTRUCTIONS, 1)))
    await kernel.exec()
    kernel.bench.work(1000)
    await made.close(kernel.cpu)
    report = await made.report(kernel.cpu)
    assert report["refused"] == ""
    assert [event["unsupported"][:7] for event in report["events"]] == ["ENOENT:", "", "ENOENT:", ""]
    assert [event["count"] >= 1000 for event in report["events"]] == [False, True, False, True]
    assert not kernel.perf.shared.events


@pytest.mark.parametrize(
    "of",
    [
        spec("stat", (CYCLES, 0), (LL_CACHE_RD, 1), (INSTRUCTIONS, 1)),
        spec("record", (CYCLES, 0), (LL_CACHE_RD, 1)),
        spec("record", (CYCLES, 0), (LL_CACHE_RD, 0)),
    ],
)
async def test_perf_stat_ends_at_the_leader_of_a_group_and_perf_record_at_any_event(of: SessionSpec) -> None:
    kernel = await kernel_with(INSTRUCTIONS)
    made = await session(kernel, of)
    assert made.refused == f"e36: ENOENT: the PMU has no LL_CACHE_RD (PMCEID1_EL0){OF_GUEST}"
    assert not kernel.perf.shared.events, "what was open is closed"
    await made.close(kernel.cpu)
    assert (await made.report(kernel.cpu))["events"] == []


async def test_idle_time_cannot_be_left_out() -> None:
    """armv8pmu_set_event_filter."""
    number, why = refused(await Kernel.boot(), EventAttr(CYCLES, exclude_idle=True))
    assert (number, why) == (errno.EOPNOTSUPP, "EOPNOTSUPP: an Arm PMU cannot leave idle time out")


@pytest.mark.parametrize("verb", ["stat", "record"])
async def test_a_weak_group_that_does_not_fit_is_broken_up(verb: str) -> None:
    """evlist__reset_weak_group: opened again one by one, where they stand (record) or after all others (stat)."""
    kernel = await Kernel.boot(counters=3)
    period = 1 << 30 if verb == "record" else 0
    names = ["a", "b", "c", "d", "e"]
    specs = [EventSpec(name, 2 + n, 1, weak=True, period=period) for n, name in enumerate(names)]
    specs = [
        EventSpec("first", INSTRUCTIONS, 0, period=period),
        *specs,
        EventSpec("last", INSTRUCTIONS, 6, period=period),
    ]
    session = Session(SessionSpec(verb, tuple(specs)), Kernel.TASK, kernel.perf)
    await session.open(kernel.cpu)
    await kernel.done()
    events = [event for event in session.events if event is not None]
    assert len(events) == 7
    assert all(event.leader is event and not event.siblings for event in events)
    last = [event.attr.name for event in sorted(events, key=lambda event: event.id)]
    assert last == (["first", *names, "last"] if verb == "record" else ["first", "last", *names])
    assert len(kernel.perf.shared.events) == 7, "those of the group are closed"


async def test_a_weak_group_that_fits_stays_one() -> None:
    kernel = await Kernel.boot(counters=3)
    specs = [EventSpec(name, 2 + n, 0, weak=True) for n, name in enumerate("abc")]
    session = Session(SessionSpec("stat", tuple(specs)), Kernel.TASK, kernel.perf, on_exec=True)
    await session.open(kernel.cpu)
    assert session.events[0] is not None
    assert len(session.events[0].siblings) == 2
