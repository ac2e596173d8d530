"""A guest's kernel on a CPU of its own: boot, tick, tasks, sessions, reports, state."""

from __future__ import annotations

from copy import copy
from typing import Any

import orjson
import pytest

from services import experiment as ex
from services import typed_json
from services.boot import GuestBoot
from services.costs import Cost
from services.cpu import NEVER, EntryKind, Notice
from services.guest import BadRequest, GuestKernel
from services.registers import CHAIN, PMUSERENR_EL0
from tests.linux_perf.bench import COSTS, CYCLES, HZ, INSTRUCTIONS, Bench

MS = 1_000_000  # cycles
TICK = 4 * MS
GUESTS = 0  # the account that guests are charged to
ESR_PMEVCNTR0 = 0x6230F811  # MRS X0, PMEVCNTR0_EL0, trapped


def event(number: int, leader: int, **more: Any) -> ex.EventSpec:
    return ex.EventSpec(f"r{number:x}", number, leader, **more)


def stat(*numbers: int, **more: Any) -> ex.SessionSpec:
    return ex.SessionSpec("stat", tuple(event(number, index, **more) for index, number in enumerate(numbers)))


def task(cycles: int, **more: Any) -> ex.TaskSpec:
    el = more.pop("el", 0)
    return ex.TaskSpec("work", (ex.PhaseSpec(0, cycles, el),), **more)


class Guest:
    """A guest of one vCPU that runs on a bench."""

    def __init__(self, bench: Bench, kernel: GuestKernel, index: int = 0) -> None:
        self.bench = bench
        self.kernel = kernel
        self.software = kernel.attend(index)

    @classmethod
    async def boot(
        cls,
        *tasks: ex.TaskSpec,
        sessions: tuple[ex.SessionSpec, ...] = (),
        pmuver: int = 6,
        accounting: str = "tick",
        sysctls: ex.PerfSysctls = ex.DEFAULT_SYSCTLS,
        **costs: int,
    ) -> Guest:
        guest = cls(Bench(counters=6), GuestKernel())
        spec = ex.GuestSpec(
            "vm0", 250, 6, 6, (ex.VcpuSpec(0, tasks, sessions),), accounting=accounting, sysctls=sysctls
        )
        boot = GuestBoot(vcpu=0, frequency_hz=HZ, costs=COSTS | costs, guest=spec, observed=False, pmuver=pmuver)
        guest.bench.observe()
        await guest.bench.enter(guest.software, EntryKind.BOOT, payload=typed_json.dumps(boot))
        return guest

    async def run(self, until: int = NEVER) -> None:
        """Until all work is done, or a time."""
        while (Notice.WORK_DONE, 0) not in self.bench.notices and self.bench.machine.now(0) < until:
            await self.bench.step(self.software)

    async def report(self) -> dict[str, Any]:
        return dict(orjson.loads(await self.bench.enter(self.software, EntryKind.REPORT)))

    async def request(self, **request: Any) -> None:
        self.bench.notices.clear()
        await self.bench.enter(self.software, EntryKind.REQUEST, payload=orjson.dumps(request))


async def two_vcpus(*tasks: ex.TaskSpec, **costs: int) -> tuple[Guest, Guest]:
    """The vCPUs of one guest, each on a bench of its own with a task of its own."""
    kernel = GuestKernel()
    spec = ex.GuestSpec("vm0", 250, 6, 6, tuple(ex.VcpuSpec(0, (of,)) for of in tasks))
    vcpus = Guest(Bench(counters=6), kernel, 0), Guest(Bench(counters=6), kernel, 1)
    for index, vcpu in enumerate(vcpus):
        boot = GuestBoot(vcpu=index, frequency_hz=HZ, costs=COSTS | costs, guest=spec, observed=False, pmuver=6)
        await vcpu.bench.enter(vcpu.software, EntryKind.BOOT, payload=typed_json.dumps(boot))
    return vcpus


