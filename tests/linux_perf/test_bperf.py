"""bperf: one event of a CPU for all sessions with its attributes (tools/perf/util/bpf_counter.c, Linux 6.12)."""

from __future__ import annotations

from typing import Any

import pytest

from services.experiment import EventSpec, SessionSpec
from services.linux_perf import Session, State
from services.linux_perf.bpf_maps import ATTR_MAP_SIZE
from tests.linux_perf.bench import CYCLES, INSTRUCTIONS, Kernel

OTHER = 99  # a task that nobody follows
WORK = 1_000_000  # cycles, in each of which everything happens once


async def boot(**options: Any) -> Kernel:
    kernel = await Kernel.boot(**options)
    await kernel.perf.booted(kernel.cpu)
    return kernel


def bpf(event: int = INSTRUCTIONS, name: str = "", **attributes: Any) -> EventSpec:
    return EventSpec(name or f"{event:#x}:b", event, 0, bpf=True, **attributes)


async def stat(kernel: Kernel, *specs: EventSpec, task: int | None = Kernel.TASK, workload: bool = False) -> Session:
    """perf stat, enabled: of a task that is there (`-t`) or a program that it starts, or of a CPU."""
    events = tuple(
        EventSpec(**{name: getattr(spec, name) for name in EventSpec.__slots__} | {"leader": index})
        for index, spec in enumerate(specs)
    )
    cpus = (kernel.perf.config.cpu,) if task is None else ()
    session = Session(SessionSpec("stat", events, task is None), task, kernel.perf, cpus=cpus, on_exec=workload)
    await session.open(kernel.cpu)
    await kernel.done()
    return session


async def switch(kernel: Kernel, task: int, following: int) -> None:
    await kernel.switch(task, following)


async def counted(kernel: Kernel, session: Session) -> list[int]:
    report = await session.report(kernel.cpu)
    return [event["count"] for event in report["events"]]


def counters_in_use(kernel: Kernel) -> int:
    return kernel.perf.pmu.used.bit_count()


async def test_what_a_task_does_is_its_followers_and_no_others() -> None:
    """BPERF_FILTER_PID: exact at each sched_switch, however often it is switched."""
    kernel = await boot()
    followed = await stat(kernel, bpf(exclude_kernel=True))
    of_cpu = await stat(kernel, bpf(exclude_kernel=True), task=None)
    for _ in range(5):
        kernel.bench.work(WORK)
        await switch(kernel, Kernel.TASK, OTHER)
        kernel.bench.work(3 * WORK)
        await switch(kernel, OTHER, Kernel.TASK)
    assert await counted(kernel, followed) == [5 * WORK]
    assert await counted(kernel, of_cpu) == [20 * WORK]
    for session, truth in ((followed, 5 * WORK), (of_cpu, 20 * WORK)):
        (event,) = (await session.report(kernel.cpu))["events"]
        assert event["truth"] == event["held"] == truth
        assert event["running"] == event["enabled"] > truth


async def test_sessions_with_the_same_attributes_share_a_counter() -> None:
    """perf_event_attr is the key of the map: the same but for one filter is another."""
    kernel = await boot()
    await stat(kernel, bpf())
    await stat(kernel, bpf(), task=None)
    await stat(kernel, bpf(name="instructions:b"))
    assert counters_in_use(kernel) == 1
    await stat(kernel, bpf(exclude_kernel=True))
    assert counters_in_use(kernel) == 2
    await stat(kernel, EventSpec("instructions", INSTRUCTIONS, 0))
    assert counters_in_use(kernel) == 3


async def test_a_leader_is_there_for_as_long_as_somebody_follows() -> None:
    kernel = await boot()
    first, second = await stat(kernel, bpf()), await stat(kernel, bpf())
    await first.close(kernel.cpu)
    assert counters_in_use(kernel) == 1
    await second.close(kernel.cpu)
    await kernel.done()
    assert counters_in_use(kernel) == 0
    assert kernel.all_perf.events == {}
    again = await stat(kernel, bpf(exclude_kernel=True))
    kernel.bench.work(WORK)
    await switch(kernel, Kernel.TASK, OTHER)
    assert await counted(kernel, again) == [WORK]


