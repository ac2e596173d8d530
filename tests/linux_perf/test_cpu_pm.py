"""The core loses its power and has it again: cpu_pm_pmu_notify, cpu_pm_pmu_setup, armv8pmu_reset (Linux 6.12)."""

from __future__ import annotations

from services.cpu import Notice
from services.experiment import PerfSysctls
from services.linux_perf import State
from services.linux_perf.event import THROTTLED
from services.registers import PMCNTENSET_EL0, PMUSERENR_EL0
from tests.linux_perf.bench import CYCLES, INSTRUCTIONS, Kernel

RESET = ["w PMCNTENCLR_EL0", "w PMINTENCLR_EL1", "w PMOVSCLR_EL0", "w PMCR_EL0"]


async def enters(kernel: Kernel) -> list[str]:
    kernel.accesses()
    await kernel.perf.cpu_pm_enter(kernel.cpu)
    await kernel.done()
    return kernel.accesses()


async def leaves(kernel: Kernel) -> list[str]:
    kernel.bench.machine.warm_reset(0)
    kernel.accesses()
    await kernel.perf.cpu_pm_exit(kernel.cpu)
    await kernel.done()
    return kernel.accesses()


async def test_the_pmu_is_reset_though_nobody_uses_it() -> None:
    kernel = await Kernel.boot(hyp=True)
    assert await enters(kernel) == []
    assert await leaves(kernel) == RESET


async def test_events_stop_and_are_programmed_anew() -> None:
    kernel = await Kernel.boot(hyp=True)
    await kernel.open(INSTRUCTIONS, task=None)
    stops = ["w PMCNTENCLR_EL0", "w PMINTENCLR_EL1", "w PMOVSCLR_EL0", "r PMEVCNTR0_EL0"]
    starts = ["w PMEVCNTR0_EL0", "w PMCNTENCLR_EL0", "w PMEVTYPER0_EL0", "w PMINTENSET_EL1", "w PMCNTENSET_EL0"]
    assert await enters(kernel) == ["r PMCR_EL0", "w PMCR_EL0", *stops]
    assert await leaves(kernel) == [*RESET, *starts, "w PMUSERENR_EL0", "r PMCR_EL0", "w PMCR_EL0"]


async def test_no_count_and_nothing_of_a_period_is_lost() -> None:
    kernel = await Kernel.boot(counters=4, pmuver=4)
    counting = await kernel.open(CYCLES)
    chained = await kernel.open(INSTRUCTIONS, long=True)
    sampling = await kernel.open(INSTRUCTIONS, period=10_000)
    before = (await kernel.perf.read(kernel.cpu, sampling)).count
    kernel.bench.work(6_000)
    placed = [event.idx for event in (counting, chained, sampling)]
    await enters(kernel)
    done = [event.count for event in (counting, chained, sampling)]
    assert all(count >= 6_000 for count in done)
    kernel.bench.machine.idle(0, kernel.bench.machine.now(0) + 1_000_000)
    await leaves(kernel)
    assert [event.idx for event in (counting, chained, sampling)] == placed
    assert all(event.state == State.ACTIVE for event in (counting, chained, sampling))
    assert await kernel.bench.work_until_interrupt(kernel.perf)
    assert sampling.samples == 1
    assert 10_000 <= sampling.count - before < 10_100, "the rest of the period that was begun"
    assert counting.count >= done[0]


async def test_a_throttled_event_starts_with_the_others() -> None:
    """A throttled event is disabled, not PERF_HES_STOPPED: armpmu_start has it count again before the next tick."""
    kernel = await Kernel.boot(hyp=True, sysctls=PerfSysctls(max_sample_rate=250))
    event = await kernel.open(INSTRUCTIONS, task=None, period=10_000)
    assert await kernel.bench.work_until_interrupt(kernel.perf)
    machine = kernel.bench.machine
    assert (event.interrupts, machine.peek(0, PMCNTENSET_EL0)) == (THROTTLED, 0)
    await enters(kernel)
    await leaves(kernel)
    assert (event.interrupts, machine.peek(0, PMCNTENSET_EL0)) == (THROTTLED, event.bits)


async def test_the_el0_filter_of_a_throttled_event_is_flipped_once_it_has_started_again() -> None:
    """kvm_set_pmu_events is armv8pmu_enable_event's, so also armpmu_start's on CPU_PM_EXIT."""
    kernel = await Kernel.boot(hyp=True, sysctls=PerfSysctls(max_sample_rate=250))
    await kernel.open(INSTRUCTIONS, task=None, period=10_000, exclude_guest=True)

    async def flips() -> list[str]:
        kernel.accesses()
        kernel.perf.el0_filter(kernel.cpu, True)
        kernel.perf.el0_filter(kernel.cpu, False)
        await kernel.done()
        return kernel.accesses()

    flipped = ["r PMEVTYPER0_EL0", "w PMEVTYPER0_EL0"] * 2
    assert await flips() == flipped
    assert await kernel.bench.work_until_interrupt(kernel.perf)
    assert await flips() == []
    await enters(kernel)
    await leaves(kernel)
    assert await flips() == flipped, "before the next tick"
    while await flips():
        assert await kernel.bench.work_until_interrupt(kernel.perf)
    assert kernel.perf.throttled_count == 2, "throttled once more, it stands still again"


async def test_user_access_ends_until_a_task_starts_the_pmu() -> None:
    """cpu_do_resume: PMUSERENR_EL0 is 0."""
    kernel = await Kernel.boot(hyp=True, sysctls=PerfSysctls(user_access=True))
    await kernel.open(INSTRUCTIONS, rdpmc=True)
    await kernel.perf.task_out(kernel.cpu, Kernel.TASK)
    await enters(kernel)
    await leaves(kernel)
    assert kernel.bench.machine.peek(0, PMUSERENR_EL0) == 0
    await kernel.perf.task_in(kernel.cpu, Kernel.TASK)
    await kernel.done()
    assert [value for code, value in kernel.bench.notices if code == Notice.HOST_PMUSERENR] == [12, 0, 12]
    assert kernel.bench.machine.peek(0, PMUSERENR_EL0) == 12
