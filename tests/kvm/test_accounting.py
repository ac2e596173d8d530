"""CPU time as the host's kernel accounts it; every number here can be counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import trio

from services.costs import Cost
from services.cpu import Cpu, Entry, Notice, Timer
from services.experiment import ExitSpec, Experiment, HostCpuSpec, HostSpec, PhaseSpec, TaskSpec
from services.kvm.simulation import Simulation
from services.registers import PMSELR_EL0
from tests.kvm.scripted import HZ, Scripted, ScriptedHost, experiment, simulation

PERIOD = HZ // 250
MODES = ("guest", "host_kernel", "host_user", "idle")
ATOMIC = ExitSpec()
EXITS = ExitSpec(PERIOD // 4, PERIOD // 4)


def host(
    accounting: str = "tick", *, tasks: tuple[TaskSpec, ...] = (), exits: ExitSpec = ATOMIC, **costs: int
) -> Experiment:
    """A guest and a host on one pCPU, where nothing costs anything but what is said here."""
    of = experiment("emulated")
    return replace(
        of,
        costs=dict.fromkeys(of.costs, 0) | costs,
        host=HostSpec(250, (HostCpuSpec(tasks),), accounting=accounting),
        exits=exits,
    )


def guest(boot: Callable[[Cpu], None]) -> Scripted:
    """A guest that boots with what a test says, and has done its work with that."""

    async def booting(cpu: Cpu, entry: Entry) -> None:
        boot(cpu)

    async def done(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    return Scripted(boot=booting, resume=done)


def computing(cycles: int, el: int = 0) -> Scripted:
    return guest(lambda cpu: cpu.burst.compute(2, el, cycles))


def no_guest(of: Experiment) -> Experiment:
    return replace(of, guests=())


def run(made: Simulation) -> dict[str, Any]:
    async def to_the_end() -> dict[str, Any]:
        await made.run()
        return await made.result()

    return trio.run(to_the_end)


def printed(result: dict[str, Any]) -> tuple[int, ...]:
    return tuple(result["cputime"][mode] for mode in MODES)


# Ticks.


def test_the_tick_and_the_mux_timer_expire_in_one_interrupt() -> None:
    entered: list[tuple[int, int]] = []

    async def boot(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.timer(Timer.MUX, PERIOD)

    async def timer(cpu: Cpu, entry: Entry) -> None:
        entered.append((entry.now, entry.argument))
        cpu.burst.timer(Timer.MUX, (len(entered) + 1) * PERIOD)

    made = simulation(host(), computing(3 * PERIOD + 5), ScriptedHost(boot=boot, timer=timer))
    assert printed(run(made)) == (3 * PERIOD, 0, 0, 0)
    assert entered == [(n * PERIOD, 1 << Timer.TICK | 1 << Timer.MUX) for n in (1, 2, 3)]


def test_a_tick_charges_a_whole_period_to_whom_it_finds() -> None:
    assert printed(run(simulation(host(), computing(10 * PERIOD - 1)))) == (9 * PERIOD, 0, 0, 0)
    phases = (PhaseSpec(2, 3 * PERIOD, 0), PhaseSpec(2, 2 * PERIOD, 2))
    of = no_guest(host(tasks=(TaskSpec("task", phases),)))
    assert printed(run(simulation(of, Scripted()))) == (0, 2 * PERIOD, 3 * PERIOD, 0)


def test_an_idle_cpu_takes_no_tick_and_its_time_is_exact() -> None:
    naps = TaskSpec("naps", (PhaseSpec(2, PERIOD // 4),), repeat=3, sleep=2 * PERIOD)
    result = run(simulation(no_guest(host(tasks=(naps,))), Scripted()))
    # It works for a quarter of a period from 0, 2.25 and 4.5 periods on.
    assert printed(result) == (0, 0, 0, 4 * PERIOD)


def slow_mux(every: int, takes: int) -> ScriptedHost:
    """A host whose mux timer expires half a period into each `every` periods; the handler `takes` so long."""

    async def boot(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.timer(Timer.MUX, PERIOD // 2)

    async def timer(cpu: Cpu, entry: Entry) -> None:
        if entry.argument >> Timer.MUX & 1:
            cpu.burst.charge(Cost.PERF_RESCHED, takes)
            cpu.burst.timer(Timer.MUX, entry.now + every * PERIOD)

    return ScriptedHost(boot=boot, timer=timer)


def test_a_tick_that_falls_due_in_a_handler_is_of_whom_the_handler_has_interrupted() -> None:
    hog = TaskSpec("hog", (PhaseSpec(2, 4 * PERIOD - 1, 0),))
    for of, software, place in ((host(), computing(4 * PERIOD - 1), 0), (no_guest(host(tasks=(hog,))), Scripted(), 2)):
        result = run(simulation(of, software, slow_mux(2, PERIOD)))
        assert result["time"]["host_kernel"] == 4 * PERIOD, "from 0.5, 2.5, 4.5 and 6.5 periods on"
        assert printed(result) == tuple(7 * PERIOD if n == place else 0 for n in range(4))


def test_a_tick_that_falls_due_in_a_switch_finds_the_kernel() -> None:
    two = tuple(TaskSpec(name, (PhaseSpec(2, PERIOD // 2 - 1, 0),)) for name in ("one", "two"))
    of = no_guest(host(tasks=two, context_switch=PERIOD))
    # Switches from 0 and almost 1.5 periods on, of one period each; either task works for almost half a period.
    assert printed(run(simulation(of, Scripted()))) == (0, 2 * PERIOD, 0, 0)


@pytest.mark.parametrize(("accounting", "found"), [("tick", (1, 4)), ("vtime", (3, 2))])
def test_a_tick_finds_the_host_s_kernel_in_a_trap_from_its_exit_to_where_it_masks_interrupts(
    accounting: str, found: tuple[int, int]
) -> None:
    # A trap of 1.25 periods: 0.25 up to guest_timing_exit_irqoff(), 0.75 with interrupts on, 0.25 into the guest. Of 5
    # ticks in 4 traps one falls due in the last part; of their time 2 fifths are the guest's.
    trap = 5 * PERIOD // 4

    def traps(cpu: Cpu) -> None:
        for _ in range(4):
            cpu.burst.msr(PMSELR_EL0, 0)
        cpu.burst.compute(2, 0, 1)

    result = run(simulation(host(accounting, exits=EXITS, exit_full_sysreg=trap), guest(traps)))
    of_guest, kernel, user, idle = printed(result)
    if accounting == "tick":
        assert (of_guest, kernel, user, idle) == (found[0] * PERIOD, found[1] * PERIOD, 0, 0)
    else:
        assert (of_guest - 1, kernel, user, idle) == (2 * PERIOD, 3 * PERIOD, 0, 0)


def test_a_wfi_that_blocks_is_charged_one_whole_exit() -> None:
    """Its way back in is charged where it blocks: the vcpu_load that ends its sleep charges none."""

    async def boot(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.timer(Timer.SLEEP, cpu.now + 10 * PERIOD)
        cpu.burst.wfi()

    async def timer(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.compute(2, 0, 1)

    async def done(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    of = host(exits=ExitSpec(300, 500), exit_full_null=1000)
    result = run(simulation(of, Scripted(boot=boot, timer=timer, resume=done)))
    assert result["bill"]["host"]["trap"] == result["time"]["host_kernel"] == 1000


def test_a_fast_path_exit_is_the_guest_s_time() -> None:
    def traps(cpu: Cpu) -> None:
        for _ in range(4):
            cpu.burst.msr(PMSELR_EL0, 0)
        cpu.burst.compute(2, 0, 1)

    of = replace(
        experiment("partitioned", axes={"traps": "fast-path", "swap": "eager"}),
        costs=dict.fromkeys(experiment().costs, 0) | {"exit_fast": 5 * PERIOD // 4},
    )
    assert printed(run(simulation(of, guest(traps)))) == (4 * PERIOD, 0, 0, 0), "the fifth falls due as the last ends"


# Interrupt time.


def test_irqtime_has_handlers_in_a_column_of_their_own() -> None:
    result = run(simulation(host("tick+irq", tick=1000, irq_entry=200), computing(10 * PERIOD + 1)))
    ticks = 10
    assert printed(result) == (PERIOD + (ticks - 1) * (PERIOD - 1200), 0, 0, 0), "the first has none before it"
    assert result["irq"] == ticks * 1200
    exact = run(simulation(host("vtime+irq", tick=1000, irq_entry=200), computing(10 * PERIOD + 1)))
    assert exact["irq"] == ticks * 1200
    assert printed(exact) == (10 * PERIOD + 1, 0, 0, 0)
    without = run(simulation(host(tick=1000, irq_entry=200), computing(10 * PERIOD + 1)))
    assert (without["irq"], *printed(without)) == (0, ticks * PERIOD, 0, 0, 0)


def test_irqtime_beyond_a_tick_is_lost() -> None:
    # A handler from 0.5 to 1.75 periods: nothing is left of the first tick, the second and third are whole.
    result = run(simulation(host("tick+irq"), computing(2 * PERIOD), slow_mux(10, 5 * PERIOD // 4)))
    assert result["irq"] == 5 * PERIOD // 4
    assert printed(result) == (2 * PERIOD, 0, 0, 0)


def test_the_time_of_a_handler_is_taken_off_a_tick_that_has_waited_for_its_end() -> None:
    # A handler from 0.5 to 1.25 periods, and right after it the tick that fell due in it.
    result = run(simulation(host("tick+irq"), computing(PERIOD), slow_mux(10, 3 * PERIOD // 4)))
    assert printed(result) == (PERIOD // 4, 0, 0, 0)


# vtime.


def test_vtime_is_exact() -> None:
    hog = TaskSpec("hog", (PhaseSpec(2, 3 * PERIOD // 2, 0), PhaseSpec(2, PERIOD // 3, 2)))
    result = run(simulation(no_guest(host("vtime", tasks=(hog,), tick=1000)), Scripted()))
    assert printed(result) == (0, PERIOD // 3 + 1000, 3 * PERIOD // 2, 0)


def test_a_task_s_turns_are_all_of_its_phases() -> None:
    hog = TaskSpec("hog", (PhaseSpec(2, 3 * PERIOD, 0), PhaseSpec(2, PERIOD, 2)), repeat=2, turns=7)
    assert printed(run(simulation(no_guest(host("vtime", tasks=(hog,))), Scripted()))) == (0, 2 * PERIOD, 6 * PERIOD, 0)