async def test_boot_probes_and_resets_the_pmu_as_armv8pmu_reset_does() -> None:
    guest = await Guest.boot()
    probe = ["r PMCR_EL0", "r PMCEID0_EL0", "r PMCEID1_EL0", "r PMMIR_EL1"]
    reset = ["w PMCNTENCLR_EL0", "w PMINTENCLR_EL1", "w PMOVSCLR_EL0", "w PMCR_EL0"]
    assert guest.bench.accesses() == [*probe, *reset]


async def test_without_work_it_says_so_and_sleeps_without_a_tick() -> None:
    guest = await Guest.boot()
    assert guest.bench.notices == [(Notice.WORK_DONE, 0)]
    assert guest.bench.wfi
    assert min(guest.bench.timers.values(), default=NEVER) == NEVER


async def test_a_task_runs_for_its_cycles_and_its_ticks_are_sampled() -> None:
    guest = await Guest.boot(task(10 * TICK), task(20 * TICK, el=1))
    await guest.run()
    report = await guest.report()
    assert 30 * TICK <= report["elapsed"] < 30 * TICK + 1000
    assert abs(report["user"] - 10 * TICK) <= 2 * TICK
    assert abs(report["system"] - 20 * TICK) <= 2 * TICK


async def test_ticks_are_at_whole_periods() -> None:
    guest = await Guest.boot(task(2 * TICK), tick=5000, irq_entry=700)
    assert guest.bench.timers[0] == TICK
    await guest.run(TICK + MS)
    assert guest.bench.timers[0] == 2 * TICK


async def test_tasks_take_turns_at_the_tick() -> None:
    guest = await Guest.boot(task(10 * TICK), task(10 * TICK))
    await guest.run()
    report = await guest.report()
    assert all(one["elapsed"] >= 19 * TICK for one in report["tasks"])


async def test_a_sleeping_task_leaves_the_cpu_idle() -> None:
    guest = await Guest.boot(task(MS, repeat=3, sleep=10 * MS))
    await guest.run()
    report = await guest.report()
    assert 3 * MS + 20 * MS <= report["elapsed"] < 24 * MS
    assert guest.bench.machine.cycles(0)["idle"] >= 19 * MS


async def test_perf_stat_counts_its_task_and_nothing_else() -> None:
    guest = await Guest.boot(task(10 * TICK, session=stat(CYCLES, INSTRUCTIONS)), task(10 * TICK))
    await guest.run()
    session = (await guest.report())["sessions"][0]
    assert session["verb"] == "stat"
    for result in session["events"]:
        assert abs(result["count"] - 10 * TICK) < 2000
        assert 0 <= result["truth"] - result["count"] < 2000
        assert result["enabled"] == result["running"]
        assert result["samples"] == 0


async def test_a_steady_workloads_scaled_counts_are_true_within_a_percent() -> None:
    guest = await Guest.boot(task(200 * TICK, session=stat(CYCLES, *range(1, 15))))
    await guest.run()
    for result in (await guest.report())["sessions"][0]["events"]:
        assert result["running"] < result["enabled"]
        scaled = result["count"] * result["enabled"] // result["running"]
        assert abs(scaled - result["truth"]) * 100 < result["truth"], result


async def test_perf_record_takes_its_samples() -> None:
    session = ex.SessionSpec(
        "record", tuple(event(number, index, frequency=1000) for index, number in enumerate((8, 3)))
    )
    guest = await Guest.boot(task(250 * TICK, session=session), host_pmi=1500, sample=1000)
    await guest.run()
    for result in (await guest.report())["sessions"][0]["events"]:
        assert abs(result["samples"] - 1000) < 50


async def test_only_user_code_counts_for_an_event_that_excludes_the_kernel() -> None:
    session = stat(INSTRUCTIONS, exclude_kernel=True)
    phases = (ex.PhaseSpec(0, 10 * MS, 0), ex.PhaseSpec(0, 30 * MS, 1))
    guest = await Guest.boot(ex.TaskSpec("mixed", phases, session=session))
    await guest.run()
    (result,) = (await guest.report())["sessions"][0]["events"]
    assert result["truth"] == 10 * MS
    assert abs(result["count"] - 10 * MS) < 100


