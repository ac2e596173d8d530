"""What a posted version has wrong that another has not: of its masks and numbers, and of what it leaves in memory."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import pytest

from services import registers as r
from services.cpu import Cpu, Entry, Timer
from services.experiment import CpuSpec, EventSpec, Experiment, HostCpuSpec, SessionSpec
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.designs.partitioned.v7 import V7
from services.kvm.simulation import Simulation
from services.kvm.vcpu import VCpu
from services.registers import CYCLE_BIT, PMEVTYPER
from tests.kvm.scripted import INST_RETIRED, Scripted, clear, experiment
from tests.kvm.stub_vcpu import access, vcpu_load, vcpu_put
from tests.kvm.test_partitioned_versions import FGT, VERSIONS, H, owned

UP_TO_V4 = VERSIONS[:4]
DENIED = 0x08 | r.PMEVTYPER_NSH


async def test_v1_takes_the_cpus_counters_for_the_guests() -> None:
    """A trapped PMEVTYPER<n>_EL0 of one above HPMN is a host's event then."""
    vpmu, vcpu = await owned("partitioned-v1")
    await access(vpmu, PMEVTYPER(H), True, 0x11)
    assert vcpu.peek(PMEVTYPER(H)) == 0x11


@pytest.mark.parametrize("design", VERSIONS[1:])
async def test_from_v2_to_v4_the_guest_reads_back_the_filters_bits(design: str) -> None:
    vpmu, vcpu = await owned(design)
    await access(vpmu, PMEVTYPER(0), True, 0x08)
    vcpu.pmu.denied = [0x08]
    await vcpu_put(vpmu)
    await vcpu_load(vpmu)
    filtered = 0x08 | r.PMEVTYPER_P | r.PMEVTYPER_U
    assert vcpu.peek(PMEVTYPER(0)) == filtered
    assert await access(vpmu, PMEVTYPER(0), False, 0) == (filtered if design in UP_TO_V4 else 0x08)


@pytest.mark.parametrize("design", VERSIONS)
async def test_up_to_v4_a_load_resets_what_the_vmm_has_set_p_and_c_for(design: str) -> None:
    """The saved PMCR_EL0 is written raw, from EL2, behind the counters: P resets the host's, too."""
    vpmu, vcpu = await owned(design)
    await vcpu_put(vpmu)
    vcpu.pmu.pmcr = r.PMCR_P | r.PMCR_C  # KVM_SET_ONE_REG
    vcpu.pmu.counter[0] = 41
    vcpu.machine.poke(0, r.PMEVCNTR(H), 42)
    await vcpu_load(vpmu)
    found = [vcpu.peek(one) for one in (r.PMEVCNTR(0), r.PMEVCNTR(H))]
    assert found == ([0, 0] if design in UP_TO_V4 else [41, 42])


@pytest.mark.parametrize("design", VERSIONS)
async def test_in_v6_and_v7_the_put_keeps_its_own_pmselr(design: str) -> None:
    """Its loop has overwritten the guest's: with 31 in v6, with the last event counter's number in v7."""
    vpmu, vcpu = await owned(design)
    vcpu.machine.poke(0, r.PMSELR_EL0, 0)
    await vcpu_put(vpmu)
    assert vcpu.pmu.selr == {"partitioned-v6": 31, "partitioned-v7": H - 1}.get(design, 0)


@pytest.mark.parametrize(("design", "counters"), [("partitioned-v7", 4), ("partitioned-v8", 2)])
async def test_in_v7_hpmn_reaches_into_the_hosts_counters_where_the_vm_wants_more_than_the_partition_has(
    design: str, counters: int
) -> None:
    of = experiment(design, counters=4, cpu=replace(FGT, reserved_host_counters=4))
    (vcpu,) = Simulation(of).vcpus
    assert vcpu.pmu.counters == counters
    vcpu.vpmu.context.owned = True  # type: ignore[attr-defined]
    vcpu.pcpu.enter_kernel()
    vcpu.vpmu.activate_traps()
    assert vcpu.machine.peek(0, r.MDCR_EL2) & r.MDCR_EL2_HPMN == counters


def test_in_v7_a_partition_without_event_counters_has_a_mask_of_all_ones() -> None:
    """GENMASK(-1, 0)."""
    cpu = replace(FGT, reserved_host_counters=FGT.counters)
    assert V7().host_policy(cpu).guest_flags == r.MASK64
    assert V7().host_policy(FGT).guest_flags == r.MASK64  # no VM wants any
    assert V7().host_policy(replace(cpu, reserved_host_counters=5)).guest_flags == 0b1 | CYCLE_BIT


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
