"""Small worlds by chance: random guests among tasks and perf sessions of the host, and a VMM that saves and restores.

What happens follows from a seed alone. A tick is short, so that ticks fall between any two steps of KVM's own; vCPUs
of two VMs compete for a pCPU with each other and with tasks of the host, float if there are two pCPUs, and sessions of
the host's perf begin and end with its tasks.

In half of the worlds, the orderly ones, guests do what Linux's driver does, and nothing has a guest of the emulated
vPMU lose a backing event or what it counts: no pinned events of the host's, no fewer counters than its VM may ask for,
no throttling, no delay of an interrupt, and no VMM that restores a vCPU that has run. A design that breaks an invariant
there has no limit to excuse it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from pmulab.designs import parse_design
from services import registers as r
from services.cpu import awaited
from services.experiment import (
    CpuSpec,
    EventSpec,
    Experiment,
    GuestSpec,
    HostCpuSpec,
    HostSpec,
    PerfSysctls,
    PhaseSpec,
    SessionSpec,
    TaskSpec,
    VcpuSpec,
)
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.errors import Livelock
from services.kvm.one_reg import get_one_reg, reg_id, set_one_reg
from services.kvm.simulation import Simulation
from services.kvm.vcpu import VCpu
from tests.kvm.random_guests import ABSENT, BRANCHES, EVENTS, TICK, DriverGuest, RandomGuest, value_of
from tests.kvm.scripted import HALF_PER_CYCLE, HZ, INST_RETIRED, ONE_PER_CYCLE, experiment

RATES = ((INST_RETIRED, HALF_PER_CYCLE), (BRANCHES, ONE_PER_CYCLE // 7))
MOST = 2_000  # interactions
CLEAR_VIEWS = (r.PMCNTENCLR_EL0, r.PMINTENCLR_EL1, r.PMOVSCLR_EL0)
SAVED = (r.PMCR_EL0, r.PMSELR_EL0, r.PMUSERENR_EL0, r.PMCNTENSET_EL0, r.PMINTENSET_EL1, r.PMOVSSET_EL0)


@dataclass(frozen=True)
class RandomWorld:
    """What there is, and what its guests' programs are, by seed."""

    seed: int
    design: str  # as `pmulab run --design` has it

    @property
    def orderly(self) -> bool:
        """Are its guests Linux, and its host such that the emulated vPMU has no limits?"""
        return self.seed % 2 == 1

    def experiment(self) -> Experiment:
        made = self._drawn()
        return _orderly(made) if self.orderly else made

    def _drawn(self) -> Experiment:
        rng = random.Random(f"world {self.seed}")
        counters = rng.randrange(2, 7)
        cpu = CpuSpec(
            model="test",
            counters=counters,
            pmuver=rng.choice((1, 4, 5, 6, 6, 7, 8, r.PMUVER_P9)),
            fgt=rng.choice((0, 1, 1, 2)),
            hpmn0=rng.random() < 0.3,
            icntr=rng.random() < 0.2,
            pmi_delay=rng.choice((0, 0, 1, 30)),
        )
        pcpus = rng.choice((1, 1, 2))
        floats = pcpus > 1 and rng.random() < 0.7
        design = parse_design(self.design)
        of_guest = rng.randrange(counters + 1)
        if not design.name.startswith("emulated"):
            of_guest = min(of_guest, counters - 1)
        names = ("vm0", "vm1") if rng.random() < 0.7 else ("vm0",)
        guests = tuple(self._guest(rng, name, of_guest, cpu, pcpus, floats) for name in names)
        of = experiment(design.name, pcpus=pcpus, counters=of_guest, cpu=cpu, axes=design.axes)
        host = HostSpec(
            hz=HZ // TICK,
            cpus=tuple(self._host(rng, cpu) for _ in range(pcpus)),
            pseudo_nmi=rng.random() < 0.2,
            powerdown_residency=TICK // 2 if rng.random() < 0.2 else 0,
            sysctls=PerfSysctls(max_sample_rate=rng.choice((100_000, 100_000_000))),
        )
        return replace(
            of,
            events=EVENTS[1:3] + EVENTS[4:],
            profiles=(RATES, (*RATES, (ABSENT, 1)), ((INST_RETIRED, ONE_PER_CYCLE), (BRANCHES, 3 << 30))),
            host=host,
            guests=guests,
            halt_poll=rng.choice((0, TICK // 4)),
            traps_wfi=rng.random() < 0.8,
            linux_guests=False,
        )

    def _guest(self, rng: random.Random, name: str, counters: int, cpu: CpuSpec, pcpus: int, floats: bool) -> GuestSpec:
        def vcpu() -> VcpuSpec:
            pcpu = -1 if floats else rng.randrange(pcpus)
            of_thread = (self._session(rng, cpu),) if not floats and rng.random() < 0.2 else ()
            return VcpuSpec(pcpu, (), host_sessions=of_thread)

        vcpus = tuple(vcpu() for _ in range(rng.choice((1, 1, 2))))
        denied = tuple(rng.sample(EVENTS[1:5], 1)) if rng.random() < 0.2 else ()
        pmuver = min(cpu.pmuver, r.PMUVER_P5, random.Random(f"{name}'s PMU {self.seed}").choice((1, 4, 5, 6, 6, 6)))
        return GuestSpec(name, HZ // TICK, counters, pmuver, vcpus, denied=denied)

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
        def event(n: int, leader: int, period: int, pinned: bool) -> EventSpec:
            return EventSpec(
                f"e{n}",
                rng.choice((INST_RETIRED, r.CPU_CYCLES, BRANCHES)),
                leader,
                period=period,
                pinned=pinned,
                long=rng.random() < 0.1,
                exclude_user=rng.random() < 0.2,
                exclude_kernel=rng.random() < 0.2,
                exclude_guest=rng.random() < 0.5,
                exclude_host=rng.random() < 0.1,
            )

        events: list[EventSpec] = []
        for _ in range(rng.randrange(1, cpu.counters + 2)):
            leader = len(events)
            period, pinned = rng.choice((0, 0, 5_000)), rng.random() < 0.1
            for _ in range(rng.choice((1, 1, 1, 2))):  # a group of two
                events.append(event(len(events), leader, period, pinned and len(events) == leader))
        sampled = any(one.period for one in events)
        return SessionSpec("record" if sampled else "stat", tuple(events))

    def made(self) -> Simulation:
        """Each vCPU's program is the same whatever else there is."""
        of = self.experiment()
        made, host = Simulation(of), HostPerf()
        for cpu in range(len(of.cpus)):
            made.attend_host(cpu, LocalSoftware(host.attend(cpu)))
        for guest in of.guests:
            for index in range(len(guest.vcpus)):
                rng = random.Random(f"{guest.name} {index} {self.seed}")
                software = (
                    DriverGuest(rng, guest.counters, guest.pmuver >= r.PMUVER_P5)
                    if self.orderly
                    else RandomGuest(rng, guest.counters)
                )
                made.attend_guest(guest.name, index, LocalSoftware(software))
        return made

    async def run(self) -> Simulation:
        """All that happens in it, or as much: a vCPU may get nowhere where threads are switched at each tick, and the
        host's events with them. A livelock ends it, of which the judge is told."""
        made, rng = self.made(), random.Random(f"VMM {self.seed}")
        for vcpu in made.vcpus:
            if rng.random() < 0.3:
                Vmm(rng, vcpu).sets_up()
        saves = rng.choice((0, 0, 0.1))
        with suppress(Livelock):
            while made.working and made.board.interactions < MOST:
                await made.step()
                if rng.random() < saves and not made.entered:
                    vcpu = rng.choice(made.vcpus)
                    if vcpu.blocked and vcpu.pcpu.rq.current is None:
                        await Vmm(rng, vcpu).saves_and_restores(restores=not self.orderly)
        return made


def _orderly(of: Experiment) -> Experiment:
    """Without what has a backing event lose its counter, its place, its time or its interrupt."""

    def session(one: SessionSpec) -> SessionSpec:
        """Its samples are so far apart that they leave time for guests without being throttled."""
        return replace(one, events=tuple(replace(of, pinned=False, period=20 * of.period) for of in one.events))

    def task(one: TaskSpec) -> TaskSpec:
        return one if one.session is None else replace(one, session=session(one.session))

    def vcpu(one: VcpuSpec) -> VcpuSpec:
        return replace(one, host_sessions=tuple(map(session, one.host_sessions)))

    cpus = tuple(replace(cpu, pmi_delay=0) for cpu in of.cpus)
    most = cpus[0].counters - (2 if cpus[0].pmuver < r.PMUVER_P5 else 0)  # a cycle counter may take two
    return replace(
        of,
        cpus=cpus,
        host=replace(
            of.host,
            sysctls=PerfSysctls(max_sample_rate=100_000_000, cpu_time_max_percent=0),
            cpus=tuple(
                replace(one, tasks=tuple(map(task, one.tasks)), sessions=tuple(map(session, one.sessions)))
                for one in of.host.cpus
            ),
        ),
        guests=tuple(
            replace(guest, counters=min(guest.counters, most), vcpus=tuple(map(vcpu, guest.vcpus)))
            for guest in of.guests
        ),
        linux_guests=True,
    )


@dataclass(frozen=True)
class Vmm:
    """What userspace does to one vCPU that is not loaded."""

    rng: random.Random
    vcpu: VCpu

    def registers(self) -> Iterator[int]:
        """Those that have ONE_REG ids, views to clear aside."""
        counters = self.vcpu.pmu.counters
        yield from SAVED
        yield from (r.PMCCNTR_EL0, r.PMCCFILTR_EL0)
        yield from (register(n) for register in (r.PMEVCNTR, r.PMEVTYPER) for n in range(counters))

    def sets_up(self) -> None:
        """Some of its registers, before it runs."""
        for register in self.registers():
            if self.rng.random() < 0.5:
                n = self.vcpu.pmu.counters << r.PMCR_N_SHIFT if register == r.PMCR_EL0 else 0
                value = value_of(self.rng, register, self.vcpu.pmu.counters)
                set_one_reg(self.vcpu, reg_id(register), value | n)

    async def saves_and_restores(self, restores: bool) -> None:
        """All of them, as a VMM that migrates a VM does; now and then it writes the views that clear, too."""
        views = CLEAR_VIEWS if self.rng.random() < 0.2 else ()
        saved = {
            register: await awaited(get_one_reg(self.vcpu, reg_id(register)))
            for register in (*self.registers(), *views)
        }
        if restores and self.rng.random() < 0.7:
            for register, value in saved.items():
                set_one_reg(self.vcpu, reg_id(register), value)
