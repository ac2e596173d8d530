"""What steps ask of the host's perf, and what becomes of its CPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pmulab import scenario
from services.costs import Cost
from services.embedded import Embedded
from tests.script.scenes import FLOATING, ONE_VM, RESET, experiment, play

WORK = "host/0 run cycles=1000 el=0 rates={INST_RETIRED=2}\n"


def events(told: list[dict[str, Any]]) -> list[list[int]]:
    """The counts of each read."""
    return [[event["count"] for event in one["events"]] for one in told if "events" in one]


def world(text: str = "") -> str:
    """A host whose perf counts instructions on an event counter."""
    return f"[machine]\ncounters = 6\nicntr = false\n{text}\n[[guest]]\ncounters = 4\npin = [0]\n"


async def test_a_session_counts_what_happens_between_its_steps(tmp_path: Path) -> None:
    steps = f"""
    host perf_open name=a events=instructions:u disabled=true
    {WORK}
    host perf_enable name=a
    {WORK}
    host perf_read name=a
    {WORK}
    host perf_disable name=a
    {WORK}
    host perf_read name=a
    host perf_close name=a
    """
    assert events(await play(experiment(tmp_path, steps))) == [[2000], [4000]]


@pytest.mark.parametrize("design", ["emulated", "partitioned"])
async def test_on_a_vcpus_thread_it_goes_where_that_goes(tmp_path: Path, design: str) -> None:
    """Its guest's EL0 is what it counts, on either pCPU; of the thread while it runs."""
    work = "vm0/0 run cycles=1000 el=0 rates={INST_RETIRED=1}\n"
    steps = f"""
    host perf_open name=a events=instructions:uH thread=vm0/0
    host perf_open name=b events=instructions:uG thread=vm0/0
    vm0/0 switch
    {work}
    vm0/0 preempt
    host/0 run cycles=500 el=0 rates={{INST_RETIRED=1}}
    vm0/0 migrate pcpu=1
    host perf_read name=a
    host perf_read name=b
    vm0/0 switch
    {work}
    host perf_read name=a
    host perf_read name=b
    """
    found = events(await play(experiment(tmp_path, steps, design=design, world=FLOATING)))
    assert found == [[0], [1000], [0], [2000]]


async def test_events_take_turns_when_the_mux_timer_expires_by_a_step(tmp_path: Path) -> None:
    many = "instructions,branches,branch-misses,dTLB-loads,iTLB-loads,L1-dcache-loads,L1-icache-loads"
    steps = f"""
    host perf_open name=a events={many}
    {WORK}
    host perf_read name=a
    {WORK}
    host perf_read name=a
    host/0 mux
    {WORK}
    host perf_read name=a
    """
    told = await play(experiment(tmp_path, steps, world=world()))
    reads = [[event["running"] for event in one["events"]] for one in told if "events" in one]
    first, second, third = ([running > 0 for running in read] for read in reads)
    assert first == second
    assert third.count(True) > first.count(True)
    (mux,) = (one for one in told if "armed" in one)
    assert mux["armed"] == 1


async def test_the_mux_timer_does_not_expire_by_itself(tmp_path: Path) -> None:
    many = "instructions,branches,branch-misses,dTLB-loads,iTLB-loads,L1-dcache-loads,L1-icache-loads"
    steps = f"host perf_open name=a events={many}\nhost/0 run cycles=100000000\nhost perf_read name=a"
    _, work, told = await play(experiment(tmp_path, steps, world=world()))
    assert work["interrupted"] == 0
    assert [event["running"] for event in told["events"]].count(0) == 1


async def test_a_session_on_a_thread_ends_with_its_truth_wherever_that_runs(tmp_path: Path) -> None:
    steps = """
    host perf_open name=a events=instructions:uG thread=vm0/0
    vm0/0 switch
    vm0/0 run cycles=1000 el=0 rates={INST_RETIRED=1}
    vm0/0 preempt
    vm0/0 migrate pcpu=1
    vm0/0 switch
    vm0/0 run cycles=500 el=0 rates={INST_RETIRED=1}
    """
    lab = Embedded.of(experiment(tmp_path, steps, world=FLOATING))
    await lab.simulation.run()
    reports = (await lab.simulation.result())["hosts"]
    found = [session["events"][0] for report in reports for session in report["sessions"]]
    assert [(event["count"], event["truth"]) for event in found] == [(1500, 1500)]


async def test_a_mux_timer_that_nothing_needs_is_not_armed(tmp_path: Path) -> None:
    told = await play(experiment(tmp_path, "host perf_open name=a events=cycles\nhost/0 mux"))
    assert told[-1]["armed"] == 0


async def test_a_period_written_before_has_the_host_interrupted_amid_a_guests_work(tmp_path: Path) -> None:
    """With a pseudo-NMI as without."""
    for pseudo_nmi in ("true", "false"):
        steps = "host perf_open name=a events=instructions period=5000\nvm0/0 switch\nvm0/0 run cycles=9000 until=event"
        of = experiment(tmp_path, steps + " rates={INST_RETIRED=1}", world=world(f"[host]\npseudo_nmi = {pseudo_nmi}"))
        told = await play(of)
        assert told[-1]["interrupted"] == 1
        assert 0 < told[-1]["cycles"] < 5000


