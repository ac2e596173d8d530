"""A Linux guest's own accesses of one recording (`tests.kvm.recordings`), made again: which of them trap, and what KVM
and the host's driver do for them."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace

from services import registers as r
from services._pmu import register_name
from services.cpu import Cpu, Entry, Notice, TookException
from services.experiment import DesignSpec
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.designs.partitioned.v8 import V8
from services.kvm.simulation import Simulation
from tests.kvm.posted_traffic import BesidePartitioned, seen, simulated, without_6_12, world
from tests.kvm.recordings import Recording, Seen, Vm, encoding, sequence, situation
from tests.kvm.scripted import Scripted

# By kind of VM; the first makes the host's accesses, too.
DESIGNS = {
    Vm.PARTITIONED: (DesignSpec(V8.name),),
    Vm.EMULATED: (
        DesignSpec(BesidePartitioned.name, {"kernel": "7.3"}),
        DesignSpec("emulated"),
    ),
}


# armv8pmu_reset
RESET = [
    *((register, r.MASK32) for register in (r.PMCNTENCLR_EL0, r.PMINTENCLR_EL1, r.PMOVSCLR_EL0)),
    (r.PMCR_EL0, r.PMCR_LC | r.PMCR_LP | r.PMCR_P | r.PMCR_C),
]


class Linux(Scripted):
    """Makes them one after the other, interrupts masked. Its kernel has reset the PMU before, as it does at boot."""

    def __init__(self, accesses: list[Seen]) -> None:
        super().__init__(boot=self.boot)
        self.accesses = accesses
        self.simulation: Simulation

    async def boot(self, cpu: Cpu, entry: Entry) -> None:
        if not any(one.register == r.PMCEID0_EL0 for one in self.accesses):  # else these are its boot's
            for register, value in RESET:
                cpu.burst.msr(register, value)
            await cpu.wait()
        self.simulation.board.machine.observed()
        for one in self.accesses:
            with suppress(TookException):
                await one.perform(cpu)
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()


@dataclass(frozen=True)
class Traffic:
    """What came of it."""

    own: list[Seen]
    host: list[Seen]  # KVM's and its driver's meanwhile


async def traffic(recording: Recording, design: DesignSpec) -> Traffic:
    of = replace(world(situation(recording)), design=design)
    of = replace(of, host=replace(of.host, hz=1))  # no tick meanwhile
    guest = Linux(sequence(recording))
    made = guest.simulation = simulated(of, guest)
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    machine, (vcpu,) = made.board.machine, made.vcpus
    vcpu.pmu.reset()
    machine.observe(True)
    while not vcpu.blocked:
        await made.step()
        vcpu.vgic.line = False
    rows = seen(machine.observed())
    last = max(at for at, one in enumerate(rows) if one.guest)
    return Traffic([one for one in rows if one.guest], without_6_12([one for one in rows[:last] if not one.guest]))


def complete(recording: Recording) -> bool:
    """Are all of its accesses there, and was nothing else that would have had the host access anything?"""
    counts = recording["counts"]
    made = sum(counts["trapped"].values()) + sum(counts["direct"].values())
    return made == len(recording["guest_sequence"]) and not counts["vcpu_load"] and not counts["host_pmu_irqs"]


def host_accesses(recording: Recording) -> Counter[str]:
    """By register and way, those of KVM and the driver, but what kvm_pmu_part_overflow_status() reads at each exit: of
    exits there were others."""
    found: Counter[str] = Counter()
    for text, count in recording["counts"]["el2_accesses"].items():
        name, way = text.split()
        found[f"{way} {register_name(encoding(name))}"] = count
    return _without_status(found, situation(recording).vm)


def made_by_host(of: Traffic, vm: Vm) -> Counter[str]:
    """The same of those made here."""
    found = Counter(f"{'w' if one.write else 'r'} {register_name(one.register)}" for one in of.host)
    return _without_status(found, vm)


def _without_status(found: Counter[str], vm: Vm) -> Counter[str]:
    if vm is Vm.PARTITIONED:
        exits = found.pop("r PMINTENSET_EL1", 0)
        found["r PMCR_EL0"] -= exits
    return +found


def trapped(accesses: list[Seen]) -> list[tuple[str, bool]]:
    """Each access, and whether it trapped."""
    return [(f"{'w' if one.write else 'r'} {register_name(one.register)}", one.trapped) for one in accesses]
