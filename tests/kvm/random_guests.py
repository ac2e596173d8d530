"""Small worlds by chance: guests that do to their PMUs whatever software may, among host tasks and perf sessions.

What happens follows from a seed alone. A tick is short, so that ticks fall between any two steps of KVM's own; vCPUs
of two VMs compete for a pCPU with each other and with tasks of the host, float if there are two pCPUs, and sessions of
the host's perf begin and end with its tasks. `python -m tests.kvm.random_guests partitioned 0 10000` runs so many.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import trio

from services import registers as r
from services._pmu import register_encoding, register_name
from services.cpu import Cpu, Entry, Notice, Timer, TookException
from services.experiment import (
    CpuSpec,
    EventSpec,
    Experiment,
    GuestSpec,
    HostCpuSpec,
    HostSpec,
    PhaseSpec,
    SessionSpec,
    TaskSpec,
    VcpuSpec,
)
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.simulation import Simulation
from tests.kvm.scripted import HALF_PER_CYCLE, HZ, INST_RETIRED, ONE_PER_CYCLE, Scripted, experiment

TICK = 20_000  # cycles
STEPS = 40  # of a guest's program
BRANCHES, ABSENT = 0x21, 0x77
EVENTS = (r.SW_INCR, INST_RETIRED, r.CPU_CYCLES, r.CHAIN, BRANCHES, ABSENT)
RATES = ((INST_RETIRED, HALF_PER_CYCLE), (BRANCHES, ONE_PER_CYCLE // 7))
VIEWS = (
    r.PMCNTENSET_EL0,
    r.PMCNTENCLR_EL0,
    r.PMINTENSET_EL1,
    r.PMINTENCLR_EL1,
    r.PMOVSSET_EL0,
    r.PMOVSCLR_EL0,
)
OTHERS = (
    r.PMCR_EL0,
    r.PMSELR_EL0,
    r.PMUSERENR_EL0,
    r.PMCCNTR_EL0,
    r.PMCCFILTR_EL0,
    r.PMXEVCNTR_EL0,
    r.PMXEVTYPER_EL0,
    r.PMSWINC_EL0,
    r.PMCEID0_EL0,
    r.PMCEID1_EL0,
    r.PMMIR_EL1,
)
FILTERS = (0, 0, 0, r.PMEVTYPER_P, r.PMEVTYPER_U, r.PMEVTYPER_P | r.PMEVTYPER_U, r.PMEVTYPER_NSK, r.PMEVTYPER_NSH)


class RandomGuest(Scripted):
    """One vCPU's kernel: so many steps, each an access, a program's read at EL0, work, sleep or a hypercall."""

    def __init__(self, rng: random.Random, counters: int, steps: int = STEPS) -> None:
        super().__init__(
            boot=self.go_on, resume=self.go_on, timer=self.go_on, exception=self.go_on, pmu_irq=self.interrupt
        )
        self.rng = rng
        self.counters = counters
        self.left = steps
        self.did: list[tuple[str, int, int]] = []  # what, register, value read or written

    async def interrupt(self, cpu: Cpu, entry: Entry) -> None:
        """Whatever its handler does besides, it clears the flags."""
        flags = await cpu.mrs(r.PMOVSCLR_EL0)
        self.did.append(("irq", r.PMOVSCLR_EL0, flags))
        cpu.burst.msr(r.PMOVSCLR_EL0, flags)
        cpu.burst.isb()
        if self.rng.random() < 0.3:
            await self._access(cpu)
        await cpu.wait()

    async def go_on(self, cpu: Cpu, entry: Entry) -> None:
        rng = self.rng
        while self.left:
            self.left -= 1
            choice = rng.random()
            if choice < 0.6:
                await self._access(cpu)
            elif choice < 0.7:
                register = self._register()
                self.did.append(("EL0", register, 0))
                cpu.burst.user_mrs(register)
                await cpu.wait()
            elif choice < 0.75:
                cpu.burst.isb()
            elif choice < 0.8:
                cpu.burst.hvc(0)
            elif choice < 0.88:
                cpu.burst.timer(Timer.SLEEP, cpu.now + rng.choice((1, 1_000, TICK, 3 * TICK)))
                cpu.burst.wfi()
                return
            else:
                cycles = rng.choice((1, 10, 100, 1_000, TICK // 2, 2 * TICK))
                cpu.burst.compute(rng.choice((1, 2)), rng.choice((0, 1)), cycles)
                return
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    async def _access(self, cpu: Cpu) -> None:
        register, write = self._register(), self.rng.random() < 0.6
        try:
            if write:
                value = self._value(register)
                self.did.append(("MSR", register, value))
                cpu.burst.msr(register, value)
                await cpu.wait()
            else:
                self.did.append(("MRS", register, await cpu.mrs(register)))
        except TookException:
            self.did.append(("UNDEF", register, 0))

    def _register(self) -> int:
        rng, choice = self.rng, self.rng.random()
        n = rng.randrange(self.counters + 1)  # one above them, too
        if choice < 0.2:
            return r.PMEVCNTR(n)
        if choice < 0.35:
            return r.PMEVTYPER(n)
        return rng.choice(VIEWS if choice < 0.65 else OTHERS)

    def _value(self, register: int) -> int:
        rng = self.rng
        if register in VIEWS or register == r.PMSWINC_EL0:
            return rng.choice((r.MASK32, r.CYCLE_BIT, 1 << rng.randrange(8), rng.getrandbits(32)))
        if register == r.PMCR_EL0:
            return rng.choice((r.PMCR_E, r.PMCR_E, r.PMCR_E | r.PMCR_LP | r.PMCR_LC, 0, rng.getrandbits(8)))
        if register == r.PMSELR_EL0:
            return rng.choice((rng.randrange(self.counters + 1), 31, rng.getrandbits(5)))
        if register == r.PMUSERENR_EL0:
            return rng.choice((0, rng.getrandbits(4), 0xF))
        if register in (r.PMXEVTYPER_EL0, r.PMCCFILTR_EL0) or r.PMEVTYPER(0) <= register <= r.PMEVTYPER(30):
            return rng.choice(EVENTS) | rng.choice(FILTERS)
        before = rng.choice((1, 2, 100, 3_000, TICK))  # so many before an overflow
        return rng.choice((0, 1 << 32, 1 << 64, 1 << 32, rng.getrandbits(64))) - before & r.MASK64


@dataclass(frozen=True)
class RandomWorld:
    """What there is, and what its guests' programs are, by seed."""

    seed: int
    design: str
    axes: Mapping[str, str] = field(default_factory=dict)

    def experiment(self) -> Experiment:
        rng = random.Random(f"world {self.seed}")
        counters = rng.randrange(2, 7)
        cpu = CpuSpec(
            model="test",
            counters=counters,
            pmuver=rng.choice((1, 4, 5, 6, 6, 7, 8)),
            fgt=rng.choice((0, 1, 1, 2)),
            hpmn0=rng.random() < 0.3,
            icntr=False,
            pmi_delay=rng.choice((0, 0, 1, 30)),
        )
        pcpus = rng.choice((1, 1, 2))
        floats = pcpus > 1 and rng.random() < 0.7
        of_guest = rng.randrange(counters + 1) if self.design.startswith("emulated") else rng.randrange(counters)
        if not of_guest and not cpu.hpmn0:
            of_guest = 1
        names = ("vm0", "vm1") if rng.random() < 0.7 else ("vm0",)
        guests = tuple(self._guest(rng, name, of_guest, min(cpu.pmuver, 6), pcpus, floats) for name in names)
        of = experiment(self.design, pcpus=pcpus, counters=of_guest, cpu=cpu, axes=self.axes)
        hosts = tuple(self._host(rng, cpu) for _ in range(pcpus))
        host = HostSpec(hz=HZ // TICK, cpus=hosts, pseudo_nmi=rng.random() < 0.2)
        profiles = (RATES, (*RATES, (ABSENT, 1)), ((INST_RETIRED, ONE_PER_CYCLE), (BRANCHES, 3 << 30)))
        return replace(of, events=EVENTS[1:3] + EVENTS[4:], profiles=profiles, host=host, guests=guests)

    def _guest(self, rng: random.Random, name: str, counters: int, pmuver: int, pcpus: int, floats: bool) -> GuestSpec:
        vcpus = tuple(VcpuSpec(-1 if floats else rng.randrange(pcpus), ()) for _ in range(rng.choice((1, 1, 2))))
        denied = rng.sample(EVENTS[1:5], 1) if rng.random() < 0.2 else []
        return GuestSpec(name, HZ // TICK, counters, pmuver, vcpus, denied=tuple(denied))

    def _host(self, rng: random.Random, cpu: CpuSpec) -> HostCpuSpec:
        tasks = tuple(
            TaskSpec(
                f"task{n}",
                (PhaseSpec(0, rng.choice((100, TICK)), el=rng.choice((0, 2))),),
                repeat=rng.choice((1, 4)),
                sleep=rng.choice((0, TICK)),
                session=self._session(rng, cpu) if rng.random() < 0.8 else None,
            )
            for n in range(rng.choice((0, 1, 2)))
        )
        sessions = (replace(self._session(rng, cpu), cpu_wide=True),) if rng.random() < 0.5 else ()
        return HostCpuSpec(tasks=tasks, sessions=sessions)

    def _session(self, rng: random.Random, cpu: CpuSpec) -> SessionSpec:
        def event(n: int) -> EventSpec:
            return EventSpec(
                f"e{n}",
                rng.choice((INST_RETIRED, r.CPU_CYCLES, BRANCHES)),
                n,
                period=rng.choice((0, 0, 5_000)),
                exclude_user=rng.random() < 0.2,
                exclude_kernel=rng.random() < 0.2,
                exclude_guest=rng.random() < 0.5,
                exclude_host=rng.random() < 0.1,
            )

        events = tuple(event(n) for n in range(rng.randrange(1, cpu.counters + 2)))
        sampled = any(one.period for one in events)
        return SessionSpec("record" if sampled else "stat", events)

    def guests(self, of: Experiment) -> dict[tuple[str, int], RandomGuest]:
        """Each vCPU's program: the same whatever else there is."""
        return {
            (guest.name, index): RandomGuest(random.Random(f"{guest.name} {index} {self.seed}"), guest.counters)
            for guest in of.guests
            for index in range(len(guest.vcpus))
        }

    def made(self, of: Experiment | None = None) -> tuple[Simulation, dict[tuple[str, int], RandomGuest]]:
        of = of or self.experiment()
        made, guests, host = Simulation(of), self.guests(of), HostPerf()
        for cpu in range(len(of.cpus)):
            made.attend_host(cpu, LocalSoftware(host.attend(cpu)))
        for (name, index), guest in guests.items():
            made.attend_guest(name, index, LocalSoftware(guest))
        return made, guests


async def judged(world: RandomWorld) -> dict[str, Any]:
    """Run it; what the judge has found."""
    made, _ = world.made()
    await made.run()
    return judgement(made)


def judgement(made: Simulation) -> dict[str, Any]:
    """What the judge has found up to now."""
    found: dict[str, Any] = orjson.loads(made.board.machine.judgement() or b"{}")
    return found


# What an emulated PMU's counts and interrupts are not held to. Its counters are perf events of the host: one that a
# trapped counter write has perf start anew leaves out EL0 up to the next load (kvm_vcpu_pmu_restore_guest comes with
# PMCR_EL0, PMEVTYPER<n>_EL0 and PMCNTENSET_EL0 only), and pinned or throttled ones stand still.
GIVEN_UP = {"emulated": {"I4", "I5"}}


def undeclared(design: str, found: dict[str, Any]) -> list[str]:
    """The violations that the design has no reason for, in words."""
    given_up = GIVEN_UP.get(design, set())
    # A flag that is missing or there is an overflow that was, or was not, counted.
    flags = {register_encoding(name) for name in ("PMOVSSET_EL0", "PMOVSCLR_EL0")} if given_up else set()
    return [
        told(one)
        for one in found["violations"]
        if one["invariant"] not in given_up and not (one["invariant"] == "I7" and one["register"] in flags)
    ]


def told(violation: dict[str, Any]) -> str:
    """In words, with its last steps."""
    lines = [
        "{invariant} {kind} cpu {cpu} cycle {cycle} {victim} by {other}: expected {expected:#x}, actual {actual:#x}, "
        "{times} times".format(**violation)
    ]
    if violation["register"] is not None:
        lines[0] += f", {register_name(violation['register'])}"
    for step in violation["steps"]:
        a = register_name(step["a"]) if step["what"].startswith(("MRS", "MSR")) else step["a"]
        who = f"cpu {step['cpu']} EL{step['el']} {step['party']:8}"
        lines.append(f"  {step['cycle']:>9} {who} {step['what']} {a} {step['b']:#x}")
    return "\n".join(lines)


def main(design: str, first: int, last: int) -> int:
    """Run the worlds of these seeds, and print what is broken in them; how many worlds that was in."""
    broken = 0
    for seed in range(first, last):
        found = undeclared(design, trio.run(judged, RandomWorld(seed, design)))
        broken += bool(found)
        for text in found:
            print(f"seed {seed}: {text}")
    print(f"{design}: {last - first:,} worlds, {broken} with undeclared violations")
    return broken


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
