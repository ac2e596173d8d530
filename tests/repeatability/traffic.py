"""Guests that access every register of their PMU, in random order and with random values, on several machines:
the log hash of each design, and a hash of what the guests read; `traffic.json` beside this file.

    python -m tests.repeatability.traffic

prints the file anew. Linux's driver makes some of these accesses never, and the others in few orders.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from importlib.resources import files
from types import MappingProxyType

import orjson
import trio

from pmulab.designs import parse_design
from services import registers as r
from services.cpu import Cpu, Entry, EntryKind, Notice, Timer, TookException
from services.experiment import (
    CpuSpec,
    EventSpec,
    Experiment,
    GuestSpec,
    HostCpuSpec,
    PhaseSpec,
    SessionSpec,
    TaskSpec,
    VcpuSpec,
)
from services.host_perf import HostPerf
from services.kvm import designs as kvm_designs
from services.kvm.attendant import LocalSoftware
from services.kvm.errors import Livelock, SimulationError
from services.kvm.simulation import Simulation
from services.kvm.vpmu import DesignError
from tests.kvm.scripted import INST_RETIRED, experiment
from tests.repeatability.recorded import AXES

STEPS = 250
EVENTS = (INST_RETIRED, r.CPU_CYCLES, 0x10, r.CHAIN, r.SW_INCR)  # 0x10 is denied
REGISTERS = (
    *(r.PMCR_EL0, r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0, r.PMINTENSET_EL1, r.PMINTENCLR_EL1, r.PMOVSSET_EL0),
    *(r.PMOVSCLR_EL0, r.PMSWINC_EL0, r.PMSELR_EL0, r.PMUSERENR_EL0, r.PMXEVCNTR_EL0, r.PMXEVTYPER_EL0),
    *(r.PMCCNTR_EL0, r.PMCCFILTR_EL0, r.PMCEID0_EL0, r.PMCEID1_EL0, r.PMMIR_EL1),
    *(register(n) for n in (0, 1, 2, 3, 4, 9) for register in (r.PMEVCNTR, r.PMEVTYPER)),
)

# Designs beside those that have a name of their own.
BESIDE = (
    *AXES,
    "partitioned-v1,traps=slow-path",
    "partitioned-v2,traps=fast-path",
    "partitioned-v4,traps=fast-path",
    "partitioned-v5,traps=fast-path",
    "partitioned-v6,traps=fast-path",
    "partitioned-v7,traps=slow-path",
    "partitioned-v8,traps=slow-path",
    "mediated,traps=fast-path",
)

BIG = CpuSpec(model="big", counters=10, pmuver=6, fgt=1)
SMALL = CpuSpec(model="small", counters=6, pmuver=4)

# pCPUs, and each guest's event counters.
MACHINES: Mapping[str, tuple[tuple[CpuSpec, ...], tuple[int, ...]]] = MappingProxyType(
    {
        "fgt": ((BIG,), (4, 3)),
        "no fgt": ((SMALL,), (4, 3)),
        "pmuv3": ((replace(SMALL, pmuver=1),), (4, 3)),
        "icntr": ((replace(BIG, icntr=True, pmuver=9),), (4, 3)),
        "no counter": ((BIG,), (0, 3)),
        "no counter, hpmn0": ((replace(BIG, hpmn0=True),), (0, 3)),
        "big and small": ((BIG, SMALL), (4, 3)),
        "all counters": ((replace(BIG, counters=4),), (4, 4)),
        "all counters, no fgt": ((replace(SMALL, counters=4),), (4, 4)),
    }
)


class Guest:
    """Does `STEPS` random things: an access, work, sleep. Keeps what it reads."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.left = STEPS
        self.read: list[int] = []

    async def enter(self, cpu: Cpu, entry: Entry) -> None:
        match entry.kind:
            case EntryKind.BOOT | EntryKind.RESUME | EntryKind.TIMER:
                await self._go_on(cpu)
            case EntryKind.PMU_IRQ:
                await self._access(cpu, r.PMOVSCLR_EL0)
                await self._access(cpu, r.PMOVSCLR_EL0, 0xFFFF_FFFF)
            case EntryKind.REPORT:
                cpu.answer(b'{"elapsed": 0, "user": 0, "system": 0}')

    async def _go_on(self, cpu: Cpu) -> None:
        """Accesses up to the next work or sleep."""
        while self.left:
            self.left -= 1
            what = self.random.random()
            if what < 0.12:
                cpu.burst.compute(2, self.random.randrange(2), self.random.randrange(1, 1_500_000))
                return
            if what < 0.17:
                cpu.burst.timer(Timer.SLEEP, cpu.now + self.random.randrange(1, 200_000))
                cpu.burst.wfi()
                return
            register = self.random.choice(REGISTERS)
            await self._access(cpu, register, self._value(register) if self.random.random() < 0.6 else None)
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    def _value(self, register: int) -> int:
        anything = self.random.getrandbits(64)
        if register == r.PMCR_EL0:
            return anything & 0x7FF | (r.PMCR_E if self.random.random() < 0.7 else 0)
        if register in (r.PMXEVTYPER_EL0, r.PMCCFILTR_EL0, *map(r.PMEVTYPER, range(10))):
            return anything & 0xFFFF_0000 & ~(r.PMEVTYPER_P | r.PMEVTYPER_U) | self.random.choice(EVENTS)
        if register in (r.PMXEVCNTR_EL0, r.PMCCNTR_EL0, *map(r.PMEVCNTR, range(10))):
            return -self.random.randrange(1, 2_000_000) & (1 << 64) - 1
        if register == r.PMSELR_EL0:
            return self.random.choice((0, 1, 2, 3, 9, 31))
        return anything

    async def _access(self, cpu: Cpu, register: int, value: int | None = None) -> None:
        try:
            if value is None:
                self.read.append(await cpu.mrs(register))
            else:
                cpu.burst.msr(register, value)
                await cpu.wait()
        except TookException as undefined:
            self.read.append(undefined.esr)