async def test_a_leader_competes_with_other_events_for_counters() -> None:
    """It belongs to the CPU, and is there whoever runs: an event of the task that nobody follows has to take turns."""
    kernel = await boot(counters=1)
    await switch(kernel, Kernel.TASK, OTHER)
    theirs = await kernel.open(0x12, task=OTHER)
    assert theirs.state == State.ACTIVE
    session = await stat(kernel, bpf(), task=Kernel.TASK)
    assert theirs.state == State.INACTIVE
    assert kernel.perf.mux_active
    pinned = await kernel.open(0x13, task=OTHER, pinned=True)
    assert pinned.state == State.ACTIVE
    (leader,) = kernel.perf.shared.leaders
    assert leader.events[0].state == State.INACTIVE
    await session.close(kernel.cpu)
    await kernel.disable(pinned)
    await kernel.rotate()
    assert theirs.state == State.ACTIVE


async def test_what_a_leader_misses_is_scaled() -> None:
    kernel = await boot(counters=1)
    session = await stat(kernel, bpf(exclude_kernel=True), task=None)
    await kernel.open(0x12, task=None)
    for _ in range(20):
        kernel.bench.work(WORK)
        await kernel.rotate()
    await switch(kernel, Kernel.TASK, OTHER)
    (event,) = (await session.report(kernel.cpu))["events"]
    assert event["running"] / event["enabled"] == pytest.approx(0.5, rel=0.01)
    assert event["count"] == event["held"] == pytest.approx(10 * WORK, rel=0.01)
    assert event["truth"] == pytest.approx(20 * WORK, rel=0.01)


async def test_what_comes_after_the_last_switch_is_lost_unless_perf_has_started_the_program() -> None:
    """disable_counters: only where there is a task or CPU that perf has not started, and before the last read."""
    kernel = await boot()
    ended = {}
    for name, task, workload in (("-a", None, False), ("-t", Kernel.TASK, False), ("program", Kernel.TASK, True)):
        session = await stat(kernel, bpf(exclude_kernel=True), task=task, workload=workload)
        kernel.bench.work(WORK)
        await switch(kernel, Kernel.TASK, OTHER)
        await switch(kernel, OTHER, Kernel.TASK)
        kernel.bench.work(WORK)
        if workload:
            await session.close(kernel.cpu)
        (event,) = (await session.report(kernel.cpu))["events"]
        ended[name] = event["count"]
        assert event["truth"] == 2 * WORK
    assert ended == {"-a": WORK, "-t": WORK, "program": 2 * WORK}


async def test_an_interval_has_all_up_to_its_read() -> None:
    """bperf_sync_counters."""
    kernel = await boot()
    session = await stat(kernel, bpf(exclude_kernel=True), task=None)
    for number in range(1, 4):
        kernel.bench.work(WORK)
        (event,) = await session.print_interval(kernel.cpu)
        assert event["count"] == number * WORK


async def test_a_reading_is_a_read_of_the_counter_and_the_cost_of_one() -> None:
    costs = {"perf_read": 500}
    kernel = await boot(costs=costs)
    await stat(kernel, bpf())
    kernel.accesses()
    began = kernel.cpu.now
    await switch(kernel, Kernel.TASK, OTHER)
    assert kernel.accesses() == ["r PMEVCNTR0_EL0"]
    assert kernel.cpu.now - began == costs["perf_read"] + 1


async def test_a_first_reading_brings_what_was_there_before() -> None:
    """bperf__enable does not have the leader read but on CPU 0, before: prev_readings are those of the last switch."""
    kernel = await boot(cpu=3)
    kernel.perf.shared.online.append(0)
    await stat(kernel, bpf(exclude_kernel=True), task=OTHER)
    kernel.bench.work(WORK)
    late = await stat(kernel, bpf(exclude_kernel=True), task=None)
    kernel.bench.work(WORK)
    await switch(kernel, Kernel.TASK, OTHER)
    (event,) = (await late.report(kernel.cpu))["events"]
    assert (event["count"], event["truth"]) == (2 * WORK, WORK)
    assert kernel.bench.ipis == [0, 0, 0], "for the leader's event there, and of each session for a reading"


