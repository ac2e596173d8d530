"""read(2) of a group with one call (PERF_FORMAT_GROUP, perf_read_group), beside one of each event."""

from __future__ import annotations

from itertools import pairwise

from services.events import Software
from services.experiment import EventSpec, SessionSpec
from services.linux_perf import PerfEvent, Session, State
from services.linux_perf.event import ERROR
from services.result.counts import events as summed
from tests.linux_perf.bench import COSTS, INSTRUCTIONS, Kernel

READ = 10_000  # cycles of a call
SPECULATED, BRANCHES, LOADS = 0x1B, 0x21, 0x04
CHILD = 8


async def group(kernel: Kernel, *, inherit: bool = False) -> tuple[PerfEvent, PerfEvent, PerfEvent]:
    leader = await kernel.open(INSTRUCTIONS, disabled=True, inherit=inherit)
    siblings = [await kernel.open(event, leader=leader, inherit=inherit) for event in (SPECULATED, BRANCHES)]
    await kernel.enable(leader)
    return leader, siblings[0], siblings[1]


async def test_a_group_is_read_with_one_call_and_its_counts_are_of_one_instant() -> None:
    kernel = await Kernel.boot(costs={**COSTS, "perf_read": READ})
    leader, *siblings = await group(kernel)
    kernel.bench.work(1_000_000)
    kernel.accesses()
    before = kernel.bench.machine.now(0)
    readings = await kernel.perf.read_group(kernel.cpu, leader)
    assert kernel.bench.machine.now(0) - before == READ + 3
    assert kernel.accesses() == ["r PMEVCNTR0_EL0", "r PMEVCNTR1_EL0", "r PMEVCNTR2_EL0"]
    counts = [reading.count for reading in readings]
    assert max(counts) - min(counts) == 2, "an access each, and each event happens once a cycle"
    assert len({reading.truth - reading.count for reading in readings}) == 1, "each truth is of its count's instant"
    assert len({(reading.enabled, reading.running) for reading in readings}) == 1
    alone = [(await kernel.perf.read(kernel.cpu, event)).count for event in (leader, *siblings)]
    assert [later - first for first, later in pairwise(alone)] == [READ + 1] * 2


async def test_a_group_that_is_not_on_the_pmu_is_read_without_an_access() -> None:
    kernel = await Kernel.boot()
    leader, *_ = await group(kernel)
    kernel.bench.work(1_000_000)
    await kernel.perf.task_out(kernel.cpu, Kernel.TASK)
    await kernel.done()
    kernel.accesses()
    readings = await kernel.perf.read_group(kernel.cpu, leader)
    assert kernel.accesses() == []
    assert min(reading.count for reading in readings) >= 1_000_000


async def test_a_group_is_read_with_what_was_inherited_from_it() -> None:
    kernel = await Kernel.boot()
    leader, *_ = await group(kernel, inherit=True)
    kernel.perf.fork(kernel.cpu, Kernel.TASK, CHILD)
    kernel.bench.work(1_000_000)
    await kernel.switch(Kernel.TASK, CHILD)
    kernel.bench.work(2_000_000)
    for reading in await kernel.perf.read_group(kernel.cpu, leader):
        assert 3_000_000 <= reading.count < 3_001_000
        assert reading.count <= reading.truth < reading.count + 1000


async def test_the_truth_of_an_inherited_clock_is_the_time_of_all_tasks() -> None:
    kernel = await Kernel.boot()
    clock = await kernel.open(Software.TASK_CLOCK, software=True, inherit=True)
    kernel.perf.fork(kernel.cpu, Kernel.TASK, CHILD)
    kernel.bench.work(1_000_000)
    await kernel.perf.task_out(kernel.cpu, Kernel.TASK)
    await kernel.perf.task_in(kernel.cpu, CHILD)
    await kernel.done()
    kernel.bench.work(2_000_000)
    reading = await kernel.perf.read(kernel.cpu, clock)
    assert reading.truth == reading.count
    await kernel.perf.task_exit(kernel.cpu, CHILD)
    await kernel.done()
    reading = await kernel.perf.read(kernel.cpu, clock)
    assert reading.truth == reading.count


def specs(*numbers: int, grouped: bool, pinned: bool = False) -> tuple[EventSpec, ...]:
    return tuple(
        EventSpec(f"r{event:x}", event, 0 if grouped else index, pinned=pinned and not index)
        for index, event in enumerate(numbers)
    )


async def test_perf_stat_reads_a_group_by_its_leader() -> None:
    """evsel__read_group: three calls are one."""
    took = {}
    for grouped in (False, True):
        kernel = await Kernel.boot(costs={**COSTS, "perf_read": READ})
        session = Session(
            SessionSpec("stat", specs(INSTRUCTIONS, SPECULATED, BRANCHES, grouped=grouped)), None, kernel.perf
        )
        await session.open(kernel.cpu)
        kernel.bench.work(1_000_000)
        before = kernel.bench.machine.now(0)
        report = await session.report(kernel.cpu)
        took[grouped] = kernel.bench.machine.now(0) - before
        assert [event["count"] // 1_000_000 for event in report["events"]] == [1] * 3
    assert took == {False: 3 * READ + 3, True: READ + 3}


async def test_a_group_whose_leader_is_in_error_has_no_counts() -> None:
    """__perf_read: end of file, and evsel__read_group asks nobody but the leader."""
    kernel = await Kernel.boot(counters=2)
    spec = SessionSpec("stat", specs(INSTRUCTIONS, SPECULATED, BRANCHES, grouped=True, pinned=True), cpu_wide=True)
    session = Session(spec, None, kernel.perf)
    await session.open(kernel.cpu)
    kernel.bench.work(1_000_000)
    report = await session.report(kernel.cpu)
    assert [event.state for event in session.events if event] == [State.ERROR, State.INACTIVE, State.INACTIVE]
    assert [event["state"] for event in report["events"]] == [ERROR] * 3
    assert [event.count for event in summed([{"sessions": [report]}])] == [None] * 3
