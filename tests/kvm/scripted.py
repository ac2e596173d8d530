"""A small experiment, and software that does what a test says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from services.costs import load
from services.cpu import Cpu, Entry, EntryKind
from services.experiment import (
    CpuSpec,
    DesignSpec,
    Experiment,
    GuestSpec,
    HostCpuSpec,
    HostSpec,
    VcpuSpec,
)
from services.kvm.attendant import LocalSoftware
from services.kvm.guest_pmu import GuestPmu
from services.kvm.simulation import Simulation

HZ = 3_000_000_000
ONE_PER_CYCLE = 1 << 32
HALF_PER_CYCLE = 1 << 31
INST_RETIRED = 0x08

Handler = Callable[[Cpu, Entry], Awaitable[None]]


def experiment(
    design: str = "partitioned",
    *,
    pcpus: int = 1,
    vcpus: tuple[int, ...] = (0,),
    counters: int = 6,
    cpu: CpuSpec | None = None,
    axes: Mapping[str, str] | None = None,
) -> Experiment:
    """One guest with vCPUs on the pCPUs named; profile 0 is the host's kernel, 1 the guest's, 2 its user work."""
    cpu = cpu or CpuSpec(model="test", counters=10, pmuver=6, fgt=1)
    rates = ((INST_RETIRED, HALF_PER_CYCLE),)
    return Experiment(
        scenario="test",
        seed=1,
        frequency_hz=HZ,
        cpus=(cpu,) * pcpus,
        events=(INST_RETIRED, 0x11),
        costs=load("altra-n1-vhe").cycles(HZ),
        profiles=(rates, rates, rates),
        host_kernel_profile=0,
        guest_kernel_profile=1,
        host=HostSpec(hz=250, cpus=(HostCpuSpec(),) * pcpus),
        guests=(GuestSpec("vm0", 250, counters, 6, tuple(VcpuSpec(pcpu, ()) for pcpu in vcpus)),),
        design=DesignSpec(design, dict(axes or {})),
    )


def clear(pmu: GuestPmu) -> None:
    """As by KVM_SET_ONE_REG of 0: at reset most registers are UNKNOWN, and a guest that is a test's resets none."""
    pmu.pmcr = pmu.cnten = pmu.inten = pmu.ovs = pmu.selr = pmu.userenr = 0
    pmu.typer, pmu.counter = [0] * len(pmu.typer), [0] * len(pmu.counter)


class Scripted:
    """Software whose handlers are a test's functions, by kind of entry; it idles otherwise."""

    def __init__(self, **handlers: Handler) -> None:
        self.handlers = {EntryKind[kind.upper()]: handler for kind, handler in handlers.items()}
        self.entered: list[Entry] = []

    async def enter(self, cpu: Cpu, entry: Entry) -> None:
        self.entered.append(entry)
        if entry.kind in self.handlers:
            await self.handlers[entry.kind](cpu, entry)
        elif entry.kind == EntryKind.REPORT:
            cpu.answer(b'{"elapsed": 0, "user": 0, "system": 0}')
        elif entry.kind in (EntryKind.BOOT, EntryKind.RESUME):
            self.rest(cpu)

    def rest(self, cpu: Cpu) -> None:
        cpu.burst.wfi()


class ScriptedHost(Scripted):
    """The host's kernel has nothing to wait for: it returns to whom it interrupted."""

    def rest(self, cpu: Cpu) -> None:
        pass


def simulation(of: Experiment, guest: Scripted, host: ScriptedHost | None = None) -> Simulation:
    """`of` with one guest, whose PMU the VMM has cleared, and a host that does nothing of its own."""
    made = Simulation(of)
    for vcpu in made.vcpus:
        clear(vcpu.pmu)
    for pcpu in made.pcpus:
        made.attend_host(pcpu.cpu, LocalSoftware(host or ScriptedHost()))
    for vcpu in made.vcpus:
        made.attend_guest(vcpu.name, vcpu.index, LocalSoftware(guest))
    return made
