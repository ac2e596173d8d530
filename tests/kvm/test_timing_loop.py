"""Software that times itself: a trapped access takes its own cost, at the guest's exception level, before the trap."""

import pytest

from services import registers as r
from services.cpu import Cpu, Entry, Notice
from services.experiment import CpuSpec
from services.host_perf import HostPerf
from services.kvm import designs
from services.kvm.attendant import LocalSoftware
from services.kvm.simulation import Simulation
from tests.kvm.scripted import Scripted, experiment, simulation

NO_FGT = CpuSpec(model="no FEAT_FGT", counters=10, pmuver=6)
FGT = CpuSpec(model="FEAT_FGT", counters=10, pmuver=6, fgt=1)
SAMPLES = 10


class CheckCyclesIncrease:
    """kvm-unit-tests, arm/pmu.c, check_cycles_increase()."""

    def __init__(self) -> None:
        self.samples: list[int] = []
        self.software = Scripted(boot=self.boot)

    async def boot(self, cpu: Cpu, entry: Entry) -> None:
        burst = cpu.burst
        burst.msr(r.PMCNTENSET_EL0, r.CYCLE_BIT)
        burst.msr(r.PMCCFILTR_EL0, 0)
        burst.msr(r.PMCR_EL0, r.PMCR_LC | r.PMCR_C | r.PMCR_E)
        burst.isb()
        for _ in range(2 * SAMPLES):
            burst.mrs(r.PMCCNTR_EL0)
        self.samples = await cpu.wait()
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()


async def ran(design: str, cpu: CpuSpec, guest: CheckCyclesIncrease) -> Simulation:
    counters = cpu.counters if design in ("mediated", "raw") else 6
    made = simulation(experiment(design, cpu=cpu, counters=counters), guest.software)
    host = HostPerf()
    for pcpu in made.pcpus:
        made.attend_host(pcpu.cpu, LocalSoftware(host.attend(pcpu.cpu)))
    await made.run()
    return made


@pytest.mark.parametrize("cpu", [FGT, NO_FGT], ids=lambda cpu: cpu.model)
@pytest.mark.parametrize("design", [name for name in designs.designs() if name.startswith("emulated")])
async def test_the_cycle_counter_of_an_emulated_guest_increases_by_each_reads_own_cost(
    design: str, cpu: CpuSpec
) -> None:
    guest = CheckCyclesIncrease()
    made = await ran(design, cpu, guest)
    cost = made.board.experiment.costs["mrs"]
    assert cost > 0
    assert [b - a for a, b in zip(guest.samples, guest.samples[1:], strict=False)] == [cost] * (2 * SAMPLES - 1)


@pytest.mark.parametrize("design", ["partitioned", "gunyah", "mediated", "raw"])
async def test_the_cycle_counter_increases_whoever_owns_it(design: str) -> None:
    guest = CheckCyclesIncrease()
    await ran(design, FGT, guest)
    assert all(a < b for a, b in zip(guest.samples, guest.samples[1:], strict=False))
