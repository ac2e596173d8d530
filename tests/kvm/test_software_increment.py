"""PMSWINC_EL0: it counts, overflows and chains whether or not it traps (kvm-unit-tests, arm/pmu.c, test_sw_incr)."""

from collections.abc import Mapping

import pytest

from services import registers as r
from services.cpu import Cpu, Entry, Notice
from services.experiment import CpuSpec
from services.host_perf import HostPerf
from services.kvm import designs
from services.kvm.attendant import LocalSoftware
from services.registers import PMEVCNTR, PMEVTYPER
from tests.kvm.scripted import Scripted, experiment, simulation
from tests.kvm.stub_vcpu import StubVcpu, access, vcpu_load, vcpu_put

NO_FGT = CpuSpec(model="no FEAT_FGT", counters=10, pmuver=6)
FGT = CpuSpec(model="FEAT_FGT", counters=10, pmuver=6, fgt=1)
ALMOST = 2**32 - 1 - 50
COUNTERS = (0, 1, 2, 3)


class Increments:
    """PMSWINC_EL0 100 times over, of `mask`, with `types` on counters that have `start`."""

    def __init__(self, types: Mapping[int, int], start: Mapping[int, int], mask: int, pmcr: int = r.PMCR_E) -> None:
        self.types, self.start, self.mask, self.pmcr = types, start, mask, pmcr
        self.counts: list[int] = []
        self.flags = 0
        self.irqs: list[int] = []
        self.software = Scripted(boot=self.boot, resume=self.resume, pmu_irq=self.pmu_irq)

    async def boot(self, cpu: Cpu, entry: Entry) -> None:
        burst = cpu.burst
        for n in COUNTERS:
            burst.msr(PMEVTYPER(n), self.types.get(n, r.SW_INCR))
            burst.msr(PMEVCNTR(n), self.start.get(n, 0))
        burst.msr(r.PMCNTENSET_EL0, sum(1 << n for n in self.types))
        burst.msr(r.PMINTENSET_EL1, sum(1 << n for n in self.types))
        burst.msr(r.PMCR_EL0, self.pmcr)
        for _ in range(100):
            burst.msr(r.PMSWINC_EL0, self.mask)
        for n in COUNTERS:
            burst.mrs(PMEVCNTR(n))
        burst.mrs(r.PMOVSSET_EL0)
        *self.counts, self.flags = await cpu.wait()
        cpu.burst.compute(2, 0, 1_000_000)

    async def pmu_irq(self, cpu: Cpu, entry: Entry) -> None:
        self.irqs.append(await cpu.mrs(r.PMOVSCLR_EL0))
        cpu.burst.msr(r.PMOVSCLR_EL0, self.irqs[-1])

    async def resume(self, cpu: Cpu, entry: Entry) -> None:
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()


DESIGNS = [
    ("emulated", {}, FGT),
    ("emulated", {}, NO_FGT),
    ("emulated-6.15", {}, FGT),
    ("partitioned", {}, FGT),
    ("partitioned", {}, NO_FGT),
    ("partitioned", {"traps": "slow-path"}, FGT),
    ("partitioned", {"traps": "fast-path"}, FGT),
    ("partitioned", {"traps": "slow-path", "swap": "lazy"}, FGT),
    ("mediated", {"traps": "slow-path"}, FGT),
    ("gunyah", {}, FGT),
    ("partitioned-v1", {}, NO_FGT),
    ("partitioned-v2", {}, NO_FGT),
    ("partitioned-v3", {}, NO_FGT),
    ("partitioned-v4", {}, NO_FGT),
    ("partitioned-v5", {}, NO_FGT),
    ("partitioned-v6", {}, NO_FGT),
    ("partitioned-v7", {}, NO_FGT),
]


async def ran(design: str, axes: Mapping[str, str], cpu: CpuSpec, guest: Increments) -> Increments:
    counters = cpu.counters if design == "mediated" else 6
    made = simulation(experiment(design, cpu=cpu, counters=counters, axes=axes), guest.software)
    host = HostPerf()
    for pcpu in made.pcpus:
        made.attend_host(pcpu.cpu, LocalSoftware(host.attend(pcpu.cpu)))
    await made.run()
    return guest