@pytest.mark.parametrize("el", [0, 1])
async def test_the_pmu_s_interrupt_finds_the_host_at_work_and_the_rest_is_done_behind_it(
    tmp_path: Path, el: int
) -> None:
    """By the event's own period, in user work as in the kernel's; that of the handler does not count as work."""
    steps = f"""
    host perf_open name=a events=instructions:{"u" if el == 0 else "k"}H period=500
    host/0 run cycles=1200 el={el} rates={{INST_RETIRED=1}}
    host/0 run cycles=1200 el={el} rates={{INST_RETIRED=1}} until=event
    """
    lab = Embedded.of(experiment(tmp_path, steps, world=world()))
    await lab.simulation.run()
    told = await lab.simulation.result()
    through, up_to_it = told["steps"][1:]
    assert (through["cycles"], through["interrupted"], up_to_it["interrupted"]) == (1200, 1, 1)
    assert 0 < up_to_it["cycles"] < 500
    (session,) = told["hosts"][0]["sessions"]
    assert session["events"][0]["samples"] >= 3


async def test_a_pinned_event_that_does_not_fit_is_in_error(tmp_path: Path) -> None:
    steps = (
        RESET
        + """
    vm0/0 msr register=PMCNTENSET_EL0 value=15
    vm0/0 msr register=PMCR_EL0 value=1
    host perf_open name=a events=instructions:D,branches:D,branch-misses:D
    host perf_read name=a
    """
    )
    told = await play(experiment(tmp_path, steps, design="partitioned,pinned=error", world=world()))
    assert [event["state"] for event in told[-1]["events"]] == [1, 1, -2]


async def test_perf_event_open_fails_with_its_errno(tmp_path: Path) -> None:
    steps = "host perf_open name=a events=cycles:G\nhost perf_read name=a"
    opened, _ = await play(experiment(tmp_path, steps, design="mediated"))
    assert "EOPNOTSUPP" in opened["error"]


@pytest.mark.parametrize(("guest", "session", "fails"), [(0, 0, True), (0, 1, True), (1, 0, False), (1, 1, True)])
async def test_bpf_programs_have_no_event_from_the_first_cpu_on_where_it_cannot_be_opened(
    tmp_path: Path, guest: int, session: int, fails: bool
) -> None:
    """bperf opens its event on every CPU, one after the other, but for where a guest leaves the host no counter."""
    two = f"[machine]\npcpus = 2\ncounters = 4\nicntr = false\n\n[[guest]]\npin = [{guest}]\n"
    steps = f"""
    vm0/0 switch
    vm0/0 msr register=PMCR_EL0 value=1
    host perf_open name=a events=instructions:b pcpu={session}
    host/{1 - guest} run cycles=1000 rates={{INST_RETIRED=1}}
    host perf_read name=a
    """
    opened, _, closed = (await play(experiment(tmp_path, steps, world=two)))[2:]
    assert opened.get("error", "").startswith("EINVAL: it does not fit the PMU's 0 event counters") == fails
    assert (closed["events"][0]["count"] >= 1000) != fails


async def test_nor_where_a_cpu_that_boots_later_has_none_for_the_host(tmp_path: Path) -> None:
    host = "[host]\nreserved_host_counters = [2, 0]\n"
    works = '[[guest.task]]\nworkload = "sha256"\nseconds = 0.001\n[[host.perf]]\nverb = "stat"\nevents = "cycles:b"\n'
    path = tmp_path / "own.toml"
    path.write_text(f"[machine]\npcpus = 2\ncounters = 4\nicntr = false\n{host}[[guest]]\ncounters = 2\n{works}")
    (made,) = scenario.load(path, designs=["partitioned,reservation=static"]).experiments
    lab = Embedded.of(made)
    await lab.simulation.run()
    found = [one["sessions"][0]["events"][0] for one in (await lab.simulation.result())["hosts"]]
    assert [event["count"] > 0 for event in found] == [True, False]


async def test_a_cpu_that_loses_its_power_or_goes_offline_keeps_no_register(tmp_path: Path) -> None:
    """The host's event counts on behind the one, and for good ends at the other."""
    idle = "host/1 idle cycles=1000 powerdown=true"
    work = "host/1 run cycles=1000 el=0 rates={INST_RETIRED=2}"
    steps = f"""
    host perf_open name=a events=instructions:u pcpu=1
    {work}
    {idle}
    {work}
    host perf_read name=a
    host/1 offline
    host/1 online
    {work}
    host perf_read name=a
    """
    assert events(await play(experiment(tmp_path, steps, world=FLOATING))) == [[4000], [4000]]


