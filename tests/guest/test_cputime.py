"""What `time` prints in a guest, by each way of accounting; every number here can be counted by hand."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from services import experiment as ex
from services.cpu import Cpu, Entry, EntryKind, Timer
from services.guest.cputime import adjusted
from tests.guest.test_kernel import MS, TICK, Guest, event, stat, task
from tests.linux_perf.bench import CYCLES, INSTRUCTIONS

CLOSE = 5000  # cycles: the register accesses of a session
BOTH = 1 << Timer.TICK | 1 << Timer.MUX


def accounted(guest: Guest, number: int = 0) -> tuple[int, int]:
    """What ticks have charged a task, as user and as system time."""
    one = guest.software.tasks[number]
    return one.utime, one.stime


async def printed(guest: Guest) -> tuple[int, int]:
    report = await guest.report()
    return report["user"], report["system"]


def sampling(period: int) -> ex.SessionSpec:
    return ex.SessionSpec("record", (event(INSTRUCTIONS, 0, period=period),))


@dataclass
class Seen:
    """Software whose timer interrupts are noted."""

    guest: Guest
    timers: list[tuple[int, int]] = field(default_factory=list)  # when, and which have expired

    def enter(self, cpu: Cpu, entry: Entry) -> Coroutine[Any, Any, object] | None:
        if entry.kind is EntryKind.TIMER:
            self.timers.append((entry.now, entry.argument))
        return self.guest.software.enter(cpu, entry)


# Ticks.


async def test_the_tick_and_the_mux_timer_expire_in_one_interrupt_at_whole_periods() -> None:
    guest = await Guest.boot(task(20 * TICK, session=stat(CYCLES, *range(1, 9))), irq_entry=700, tick=900)
    seen = Seen(guest)
    while len(seen.timers) < 5:
        await guest.bench.step(seen)
    assert seen.timers == [(n * TICK, BOTH) for n in range(1, 6)]
    assert accounted(guest) == (5 * TICK, 0), "the rotation before a tick makes no difference to whom it finds"


async def test_a_tick_that_falls_due_in_a_handler_is_of_the_level_that_the_handler_has_interrupted() -> None:
    # A handler of 1.5 ticks each half tick of work: no tick but falls due in one.
    for el in (0, 1):
        guest = await Guest.boot(task(4 * TICK, session=sampling(TICK // 2), el=el), host_pmi=3 * TICK // 2)
        await guest.run()
        user, system = accounted(guest)
        assert user + system >= 7 * TICK
        assert (system if el == 0 else user) == 0


async def test_a_tick_that_falls_due_in_a_switch_is_system_time_of_the_task_switched_to() -> None:
    guest = await Guest.boot(task(2 * TICK), context_switch=TICK + MS)
    await guest.run()
    # Due within the switch: 1 tick, for which 2 and 3 find its 2 ticks of work.
    assert accounted(guest) == (2 * TICK, TICK)
    runtime = 3 * TICK + MS  # from __schedule on, to the next __schedule
    assert await printed(guest) == (runtime - runtime // 3, runtime // 3)


async def test_a_tick_that_falls_due_in_a_handler_at_the_end_of_a_switch_is_system_time() -> None:
    # The switch ends 1 ms before the tick; an overflow that it has met is handled right after it, for 2 ms.
    sessions = (ex.SessionSpec("record", (event(CYCLES, 0, period=3 * MS - CLOSE),), cpu_wide=True),)
    guest = await Guest.boot(task(2 * TICK), sessions=sessions, context_switch=3 * MS, host_pmi=2 * MS)
    await guest.run(TICK + 2 * MS)
    assert accounted(guest) == (0, TICK)


async def test_a_tick_that_falls_due_while_perf_opens_or_reads_is_system_time() -> None:
    opened = await Guest.boot(task(TICK, session=stat(INSTRUCTIONS)), event_in=TICK + MS)
    await opened.run()
    assert accounted(opened)[1] >= TICK
    opening = opened.software.tasks[0].runtime - TICK  # the program's run time, too
    assert TICK + MS <= opening < TICK + MS + CLOSE
    reader = await Guest.boot(task(80 * MS, session=sampling(11_000)), context_switch=TICK)
    await reader.run()
    # To the task, and to the reader and back: 2 switches of one tick each in one burst, that counts once.
    assert accounted(reader)[1] == 2 * TICK


def recording(*, cpu_wide: bool = False) -> ex.SessionSpec:
    """Its reader is woken once in 60 ms of work."""
    return ex.SessionSpec("record", (event(INSTRUCTIONS, 0, period=11_000),), cpu_wide=cpu_wide)


async def test_the_time_of_perf_record_on_a_cpu_is_no_task_s() -> None:
    other = ex.TaskSpec("other", (ex.PhaseSpec(0, 80 * MS, 0),))
    sleeper, session = task(MS, repeat=9, sleep=30 * MS), recording(cpu_wide=True)
    guest = await Guest.boot(sleeper, other, sessions=(session,), perf_reader=2 * TICK)
    await guest.run()
    elapsed = max(one.ended for one in guest.software.tasks)
    assert elapsed > 9 * MS + 8 * 30 * MS
    for one, work in zip(guest.software.tasks, (9 * MS, 80 * MS), strict=True):
        assert work <= one.runtime < work + MS // 10
        assert one.stime == 0


@pytest.mark.parametrize("accounting", ["tick", "tick+irq"])
async def test_the_time_of_perf_record_of_a_program_is_the_program_s(accounting: str) -> None:
    """`time perf record -- program`: wait4 of perf has its own and its child's."""
    guest = await Guest.boot(task(70 * MS, session=recording()), perf_reader=2 * TICK, accounting=accounting)
    await guest.run()
    (program,) = guest.software.tasks
    assert program.runtime == pytest.approx(70 * MS + 4 * TICK, abs=MS // 10)
    assert program.stime == pytest.approx(TICK, abs=1000), "4 ticks in one burst are one, with irqtime less handlers"


async def test_a_tick_that_falls_due_in_an_exit_is_system_time_of_the_next_task() -> None:
    # perf disables, reads and closes the first task's events when it exits, half a tick after a tick.
    first = task(TICK // 2, session=stat(INSTRUCTIONS))
    guest = await Guest.boot(first, task(3 * TICK - MS), perf_read=TICK)
    await guest.run()
    assert [accounted(guest, number) for number in range(2)] == [(0, 0), (3 * TICK, TICK)]


async def test_a_tick_that_falls_due_in_a_user_s_request_is_system_time_of_the_task_that_goes_on() -> None:
    halves = ex.TaskSpec("work", (ex.PhaseSpec(0, TICK // 2, 0), ex.PhaseSpec(0, 2 * TICK + MS, 0)))
    guest = await Guest.boot(halves, event_in=TICK)
    await guest.run(TICK // 2)
    await guest.request(session=ex.SessionSpec("stat", (event(INSTRUCTIONS, 0),), cpu_wide=True))
    await guest.run()
    assert accounted(guest) == (2 * TICK, TICK)


async def test_a_tick_that_comes_late_counts_once() -> None:
    guest = await Guest.boot(task(TICK), context_switch=5 * TICK + MS)
    await guest.run()
    assert accounted(guest) == (TICK, TICK)
    assert guest.software.tasks[0].runtime == 6 * TICK + MS


async def test_time_splits_the_run_time_of_each_process_as_its_own_ticks_have_it() -> None:
    guest = await Guest.boot(task(3 * TICK), task(TICK, el=1), task(MS))
    await guest.run()
    assert [accounted(guest, number) for number in range(3)] == [(3 * TICK, 0), (0, TICK), (0, 0)]
    user, system = await printed(guest)
    assert (user, system) == (3 * TICK + MS, TICK), "the third was gone before a tick found it"


@pytest.mark.parametrize(
    ("utime", "stime", "runtime", "printed"),
    [(0, 0, 7, (7, 0)), (9, 0, 7, (7, 0)), (0, 9, 7, (0, 7)), (30, 10, 20, (15, 5)), (2, 1, 10, (7, 3))],
)
def test_cputime_adjust(utime: int, stime: int, runtime: int, printed: tuple[int, int]) -> None:
    assert adjusted(utime, stime, runtime) == printed


async def test_threads_of_one_program_are_printed_as_one_process() -> None:
    phases = (ex.PhaseSpec(0, TICK, 0), ex.PhaseSpec(0, TICK, 1))
    guest = await Guest.boot(ex.TaskSpec("work", phases, threads=2))
    await guest.run()
    user, system = await printed(guest)
    assert user + system == 4 * TICK
    assert system == sum(one.stime for one in guest.software.tasks)


async def test_ticks_find_the_kernel_as_often_as_the_program_is_there() -> None:
    sections = ex.TaskSpec("work", (ex.PhaseSpec(0, 950 * MS, 0), ex.PhaseSpec(0, 50 * MS, 1)), turns=5000)
    guest = await Guest.boot(sections)
    await guest.run()
    assert sum(accounted(guest)) == 250 * TICK
    assert 7 * TICK <= accounted(guest)[1] <= 19 * TICK, "a twentieth of 250, give or take two standard deviations"


# Interrupt time.


async def test_irqtime_takes_handlers_out_of_the_ticks_and_of_the_run_time() -> None:
    guest = await Guest.boot(task(9 * TICK), accounting="tick+irq", tick=MS)
    await guest.run()
    ticks = 11  # in 36 ms of work and 11 of their own
    assert accounted(guest) == (TICK + (ticks - 1) * (TICK - MS), 0), "the first has none before it"
    assert await printed(guest) == (9 * TICK, 0)
    without = await Guest.boot(task(9 * TICK), tick=MS)
    await without.run()
    assert accounted(without) == (ticks * TICK, 0)
    assert await printed(without) == (9 * TICK + ticks * MS, 0)


async def test_irqtime_above_a_tick_charges_nothing_and_is_not_carried_on() -> None:
    # 1.5 ticks of handler every 3 ticks of work: of the tick after it nothing is left, and the one after that is whole.
    session = sampling(3 * TICK)
    guest = await Guest.boot(task(4 * TICK + MS, session=session), accounting="tick+irq", host_pmi=3 * TICK // 2)
    await guest.run()
    user, system = accounted(guest)
    assert system == 0
    assert abs(user - 4 * TICK) < CLOSE, "ticks 1 to 3, not 4, which the handler makes late, and all of 5"
    assert abs(sum(await printed(guest)) - (4 * TICK + MS)) < CLOSE


async def test_irqtime_ends_where_a_handler_goes_over_to_a_switch() -> None:
    guest = await Guest.boot(task(2 * TICK), task(2 * TICK), accounting="tick+irq", tick=MS, context_switch=MS)
    await guest.run()
    runtimes = [one.runtime for one in guest.software.tasks]
    # A switch to the first task, at 6 ticks, and at the first exit, of 1 ms each; what the ticks take is none.
    assert sum(runtimes) == 4 * TICK + 8 * MS


# vtime.

MIXED = ex.TaskSpec("mixed", (ex.PhaseSpec(0, 10 * MS, 0), ex.PhaseSpec(0, 5 * MS, 1)), repeat=3)


async def test_vtime_is_exact_and_has_handlers_as_system_time() -> None:
    guest = await Guest.boot(MIXED, accounting="vtime", tick=100_000, context_switch=50_000)
    await guest.run()
    assert await printed(guest) == (30 * MS, 15 * MS + 50_000 + 11 * 100_000)


async def test_vtime_with_irqtime_has_them_as_neither() -> None:
    guest = await Guest.boot(MIXED, accounting="vtime+irq", tick=100_000, context_switch=50_000)
    await guest.run()
    assert await printed(guest) == (30 * MS, 15 * MS + 50_000)
