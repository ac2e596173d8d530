"""Software events: alone they leave the PMU alone, in a group they go on and off with it."""

from __future__ import annotations

from services.events import Software
from services.linux_perf import State
from tests.linux_perf.bench import INSTRUCTIONS, Kernel


async def test_alone_they_do_not_touch_the_pmu() -> None:
    """perf_ctx_disable walks the PMUs of the context, and the PMU's is not among them."""
    kernel = await Kernel.boot()
    clock = await kernel.open(Software.TASK_CLOCK, software=True)
    switches = await kernel.open(Software.CONTEXT_SWITCHES, software=True, leader=clock)
    kernel.bench.work(10_000)
    await kernel.switch()
    await kernel.perf.read(kernel.cpu, clock)
    await kernel.disable(clock)
    await kernel.enable(clock)
    assert kernel.accesses() == []
    assert 10_000 <= clock.count == clock.times()[1] < 20_000
    assert switches.count == 1


async def test_enabling_one_does_not_reschedule_the_pmu() -> None:
    """ctx_resched of event->pmu_ctx->pmu."""
    kernel = await Kernel.boot()
    await kernel.open(INSTRUCTIONS)
    kernel.accesses()
    clock = await kernel.open(Software.TASK_CLOCK, software=True)
    assert kernel.accesses() == []
    assert clock.state == State.ACTIVE


async def test_a_switch_is_counted_by_the_cpu_and_by_the_task_that_is_left_in_the_kernel_only() -> None:
    """perf_sw_event_sched, perf_exclude_event."""
    kernel = await Kernel.boot()
    of_task = await kernel.open(Software.CONTEXT_SWITCHES, software=True)
    of_user = await kernel.open(Software.CONTEXT_SWITCHES, software=True, exclude_kernel=True)
    of_cpu = await kernel.open(Software.CONTEXT_SWITCHES, software=True, task=None)
    await kernel.perf.task_out(kernel.cpu, Kernel.TASK)
    await kernel.perf.task_in(kernel.cpu, 99)
    await kernel.perf.task_out(kernel.cpu, 99)
    await kernel.perf.task_in(kernel.cpu, Kernel.TASK, from_idle=True)
    await kernel.done()
    assert (of_task.count, of_user.count, of_cpu.count) == (1, 0, 3)


async def test_a_migration_is_counted_where_the_task_arrives() -> None:
    kernel = await Kernel.boot()
    event = await kernel.open(Software.CPU_MIGRATIONS, software=True)
    await kernel.switch()
    assert event.count == 0
    kernel.perf.shared.last_cpu[Kernel.TASK] = 5
    await kernel.switch()
    await kernel.switch()
    assert event.count == 1


async def test_a_group_that_software_leads_is_multiplexed_as_a_whole() -> None:
    kernel = await Kernel.boot(counters=1)
    await kernel.open(INSTRUCTIONS)
    leader = await kernel.open(Software.TASK_CLOCK, software=True, disabled=True)
    member = await kernel.open(INSTRUCTIONS, leader=leader)
    last = await kernel.open(Software.CPU_CLOCK, software=True, leader=leader)
    await kernel.enable(leader)
    assert [event.state for event in (leader, member, last)] == [State.INACTIVE] * 3
    kernel.bench.work(10_000)
    await kernel.rotate()
    assert [event.state for event in (leader, member, last)] == [State.ACTIVE] * 3
    kernel.bench.work(10_000)
    await kernel.rotate()
    assert [event.state for event in (leader, member, last)] == [State.INACTIVE] * 3
    assert 10_000 <= leader.count == last.count == leader.times()[1] < leader.times()[0]
    assert (await kernel.perf.read(kernel.cpu, leader)).truth == leader.times()[0]


async def test_a_full_pmu_keeps_no_software_event_off() -> None:
    kernel = await Kernel.boot(counters=1)
    await kernel.open(INSTRUCTIONS, pinned=True)
    failed = await kernel.open(INSTRUCTIONS, pinned=True)
    pinned = await kernel.open(Software.TASK_CLOCK, software=True, pinned=True)
    flexible = await kernel.open(Software.PAGE_FAULTS, software=True)
    assert [event.state for event in (failed, pinned, flexible)] == [State.ERROR, State.ACTIVE, State.ACTIVE]


async def test_members_of_a_closed_leader_stay_on() -> None:
    kernel = await Kernel.boot()
    leader = await kernel.open(INSTRUCTIONS)
    clock = await kernel.open(Software.TASK_CLOCK, software=True, leader=leader)
    await kernel.perf.release(kernel.cpu, leader)
    await kernel.done()
    kernel.bench.work(1000)
    await kernel.switch()
    assert clock.state == State.ACTIVE
    assert clock.count >= 1000