async def test_what_runs_on_a_cpu_that_goes_offline_goes_on_elsewhere(tmp_path: Path) -> None:
    steps = """
    vm0/0 migrate pcpu=1
    vm0/0 switch
    vm0/0 msr register=PMSELR_EL0 value=3
    host/1 offline
    vm0/0 switch
    vm0/0 mrs register=PMSELR_EL0
    """
    told = await play(experiment(tmp_path, steps, world=FLOATING))
    assert told[-1]["value"] == 3


async def test_an_idle_cpu_is_woken_by_its_interrupt(tmp_path: Path) -> None:
    """PMCCNTR_EL0 counts in WFI on some, and its event overflows there."""
    made = ONE_VM.replace("[machine]\n", "[machine]\npmccntr_in_wfi = true\n")
    told = await play(experiment(tmp_path, "host/0 idle cycles=5000", world=made))
    assert told[-1]["cycle"] > 5000


async def test_a_session_s_name_is_free_again_once_it_is_closed(tmp_path: Path) -> None:
    """What is read then is of the one that is open."""
    first = "host perf_open name=a events=instructions:uH\n"
    told = await play(
        experiment(
            tmp_path,
            f"{first}host/0 run cycles=100 el=0 rates={{INST_RETIRED=1}}\nhost perf_close name=a\n"
            f"{first}host/0 run cycles=30 el=0 rates={{INST_RETIRED=1}}\nhost perf_read name=a\n",
        )
    )
    (events,) = (step["events"] for step in told if "events" in step)
    assert [event["count"] for event in events] == [30]


NMI_WORLD = f"{ONE_VM}\n[host]\npseudo_nmi = true\n"


@pytest.mark.parametrize("design", ["emulated", "partitioned", "partitioned-v8"])
async def test_a_pseudo_nmi_comes_wherever_it_is_to_and_takes_its_time_and_nothing_else(
    tmp_path: Path, design: str
) -> None:
    """Before each operation of a vcpu_put, those that have interrupts off too."""
    begin = f"{RESET}vm0/0 msr register=PMEVCNTR0_EL0 value=7\n"
    end = "vm0/0 preempt\nvm0/0 switch\nvm0/0 mrs register=PMEVCNTR0_EL0\n"

    async def put(nmi: str) -> list[dict[str, Any]]:
        return await play(experiment(tmp_path, begin + nmi + end, design=design, world=NMI_WORLD))

    without = await put("")
    lab = Embedded.of(experiment(tmp_path, begin, design=design, world=NMI_WORLD))
    irq_entry = lab.simulation.pcpus[0].costs[Cost.IRQ_ENTRY]
    at, operations = 0, 1
    while at < operations:
        told = await put(f"host/0 nmi at={at}\n")
        assert told[-4]["reached"] is True
        later = told[-3]["cycle"] - without[-3]["cycle"]
        assert later == irq_entry
        assert told[-1]["value"] == without[-1]["value"] == 7
        operations = told[-4]["operations"]
        at += 1


@pytest.mark.parametrize("design", ["emulated", "partitioned", "mediated"])
@pytest.mark.parametrize("what", ["nmi", "tick", "call"])
async def test_what_interrupts_a_guest_takes_none_of_its_cycles(tmp_path: Path, design: str, what: str) -> None:
    counting = "vm0/0 msr register=PMCCFILTR_EL0 value=0\nvm0/0 msr register=PMCNTENSET_EL0 value=0x80000000\n"
    read = "vm0/0 mrs register=PMCCNTR_EL0\n"

    async def between(exits: str) -> int:
        steps = f"{RESET}{counting}vm0/0 msr register=PMCR_EL0 value=1\n{read}{exits}\n{read}"
        told = await play(experiment(tmp_path, steps, design=design, world=NMI_WORLD))
        return int(told[-1]["value"] - told[-3]["value"])

    assert await between(f"host/0 {what}") == await between("vm0/0 hvc")


async def test_an_operator_writes_reserved_host_counters_between_two_steps(tmp_path: Path) -> None:
    """A group of the host's has no room, then has, then has none; and what a VM has is refused."""
    group = "{instructions:uH,branches:uH,branch-misses:uH}"
    steps = f"host perf_open name=a events={group}\n"
    for reserved in (2, 3, 2, 4):
        steps += f"host sysfs reserved_host_counters={reserved}\n{WORK}host perf_read name=a\n"
    world = ONE_VM.replace("counters = 4", "counters = 3").replace("counters = 6", "counters = 6\nicntr = false")
    told = await play(experiment(tmp_path, steps, design="partitioned,reservation=sysfs", world=world))
    assert [one[0] for one in events(told)] == [0, 2000, 2000, 2000]
    assert [one.get("error", "")[:5] for one in told if one["step"] in (2, 5, 8, 11)] == ["", "", "", "EBUSY"]


async def test_that_is_refused_where_the_design_does_not_take_it(tmp_path: Path) -> None:
    told = await play(experiment(tmp_path, "host sysfs reserved_host_counters=2"))
    assert told[0]["error"] == "EACCES: it is read at boot only"
