"""A mediated vPMU, as KVM has it on x86 (kvm_mediated_pmu_load, kvm_mediated_pmu_put, perf_load_guest_context)."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from services import registers as r
from services.cpu import Cpu, Entry, Notice
from services.experiment import EventSpec, HostCpuSpec
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.simulation import Simulation
from services.registers import PMEVCNTR, PMEVTYPER
from tests.kvm.scripted import INST_RETIRED, Scripted, experiment, simulation
from tests.kvm.test_designs import host_session

COUNTERS = 10
HOSTS = EventSpec("instructions:H", INST_RETIRED, 0, exclude_guest=True)
WORK = 3_000_000  # cycles, half an instruction each


async def ran(exits: int, *events: EventSpec, axes: dict[str, str] | None = None) -> tuple[Simulation, list[int]]:
    """A guest that counts its instructions on counter 0 and makes so many hypercalls; what it reads of the counter."""
    found: list[int] = []

    async def boot(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.msr(PMEVTYPER(0), INST_RETIRED | r.PMEVTYPER_P)
        cpu.burst.msr(PMEVCNTR(0), 0)
        cpu.burst.msr(r.PMCNTENSET_EL0, 1)
        cpu.burst.msr(r.PMCR_EL0, r.PMCR_LC | r.PMCR_E)
        for _ in range(exits):
            cpu.burst.hvc(0)
        cpu.burst.compute(2, 0, WORK)

    async def resume(cpu: Cpu, entry: Entry) -> None:
        found.append(await cpu.mrs(PMEVCNTR(0)))
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    of = experiment("mediated", counters=COUNTERS, axes=axes)
    of = replace(of, host=replace(of.host, cpus=(HostCpuSpec(sessions=(host_session(*events),) if events else ()),)))
    made = simulation(of, Scripted(boot=boot, resume=resume))
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    await made.run()
    return made, found


async def test_the_pmu_changes_hands_at_every_entry_and_exit_without_what_matches() -> None:
    """Of the guest's counters and types nothing is written: they are still there. Enables and PMCR_EL0 are switched."""
    (few, _), (more, counted) = await ran(2), await ran(7)
    before, after = few.vcpus[0].vpmu.swaps, more.vcpus[0].vpmu.swaps
    assert (after.loads - before.loads, after.puts - before.puts) == (5, 5)
    assert after.register_writes - before.register_writes == 5 * len(
        (r.PMCNTENSET_EL0, r.PMCR_EL0, r.PMCNTENCLR_EL0, r.PMCR_EL0)
    )
    entry, left = 2 * (COUNTERS + 1) + 6, COUNTERS + 1 + 6
    assert after.register_reads - before.register_reads == 5 * (entry + left)
    assert counted == [WORK // 2]


async def test_the_hypervisors_own_code_leaves_it_where_it_is() -> None:
    """A trapped access that is completed there is no exit (x86: a fastpath exit that enters again)."""
    swaps = [(await ran(2, axes={"traps": traps}))[0].vcpus[0].vpmu.swaps for traps in ("fast-path", "slow-path")]
    assert swaps[0].loads == swaps[1].loads - 5  # four accesses of the boot and the one after the work


@pytest.mark.parametrize("exits", [0, 100])
async def test_an_event_that_excludes_guests_counts_at_exits_by_a_clock_without_the_guests_time(exits: int) -> None:
    """perf_event_time: enabled for as long as it has run, and that is what the guest has left of the time."""
    made, counted = await ran(exits, HOSTS)
    (event,) = orjson.loads(orjson.dumps(await made.result()))["hosts"][0]["sessions"][0]["events"]
    assert event["enabled"] == event["running"]
    assert 0 < event["enabled"] < made.now / 3 - WORK / 3  # ns at 3 GHz
    assert event["count"] > exits * 100
    assert counted == [WORK // 2]


async def test_counters_beyond_the_guests_are_hidden_from_it_and_the_hosts_at_its_exits() -> None:
    """MDCR_EL2.HPMN is 2 for the guest, and the CPU's N at EL2: there PMCR_EL0.E starts and stops all of them."""
    seen: list[int] = []

    async def boot(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.msr(r.PMCNTENSET_EL0, r.MASK32)
        seen.append(await cpu.mrs(r.PMCR_EL0) >> r.PMCR_N_SHIFT & 0x1F)
        seen.append(await cpu.mrs(r.PMCNTENSET_EL0))
        for _ in range(100):
            cpu.burst.hvc(0)
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    of = experiment("mediated", counters=2)
    events = (HOSTS,) * of.cpus[0].counters
    of = replace(of, host=replace(of.host, cpus=(HostCpuSpec(sessions=(host_session(*events),)),)))
    made = simulation(of, Scripted(boot=boot))
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    await made.run()
    assert seen == [2, r.counter_mask(2)]
    (session,) = orjson.loads(orjson.dumps(await made.result()))["hosts"][0]["sessions"]
    counts = [event["count"] for event in session["events"]]
    assert len(counts) == COUNTERS
    assert min(counts) > 100 * 100
    assert max(counts) < 1.05 * min(counts)


async def test_a_preempted_vcpu_has_left_its_guest() -> None:
    """Its registers are in memory and the host's events on the PMU before the next thread is there."""
    of = experiment("mediated", counters=COUNTERS, vcpus=(0, 0))
    of = replace(of, host=replace(of.host, cpus=(HostCpuSpec(sessions=(host_session(HOSTS),)),)))

    async def boot(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.msr(PMEVTYPER(0), INST_RETIRED | r.PMEVTYPER_P)
        cpu.burst.msr(r.PMCNTENSET_EL0, 1)
        cpu.burst.msr(r.PMCR_EL0, r.PMCR_LC | r.PMCR_E)
        cpu.burst.compute(2, 0, 20 * WORK)

    async def resume(cpu: Cpu, entry: Entry) -> None:
        assert await cpu.mrs(PMEVCNTR(0)) == 10 * WORK
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    made = simulation(of, Scripted(boot=boot, resume=resume))
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    preempted = 0
    while made.working:
        await made.step()
        for vcpu in made.vcpus:
            if made.pcpus[0].rq.current is not vcpu:
                assert not vcpu.entered
                preempted += vcpu.ran
    assert preempted
