"""A PMU interrupt that is under way: it meets whatever runs when it arrives, or nothing any more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import pmulab
from services import registers as r
from services.cpu import Cpu, Entry, EntryKind, Notice
from services.experiment import CpuSpec
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.registers import PMEVCNTR, PMEVTYPER
from tests.kvm.scripted import HZ, INST_RETIRED, Scripted, experiment, simulation

MS = HZ // 1000
WORK = 40 * MS
LATE = 7 * MS // 2  # for an overflow at 1 ms: it arrives after the tick at 4 ms, at which the vCPUs change places
BACK = 8 * MS

SERVICE = """
[[guest]]
pin = [0]
[[guest.task]]
workload = "service"
seconds = "50 us"
sleep_ms = "50 us"
repeat = 200
[guest.task.perf]
verb = "record"
period = 100000
events = "branches"
"""


class Counting:
    """A kernel with its PMU interrupt enabled, whose counter overflows after `first` instructions of its work."""

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self.found: list[int] = []  # PMOVSCLR_EL0 as its handler has it
        self.software = Scripted(boot=self.boot, resume=self.done, pmu_irq=self.pmu_irq)

    async def boot(self, cpu: Cpu, _entry: Entry) -> None:
        cpu.burst.msr(PMEVTYPER(0), INST_RETIRED | r.PMEVTYPER_P)
        cpu.burst.msr(PMEVCNTR(0), (1 << 32) - self.first if self.first else 0)
        cpu.burst.msr(r.PMINTENSET_EL1, 1)
        cpu.burst.msr(r.PMCNTENSET_EL0, 1)
        cpu.burst.msr(r.PMCR_EL0, r.PMCR_LC | r.PMCR_E)
        cpu.burst.compute(2, 0, WORK)

    async def done(self, cpu: Cpu, _entry: Entry) -> None:
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    async def pmu_irq(self, cpu: Cpu, _entry: Entry) -> None:
        flags = await cpu.mrs(r.PMOVSCLR_EL0)
        cpu.burst.msr(r.PMOVSCLR_EL0, flags)
        self.found.append(flags)


async def overflow_and_put(design: str, pmi_delay: int) -> tuple[Counting, Counting, dict[int, int]]:
    """Two vCPUs take turns by the tick; the first one overflows 1 ms after it began.

    Both, and how often the host's handler found overflows that were no guest's, by how late they were.
    """
    cpu = CpuSpec(model="test", counters=10, pmuver=6, fgt=1, pmi_delay=pmi_delay)
    counters = 10 if design in ("raw", "mediated") else 6
    made = simulation(experiment(design, vcpus=(0, 0), counters=counters, cpu=cpu), Scripted())
    host, kernels = HostPerf(), (Counting(first=MS // 2), Counting())
    made.attend_host(0, LocalSoftware(host.attend(0)))
    for vcpu, kernel in zip(made.vcpus, kernels, strict=True):
        made.attend_guest(vcpu.name, vcpu.index, LocalSoftware(kernel.software))
    await made.run()
    return *kernels, made.pcpus[0].latencies.times


@pytest.mark.parametrize("design", ["emulated", "partitioned", "partitioned-v7", "partitioned-v8"])
async def test_at_once_it_is_its_owners(design: str) -> None:
    owner, other, hosts = await overflow_and_put(design, 0)
    assert (owner.found, other.found, hosts) == ([1], [], {})


@pytest.mark.parametrize("design", ["partitioned", "partitioned-v8", "mediated", "gunyah"])
async def test_a_put_that_saves_the_flag_brings_it_home_though_the_interrupt_never_arrives(design: str) -> None:
    """vcpu_put drains PMOVSSET_EL0 and so lowers the line; the flag is pending at the owner's next load."""
    owner, other, _ = await overflow_and_put(design, LATE)
    assert (owner.found, other.found) == ([1], [])
    assert owner.software.entered[1].kind is EntryKind.PMU_IRQ
    assert owner.software.entered[1].now > BACK