async def test_a_session_follows_its_program_into_the_tasks_that_it_forks() -> None:
    guest = await Guest.boot(task(20 * TICK, threads=3, session=stat(INSTRUCTIONS)), task(20 * TICK))
    await guest.run()
    report = await guest.report()
    assert len(report["tasks"]) == 4
    (result,) = report["sessions"][0]["events"]
    assert 60 * TICK <= result["count"] < 60 * TICK + 10_000
    assert 0 <= result["truth"] - result["count"] < 10_000
    assert result["enabled"] == result["running"]


async def test_a_guest_without_a_pmu_is_not_probed_and_has_no_event() -> None:
    guest = await Guest.boot(task(MS), pmuver=0)
    await guest.run()
    assert guest.bench.accesses() == []
    await guest.request(session=stat(INSTRUCTIONS))
    (session,) = (await guest.report())["sessions"]
    assert [event["unsupported"] for event in session["events"]] == ["ENOENT: the kernel finds no PMU"]


async def test_a_program_whose_perf_record_cannot_begin_is_killed_and_the_guest_goes_on() -> None:
    record = ex.SessionSpec("record", (event(CHAIN, 0, frequency=1000),))
    guest = await Guest.boot(task(10 * MS, session=record), task(MS))
    await guest.run()
    report = await guest.report()
    assert report["sessions"][0]["refused"].startswith("r1e: EINVAL: CHAIN")
    assert [(one["done"], one["elapsed"] >= MS) for one in report["tasks"]] == [(True, False), (True, True)]
    assert report["elapsed"] < 2 * MS
    await guest.request(task=task(MS, session=record))
    assert guest.bench.notices == [(Notice.WORK_UNDONE, 1_000_000), (Notice.WORK_DONE, 0)]


@pytest.mark.parametrize("others", ["waiting", "asleep"])
async def test_a_program_whose_read_at_el0_is_undefined_is_killed_and_the_guest_goes_on(others: str) -> None:
    """do_el0_undef, do_group_exit: all its tasks exit, wherever they are, and its perf prints what was counted."""
    phases, session = (ex.PhaseSpec(0, 3 * MS, 0),), stat(INSTRUCTIONS, rdpmc=True, exclude_kernel=True)
    sleep = 70 * MS if others == "asleep" else 0
    program = ex.TaskSpec("reads", phases, 40, session, sleep=sleep, threads=3, read_every=MS)
    guest = await Guest.boot(program, task(20 * MS), sysctls=ex.PerfSysctls(user_access=True))
    bench, software = guest.bench, guest.software

    def due() -> bool:
        reader, threads = software.tasks[0], [one for one in software.tasks if one.parent == 0]
        found = software.queue if others == "waiting" else [one for one in threads if one.asleep_until >= 0]
        return software.current is reader and reader.left > 2 * MS and all(one in found for one in threads)

    while not due():
        await bench.step(software)
    at = bench.machine.now(0)
    bench.machine.poke(0, PMUSERENR_EL0, 0)
    await guest.run()
    report = await guest.report()
    assert [(one["name"], one["done"]) for one in report["tasks"]].count(("reads", True)) == 3
    assert report["elapsed"] < at + 25 * MS
    assert guest.bench.machine.now(0) > 20 * MS, "the other has run to its end"
    why = f"PMUSERENR_EL0 on the CPU does not let EL0 read PMEVCNTR0_EL0 (ESR {ESR_PMEVCNTR0:#x})"
    assert report["killed"] == [{"task": "reads", "session": "", "reason": why}]
    (result,) = report["sessions"][0]["events"]
    assert 0 < result["count"] == result["truth"]
    assert software.sessions[0].ended


async def test_an_exception_from_el0_with_nobody_there_is_refused() -> None:
    guest = await Guest.boot()
    with pytest.raises(BadRequest, match="no task is current"):
        await guest.bench.enter(guest.software, EntryKind.EXCEPTION, 1 << 25)


async def test_a_cpu_wide_session_sees_all_tasks() -> None:
    session = ex.SessionSpec("stat", (event(INSTRUCTIONS, 0),), cpu_wide=True)
    guest = await Guest.boot(task(10 * MS), task(10 * MS), sessions=(session,))
    await guest.run()
    (result,) = (await guest.report())["sessions"][0]["events"]
    assert result["count"] >= 20 * MS