async def test_a_pinned_leader_without_a_counter_has_its_last_difference_added_again() -> None:
    """perf_event_read_local is EBUSY then, the program returns, and the followers' fexit programs run all the same."""
    kernel = await boot(counters=1)
    session = await stat(kernel, bpf(pinned=True, exclude_kernel=True), task=None)
    kernel.bench.work(WORK)
    await switch(kernel, Kernel.TASK, OTHER)
    assert await counted(kernel, session) == [WORK]
    (leader,) = kernel.perf.shared.leaders
    before = await kernel.open(0x12, task=None, pinned=True, disabled=True)
    kernel.perf.ctx.pinned.reverse()
    await kernel.enable(before)
    assert leader.events[0].state == State.ERROR
    kernel.bench.work(5 * WORK)
    await switch(kernel, OTHER, Kernel.TASK)
    assert await counted(kernel, session) == [2 * WORK]


async def test_threads_of_a_program_are_followed_with_it() -> None:
    """BPERF_FILTER_TGID."""
    kernel = await boot()
    session = await stat(kernel, bpf(exclude_kernel=True), workload=True)
    kernel.perf.fork(kernel.cpu, Kernel.TASK, OTHER)
    kernel.bench.work(WORK)
    await switch(kernel, Kernel.TASK, OTHER)
    kernel.bench.work(WORK)
    await switch(kernel, OTHER, 1234)
    kernel.bench.work(WORK)
    await switch(kernel, 1234, Kernel.TASK)
    assert await counted(kernel, session) == [2 * WORK]


async def test_a_group_ends_perf_stat() -> None:
    """bperf_check_target."""
    kernel = await boot()
    events = (EventSpec("cycles:b", CYCLES, 0, bpf=True), EventSpec("instructions", INSTRUCTIONS, 0))
    session = Session(SessionSpec("stat", events), Kernel.TASK, kernel.perf)
    await session.open(kernel.cpu)
    assert session.refused == "cycles:b: EINVAL: bpf managed perf events do not yet support groups"
    assert counters_in_use(kernel) == 0


async def test_perf_record_does_not_look_at_it() -> None:
    kernel = await boot()
    session = Session(SessionSpec("record", (bpf(period=1000),)), Kernel.TASK, kernel.perf)
    await session.open(kernel.cpu)
    (event,) = session.events
    assert event is not None
    assert event.sampling
    assert session.followers == {}


async def test_what_the_pmu_lacks_is_not_supported() -> None:
    """evsel__open_per_cpu's failure is not looked at: perf stat goes on, and has nothing to print."""
    kernel = await boot()
    kernel.perf.pmu.probed(6, 1 << CYCLES, 0)
    session = await stat(kernel, bpf(generic=True), bpf(CYCLES, generic=True))
    assert session.refused == ""
    report = await session.report(kernel.cpu)
    assert [event["unsupported"] != "" for event in report["events"]] == [True, False]
    assert "ENOENT" in report["events"][0]["unsupported"]
    assert counters_in_use(kernel) == 1


async def test_a_software_event_can_lead() -> None:
    """perf_event_read_local knows no difference."""
    kernel = await boot()
    session = await stat(kernel, bpf(1, name="task-clock:b", software=True))
    kernel.bench.work(WORK)
    await switch(kernel, Kernel.TASK, OTHER)
    kernel.bench.work(WORK)
    await switch(kernel, OTHER, Kernel.TASK)
    (event,) = (await session.report(kernel.cpu))["events"]
    assert event["count"] == event["truth"] == pytest.approx(WORK, rel=0.001)


async def test_the_map_of_attributes_is_full_at_some_time() -> None:
    """ATTR_MAP_SIZE: no attribute leaves the map when nobody follows it any more."""
    kernel = await boot(counters=31)
    for event in range(1, ATTR_MAP_SIZE + 1):
        session = await stat(kernel, bpf(event))
        assert session.refused == ""
        await session.close(kernel.cpu)
    assert counters_in_use(kernel) == 0
    refused = await stat(kernel, bpf(ATTR_MAP_SIZE + 1))
    assert refused.refused.startswith("E2BIG")
    assert (await stat(kernel, bpf(1))).refused == ""
