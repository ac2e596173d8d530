"""The host of each posted version: its driver's counters, how it starts and stops, whose flags its interrupt finds."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import pytest

from services import registers as r
from services.cpu import Cpu, Entry, Notice, Timer
from services.experiment import CpuSpec, EventSpec, Experiment, HostCpuSpec, SessionSpec
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.simulation import Simulation
from services.kvm.vcpu import VCpu
from tests.kvm.posted_traffic import seen
from tests.kvm.scripted import INST_RETIRED, Scripted, clear, experiment, simulation
from tests.kvm.test_partitioned_versions import VERSIONS

HPME = VERSIONS[2:6]


class Touching(Scripted):
    """Makes one access, sleeps, and works."""

    def __init__(self) -> None:
        super().__init__(boot=self.boot, timer=self.work)

    async def boot(self, cpu: Cpu, entry: Entry) -> None:
        await cpu.mrs(r.PMCR_EL0)
        await self.work(cpu, entry)
        cpu.burst.timer(Timer.SLEEP, cpu.now + 100_000)
        cpu.burst.wfi()

    async def work(self, cpu: Cpu, entry: Entry) -> None:
        cpu.burst.msr(r.PMSELR_EL0, 0)
        await cpu.wait()
        cpu.burst.compute(1, 1, 1_000_000)


def with_host_events(design: str, count: int) -> Experiment:
    """On each of two pCPUs with six counters; the guest has four of them on the first."""
    of = experiment(design, pcpus=2, counters=4, cpu=CpuSpec(model="test", counters=6, pmuver=6, fgt=1))
    events = tuple(EventSpec(f"r8:{n}", INST_RETIRED, n) for n in range(count))
    host = HostCpuSpec(sessions=(SessionSpec("host", events, cpu_wide=True),))
    return replace(of, host=replace(of.host, cpus=(host, host)))


async def resident(of: Experiment) -> tuple[Simulation, list[int]]:
    """Its vCPU is loaded, with its registers on the CPU; the counters that the host's driver may use on each CPU."""
    host = HostPerf()
    made = Simulation(of)
    kernels = [host.attend(pcpu.cpu) for pcpu in made.pcpus]
    for pcpu, kernel in zip(made.pcpus, kernels, strict=True):
        made.attend_host(pcpu.cpu, LocalSoftware(kernel))
    (vcpu,) = made.vcpus
    clear(vcpu.pmu)
    made.attend_guest(vcpu.name, 0, LocalSoftware(Touching()))
    while not (vcpu.vpmu.swaps.loads and made.pcpus[0].rq.current is vcpu):
        await made.step()
    return made, [kernel.perf.pmu.cntr_mask for kernel in kernels]


@pytest.mark.parametrize("design", ["partitioned-v7", "partitioned-v8", "partitioned-v9"])
async def test_up_to_v8_what_a_vcpu_takes_on_one_cpu_the_hosts_driver_lacks_on_another(design: str) -> None:
    """arm_pmu.cntr_mask is one bitmap for all CPUs of the PMU; in v9 there is one for each CPU."""
    _, masks = await resident(with_host_events(design, 1))
    hosts = r.counter_mask(6) & ~r.counter_mask(4)
    assert masks == [hosts, r.counter_mask(6) if design == "partitioned-v9" else hosts]


@pytest.mark.parametrize("design", ["partitioned-v8", "partitioned-v9"])
async def test_in_v9_a_squeeze_asks_for_the_el0_filters_once_more(design: str) -> None:
    """kvm_vcpu_pmu_resync_el0() out of interrupt context: at the put, whose request outlives it, and at the load."""
    made, _ = await resident(with_host_events(design, 5))
    (vcpu,) = made.vcpus
    vcpu.trap_null()
    await vcpu.pcpu.preempt()
    assert vcpu.resync_due is (design == "partitioned-v9")
    with mock.patch.object(VCpu, "resync_el0", autospec=True) as asked:
        await made.step()
        while made.pcpus[0].rq.current is not vcpu:
            await made.step()
    assert asked.called is (design == "partitioned-v9")


@pytest.mark.parametrize("design", VERSIONS)
async def test_from_v3_to_v6_the_driver_starts_and_stops_by_hpme_too_whether_or_not_a_vcpu_is_loaded(
    design: str,
) -> None:
    """One MRS and one MSR more each."""
    made = Simulation(with_host_events(design, 1))
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    machine = made.board.machine
    machine.observe(True)
    await made.step()  # boots, and opens its event
    accesses = seen(machine.observed())
    toggles = [
        (bool(one.value & r.MDCR_EL2_HPME), bool(pmcr.value & r.PMCR_E))
        for before, one, _, pmcr in zip(accesses, accesses[1:], accesses[2:], accesses[3:], strict=False)
        if (before.register, before.write, one.register, one.write) == (r.MDCR_EL2, False, r.MDCR_EL2, True)
        if pmcr.register == r.PMCR_EL0 and pmcr.write and one.value is not None and pmcr.value is not None
    ]
    writes = [one for one in accesses if one.write and one.register == r.MDCR_EL2]
    assert len(toggles) == len(writes)
    assert bool(toggles) is (design in HPME)
    assert all(hpme == e for hpme, e in toggles)


@pytest.mark.parametrize("design", VERSIONS)
async def test_an_overflow_before_its_vcpus_next_load_is_one_interrupt(design: str) -> None:
    """The handler's mask of guests' counters is as static as their partition; in v9 it is the running vCPU's."""
    interrupts: list[int] = []

    async def boot(cpu: Cpu, entry: Entry) -> None:
        for register, value in (
            (r.PMSELR_EL0, 0),  # from here on it is GUEST_OWNED: in v6 a PMCCNTR_EL0 that traps is not written
            (r.PMCCNTR_EL0, r.MASK64 - 100),
            (r.PMCCFILTR_EL0, 0),
            (r.PMCNTENSET_EL0, r.CYCLE_BIT),
            (r.PMINTENSET_EL1, r.CYCLE_BIT),
            (r.PMCR_EL0, r.PMCR_E | r.PMCR_LC),
        ):
            cpu.burst.msr(register, value)
        cpu.burst.compute(1, 1, 1_000_000)
        await cpu.wait()

    async def handler(cpu: Cpu, entry: Entry) -> None:
        interrupts.append(await cpu.mrs(r.PMOVSCLR_EL0))
        cpu.burst.msr(r.PMOVSCLR_EL0, r.CYCLE_BIT)
        await cpu.wait()

    async def resume(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    made = simulation(experiment(design), Scripted(boot=boot, pmu_irq=handler, resume=resume))
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    await made.run()
    assert interrupts == [r.CYCLE_BIT]
