"""A small world: two vCPUs whose software is a script, on one pCPU whose host counts three events."""

from __future__ import annotations

from dataclasses import dataclass

from services import registers as r
from services.costs import load
from services.cpu import Cpu, Entry, EntryKind
from services.experiment import (
    CpuSpec,
    DesignSpec,
    EventSpec,
    Experiment,
    GuestSpec,
    HostCpuSpec,
    HostSpec,
    SessionSpec,
    VcpuSpec,
)
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.simulation import Simulation
from services.state import Saved, restore, save

HZ = 3_000_000_000
RATES = ((r.INST_RETIRED, 1 << 31),)
HOST, GUEST, PROGRAM = range(3)  # profiles

# Register, and what is written to it; None reads it.
PROGRAMMED = (
    (r.PMEVTYPER(0), r.INST_RETIRED),
    (r.PMEVTYPER(1), r.INST_RETIRED),
    (r.PMEVCNTR(0), 0xFFFF_0000),
    (r.PMINTENSET_EL1, 0b01),
    (r.PMCNTENSET_EL0, 0b11),
    (r.PMCR_EL0, r.PMCR_LC | r.PMCR_E),
)
REPEATED = ((r.PMEVCNTR(0), None), (r.PMEVCNTR(1), 5), (r.PMCNTENCLR_EL0, 0b10), (r.PMCNTENSET_EL0, 0b10))
WORK = 100_000  # cycles between two of the accesses


@dataclass(slots=True)
class Script:
    """A guest's software: it programs its counters, then makes one access after the other, and works in between."""

    at: int = 0  # the next access, counted over all repetitions
    read: int = 0  # the last value that it read

    async def enter(self, cpu: Cpu, entry: Entry) -> None:
        match entry.kind:
            case EntryKind.BOOT:
                for register, value in PROGRAMMED:
                    cpu.burst.msr(register, value)
                cpu.burst.compute(PROGRAM, 0, WORK)
            case EntryKind.RESUME:
                register, written = REPEATED[self.at % len(REPEATED)]
                self.at += 1
                if written is None:
                    self.read = await cpu.mrs(register)
                else:
                    cpu.burst.msr(register, written)
                cpu.burst.compute(PROGRAM, 0, WORK)
            case EntryKind.PMU_IRQ:
                cpu.burst.msr(r.PMOVSCLR_EL0, await cpu.mrs(r.PMOVSCLR_EL0))


class World:
    """All that takes part in it."""

    def __init__(self, design: str) -> None:
        self.simulation = Simulation(_experiment(design))
        self.host = HostPerf()
        self.scripts = [Script() for _ in self.simulation.vcpus]
        self.simulation.attend_host(0, LocalSoftware(self.host.attend(0)))
        for vcpu, script in zip(self.simulation.vcpus, self.scripts, strict=True):
            self.simulation.attend_guest(vcpu.name, vcpu.index, LocalSoftware(script))

    async def run(self, interactions: int) -> None:
        for _ in range(interactions):
            await self.simulation.step()

    def state(self) -> Saved:
        return {
            "kvm": self.simulation.state(),
            "host_perf": self.host.state(),
            "guests": [save(script) for script in self.scripts],
        }

    def restore(self, state: Saved) -> None:
        self.simulation.restore(state["kvm"])
        self.host.restore(state["host_perf"])
        for script, saved in zip(self.scripts, state["guests"], strict=True):
            restore(script, saved)


def _experiment(design: str) -> Experiment:
    events = (
        EventSpec("instructions", r.INST_RETIRED, 0, frequency=1000),
        EventSpec("cycles:D", r.CPU_CYCLES, 1, pinned=True),
        EventSpec("instructions:H", r.INST_RETIRED, 2, exclude_guest=True),
    )
    return Experiment(
        scenario="small world",
        seed=1,
        frequency_hz=HZ,
        cpus=(CpuSpec(model="small", counters=4, pmuver=6, fgt=1),),
        events=(r.INST_RETIRED, r.CPU_CYCLES),
        costs=load("altra-n1-vhe").cycles(HZ),
        profiles=(RATES,) * 3,
        host_kernel_profile=HOST,
        guest_kernel_profile=GUEST,
        host=HostSpec(hz=250, cpus=(HostCpuSpec(sessions=(SessionSpec("record", events, cpu_wide=True),)),)),
        guests=(GuestSpec("vm0", 250, 2, 6, (VcpuSpec(0, ()), VcpuSpec(0, ()))),),
        design=DesignSpec(design, {}),
    )