async def test_a_request_brings_work() -> None:
    guest = await Guest.boot()
    await guest.request(task=task(10 * MS, session=stat(INSTRUCTIONS)))
    assert guest.bench.notices == []  # KVM knows from the request that there is work
    await guest.run()
    report = await guest.report()
    assert report["tasks"] == [{"name": "work", "elapsed": report["elapsed"], "done": True}]


async def test_a_request_for_a_session_alone_is_no_work() -> None:
    guest = await Guest.boot()
    session = ex.SessionSpec("stat", (event(INSTRUCTIONS, 0),), cpu_wide=True)
    await guest.request(session=session)
    assert guest.bench.notices == [(Notice.WORK_DONE, 0)]
    assert len((await guest.report())["sessions"]) == 1


async def test_a_request_that_makes_no_sense_is_refused() -> None:
    guest = await Guest.boot()
    with pytest.raises(BadRequest, match="'task' or 'session'"):
        await guest.request(coffee={})


async def test_the_ring_buffers_reader_costs_two_switches() -> None:
    session = ex.SessionSpec("record", (event(INSTRUCTIONS, 0, period=11_000),))
    guest = await Guest.boot(task(80 * MS, session=session), context_switch=1000)
    await guest.run()
    (result,) = (await guest.report())["sessions"][0]["events"]
    assert 5461 < result["samples"] < 2 * 5461  # 48 bytes each: half of 512 KiB was full once
    switches = 1 + 2 + 1  # to the task, to the reader and back, to idle
    assert guest.bench.machine.charged(0, GUESTS)[Cost.CONTEXT_SWITCH] == switches * 1000


async def test_state_goes_on_identically() -> None:
    session = ex.SessionSpec(
        "record", tuple(event(number, index, frequency=1000) for index, number in enumerate((17, *range(1, 10))))
    )
    tasks = task(60 * TICK, session=session), task(30 * TICK, session=stat(3, 4)), task(MS, repeat=4, sleep=7 * MS)
    one = await Guest.boot(*tasks, host_pmi=1500, sample=1000, irq_entry=300)
    await one.run(until=55 * MS)
    saved = orjson.loads(orjson.dumps(one.kernel.state()))
    bench = Bench(state=one.bench.machine.state())
    for name in ("timers", "ipis", "notices", "compute", "wfi", "previous_done"):
        setattr(bench, name, copy(getattr(one.bench, name)))
    other = Guest(bench, GuestKernel())
    other.kernel.restore(saved)
    assert orjson.loads(orjson.dumps(other.kernel.state())) == saved
    reports = []
    for guest in (one, other):
        await guest.run()
        reports.append(await guest.report())
    assert reports[0] == reports[1]
    assert one.bench.machine.digest() == other.bench.machine.digest()


async def test_the_vcpus_of_a_guest_have_one_perf_and_number_their_tasks_together() -> None:
    one, other = (vcpu.software for vcpu in await two_vcpus(task(10 * TICK, session=stat(INSTRUCTIONS)), task(TICK)))
    assert [task.id for task in (*one.tasks, *other.tasks)] == [0, 1]


async def test_one_vcpu_with_a_slow_handler_lowers_the_limit_on_samples_for_all_of_its_guest() -> None:
    often = ex.SessionSpec("record", (event(INSTRUCTIONS, 0, period=50_000),))

    async def first_tick(vcpu: Guest) -> int:
        """The samples that a vCPU's task takes in its first tick."""
        await vcpu.run(until=TICK - MS // 4)
        (result,) = (await vcpu.report())["sessions"][0]["events"]
        return int(result["samples"])

    async def both() -> tuple[Guest, Guest]:
        return await two_vcpus(*[task(20 * TICK, session=often)] * 2, host_pmi=20_000)

    _, alone = await both()
    unlimited = await first_tick(alone)
    slow, other = await both()
    await slow.run()
    limit = slow.software.perf.shared.limits.max_samples_per_tick
    assert limit < unlimited
    assert await first_tick(other) == limit  # though its own handler has not run yet