@pytest.mark.parametrize(("design", "axes", "cpu"), DESIGNS)
class TestSoftwareIncrement:
    async def test_it_counts_what_is_enabled_and_named(
        self, design: str, axes: Mapping[str, str], cpu: CpuSpec
    ) -> None:
        guest = await ran(design, axes, cpu, Increments({0: r.SW_INCR, 1: 0x08 | r.PMEVTYPER_P}, {2: 7}, mask=0b0111))
        assert (guest.counts, guest.flags, guest.irqs) == ([100, 0, 7, 0], 0, [])

    async def test_it_counts_nothing_while_pmcr_e_is_clear(
        self, design: str, axes: Mapping[str, str], cpu: CpuSpec
    ) -> None:
        guest = await ran(design, axes, cpu, Increments({0: r.SW_INCR}, {}, mask=1, pmcr=0))
        assert (guest.counts[0], guest.flags) == (0, 0)

    async def test_it_counts_at_el1_as_its_filters_say_but_kvm_has_no_look_at_them_where_it_counts_itself(
        self, design: str, axes: Mapping[str, str], cpu: CpuSpec
    ) -> None:
        types = {0: r.SW_INCR | r.PMEVTYPER_P, 1: r.SW_INCR | r.PMEVTYPER_U}
        guest = await ran(design, axes, cpu, Increments(types, {}, mask=0b11))
        emulated = design.startswith("emulated") or (design == "partitioned-v1" and not cpu.fgt)
        assert guest.counts[:2] == [100 if emulated else 0, 100]

    async def test_it_overflows_and_interrupts_and_an_even_counter_chains(
        self, design: str, axes: Mapping[str, str], cpu: CpuSpec
    ) -> None:
        types = {0: r.SW_INCR, 1: r.CHAIN, 3: r.SW_INCR}
        guest = await ran(design, axes, cpu, Increments(types, {0: ALMOST, 3: ALMOST}, mask=0b1001))
        assert [count & 0xFFFF_FFFF for count in guest.counts] == [49, 1, 0, 49]
        assert sum(guest.irqs) == 0b1001, "each flag in one interrupt"

    async def test_it_does_not_chain_where_pmcr_lp_has_it_overflow_from_bit_63(
        self, design: str, axes: Mapping[str, str], cpu: CpuSpec
    ) -> None:
        guest = await ran(
            design, axes, cpu, Increments({0: r.SW_INCR, 1: r.CHAIN}, {0: ALMOST}, mask=1, pmcr=r.PMCR_E | r.PMCR_LP)
        )
        assert guest.counts[:2] == [ALMOST + 100, 0]
        assert guest.flags | sum(guest.irqs) == 0

    async def test_behind_the_last_value_of_64_bits_comes_0(
        self, design: str, axes: Mapping[str, str], cpu: CpuSpec
    ) -> None:
        increments = Increments({0: r.SW_INCR}, {0: r.MASK64 - 50}, mask=1, pmcr=r.PMCR_E | r.PMCR_LP)
        guest = await ran(design, axes, cpu, increments)
        assert (guest.counts[0], sum(guest.irqs)) == (49, 1)


@pytest.mark.parametrize("design", ["partitioned-v8", "partitioned-v9"])
class TestOfV8:
    """Without FEAT_FGT: kvm_pmu_software_increment() counts in memory, where the guest's registers are not."""

    async def test_its_guest_s_counter_stands_still(self, design: str) -> None:
        guest = await ran(design, {}, NO_FGT, Increments({0: r.SW_INCR}, {}, mask=1))
        assert (guest.counts[0], guest.flags, guest.irqs) == (0, 0, [])

    async def test_what_it_counts_is_there_for_the_vmm_up_to_the_next_put(self, design: str) -> None:
        """As PMCR_EL0 and PMCNTEN have been since the last put; an overflow is in memory for good."""
        vcpu = StubVcpu(NO_FGT, 2)
        vpmu = designs.named(design).make({}, guest_range=0b11 | r.CYCLE_BIT).vpmu(vcpu)
        pmu = vcpu.pmu
        await vcpu_load(vpmu)
        for register, value in ((r.PMCR_EL0, r.PMCR_E), (r.PMCNTENSET_EL0, 0b11), (PMEVCNTR(1), 2**32 - 1)):
            await access(vpmu, register, True, value)
        await access(vpmu, r.PMSWINC_EL0, True, 0b11)
        assert pmu.counter[:2] == [0, 0], "memory does not know yet that they are enabled"
        await vcpu_put(vpmu)
        await vcpu_load(vpmu)
        vcpu.tell()
        await access(vpmu, r.PMSWINC_EL0, True, 0b11)
        assert vcpu.tell() == ["r PMUSERENR_EL0"]
        assert (pmu.counter[:2], pmu.ovs) == ([1, 0 if NO_FGT.pmuver < r.PMUVER_P5 else 2**32], 0b10)
        assert [await access(vpmu, PMEVCNTR(n), False, 0) for n in (0, 1)] == [0, 2**32 - 1]
        await vcpu_put(vpmu)
        assert (pmu.counter[:2], pmu.ovs) == ([0, 2**32 - 1], 0b10)