class Sleeper(Counting):
    """It waits for its interrupt, which is under way by then."""

    def __init__(self) -> None:
        super().__init__(first=1000)

    async def boot(self, cpu: Cpu, entry: Entry) -> None:
        await super().boot(cpu, entry)
        cpu.burst.compute(2, 0, 3000)

    async def done(self, cpu: Cpu, _entry: Entry) -> None:
        cpu.burst.wfi()

    async def pmu_irq(self, cpu: Cpu, entry: Entry) -> None:
        await super().pmu_irq(cpu, entry)
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()


@pytest.mark.parametrize("pseudo_nmi", [False, True])
async def test_a_put_that_saves_the_flag_wakes_a_vcpu_that_is_about_to_sleep(pseudo_nmi: bool) -> None:
    """A vCPU that has found nothing pending (kvm_vcpu_check_block) is put by schedule(): the flag is found there."""
    cpu = CpuSpec(model="test", counters=10, pmuver=6, fgt=1, pmi_delay=LATE)
    of = experiment("partitioned", counters=6, cpu=cpu)
    made = simulation(replace(of, host=replace(of.host, pseudo_nmi=pseudo_nmi)), Scripted())
    host, kernel = HostPerf(), Sleeper()
    made.attend_host(0, LocalSoftware(host.attend(0)))
    made.attend_guest(made.vcpus[0].name, 0, LocalSoftware(kernel.software))
    await made.run()
    assert kernel.found == [1]


async def test_what_overflowed_before_its_event_is_scheduled_out_is_lost() -> None:
    """armpmu_del clears the flag with the event (armv8pmu_disable_intens): nobody ever hears of the overflow."""
    owner, other, hosts = await overflow_and_put("emulated", LATE)
    assert (owner.found, other.found, hosts) == ([], [], {})


async def test_a_put_that_leaves_flag_and_enable_on_the_cpu_has_it_arrive_while_another_runs() -> None:
    """Without a swap the host's handler takes the first vCPU's overflow while the second runs, and no guest gets it."""
    owner, other, hosts = await overflow_and_put("raw", LATE)
    assert (owner.found, other.found) == ([], [])
    assert [length // LATE for length in hosts] == [1]


def recorded(tmp_path: Path, **settings: object) -> pmulab.Guest:
    path = tmp_path / "service.toml"
    path.write_text(SERVICE)
    overrides = {f"machine.{key}": value for key, value in settings.items()}
    (run,) = pmulab.run(path, designs=["partitioned"], overrides=overrides).runs
    return run.guests[0]


def test_a_task_that_switches_often_loses_the_more_samples_the_later_they_come(tmp_path: Path) -> None:
    at_once, late = recorded(tmp_path), recorded(tmp_path, pmi_delay="20 us")
    assert late.events[0].samples < 0.75 * at_once.events[0].samples
    before, after = at_once.interrupt_latency[0].p50_ns, late.interrupt_latency[0].p50_ns
    assert before is not None
    assert after is not None
    assert after - before == pytest.approx(20_000, abs=100)


def test_it_is_in_ns_or_has_a_unit_and_one_for_all_or_one_for_each(tmp_path: Path) -> None:
    assert recorded(tmp_path, pmi_delay=2000) == recorded(tmp_path, pmi_delay="2 us")
    assert recorded(tmp_path, pmi_delay=[2000, "2 us"]) == recorded(tmp_path, pmi_delay="2 us", pcpus=2)
    with pytest.raises(pmulab.UserError, match=r"pmi_delay\[1\] = '2 uss' is not a length of time"):
        recorded(tmp_path, pmi_delay=["2 us", "2 uss"])


def test_a_core_of_the_users_own_may_say_it(tmp_path: Path) -> None:
    core = tmp_path / "mine.toml"
    core.write_text('counters = 31\npmuver = 9\nfgt = 2\nhpmn0 = true\nicntr = true\nsource = "mine"\n')
    said = tmp_path / "late.toml"
    said.write_text(core.read_text() + 'pmi_delay = "3 us"\n')
    assert recorded(tmp_path, core=str(said)) == recorded(tmp_path, core=str(core), pmi_delay="3 us")