def _experiment(machine: str, design: str) -> Experiment:
    cpus, counters = MACHINES[machine]
    of = experiment()
    events = (
        EventSpec("all", INST_RETIRED, 0, frequency=2000),
        EventSpec("guest", INST_RETIRED, 1, exclude_host=True),
        EventSpec("host", INST_RETIRED, 2, exclude_guest=True),
        EventSpec("pinned", INST_RETIRED, 3, pinned=True),
    )
    host = SessionSpec("stat", events, cpu_wide=True)  # which goes on without those that a design refuses
    hog = TaskSpec("hog", (PhaseSpec(2, 3_000_000),), repeat=3, sleep=1_000_000)
    floats = -1 if len(cpus) > 1 else 0
    return replace(
        of,
        cpus=cpus,
        host=replace(of.host, cpus=tuple(HostCpuSpec((hog,), (host,)) for _ in cpus)),
        guests=tuple(
            GuestSpec(f"vm{i}", 250, n, 6, (VcpuSpec(floats, ()), VcpuSpec(floats, ())), denied=(0x10,))
            for i, n in enumerate(counters)
        ),
        events=(INST_RETIRED, r.CPU_CYCLES, 0x10),
        profiles=(((INST_RETIRED, 1 << 31), (0x10, 1 << 25)),) * 3,
        design=parse_design(design),
    )


def designs() -> Iterator[str]:
    yield from dict.fromkeys([*kvm_designs.designs(), *BESIDE])


async def _of(machine: str, design: str) -> dict[str, str]:
    try:
        made = Simulation(_experiment(machine, design))
    except DesignError:
        return {"refused": "yes"}
    host = HostPerf()
    for pcpu in made.pcpus:
        made.attend_host(pcpu.cpu, LocalSoftware(host.attend(pcpu.cpu)))
    guests = [Guest(seed) for seed, _ in enumerate(made.vcpus)]
    for vcpu, guest in zip(made.vcpus, guests, strict=True):
        made.attend_guest(vcpu.name, vcpu.index, LocalSoftware(guest))
    try:
        await made.run()
        await made.result()
    except SimulationError as error:
        return {"log": made.board.machine.digest(), "error": type(error).__name__}
    if made.hung:
        return {"log": made.board.machine.digest(), "error": Livelock.__name__}
    return {
        "log": made.board.machine.digest(),
        "read": sha256(repr([guest.read for guest in guests]).encode()).hexdigest(),
    }


def of(machine: str) -> dict[str, dict[str, str]]:
    """By design."""
    return {design: trio.run(_of, machine, design) for design in designs()}


def read() -> dict[str, dict[str, dict[str, str]]]:
    """By machine and design: `log`, and `read` or `error`; or that it is `refused`."""
    recorded: dict[str, dict[str, dict[str, str]]] = orjson.loads(
        files(__package__).joinpath("traffic.json").read_bytes()
    )
    return recorded


def main() -> None:
    print(orjson.dumps({machine: of(machine) for machine in MACHINES}, option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
