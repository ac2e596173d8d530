"""Second opinions on what a guest's program reads.

It is the same alone and among others, on a design and on a PMU of its own, wherever the vCPU runs, however often it is
saved and restored, and after the host has closed its events; `programs` says what may differ, and why. Beside each
there is a design, or a fault, with which it differs. The judge has one of its own, on the per-cycle reference:
`rust/judge/tests/reference.rs`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from services import registers as r
from services.cpu import awaited
from services.experiment import (
    CpuSpec,
    EventSpec,
    Experiment,
    HostCpuSpec,
    HostSpec,
    PhaseSpec,
    SessionSpec,
    TaskSpec,
    VcpuSpec,
)
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.one_reg import get_one_reg, reg_id, set_one_reg
from services.kvm.simulation import Simulation
from services.kvm.vcpu import VCpu
from tests.judge.programs import COUNTERS, Did, Program, comparable, ideal, program, without_counts
from tests.kvm.scripted import HALF_PER_CYCLE, HZ, INST_RETIRED, experiment

SEEDS = range(12)
TICK = 20_000  # cycles
REFERENCES = ("partitioned", "mediated", "emulated")
CPU = CpuSpec(model="test", counters=COUNTERS + 4, pmuver=6, fgt=1)
STAT = SessionSpec("stat", tuple(EventSpec(f"e{n}", INST_RETIRED, n) for n in range(2)))

Between = Callable[[Simulation], Awaitable[None]]


def task(name: str, session: SessionSpec | None = None, repeat: int = 20) -> TaskSpec:
    return TaskSpec(name, (PhaseSpec(0, TICK),), repeat=repeat, sleep=TICK // 3, session=session)


def alone(design: str) -> Experiment:
    of = experiment(design, counters=COUNTERS, cpu=CPU)
    return replace(of, host=HostSpec(hz=HZ // TICK, cpus=(HostCpuSpec(),)))


def among_others(design: str) -> Experiment:
    """Beside another VM, and a program of the host's, which perf counts if the guest's counters are its own."""
    of = alone(design)
    session = None if design.startswith("emulated") else STAT
    host = HostSpec(hz=HZ // TICK, cpus=(HostCpuSpec(tasks=(task("other", session),)),))
    return replace(of, host=host, guests=(of.guests[0], replace(of.guests[0], name="vm1")))


@dataclass(frozen=True)
class Ran:
    """What vm0's program has read, and whether the judge has found that counts are lost."""

    did: Did
    loses: bool

    def same(self, other: Ran) -> bool:
        if self.loses or other.loses:
            return without_counts(self.did) == without_counts(other.did)
        return self.did == other.did


async def run(of: Experiment, seed: int, *, between: Between | None = None) -> Ran:
    """Other VMs have programs of their own."""
    made, host = Simulation(of), HostPerf()
    interrupts = seed % 2 == 1
    programs = {guest.name: Program(program(seed + 1000 * n, interrupts)) for n, guest in enumerate(of.guests)}
    for cpu in range(len(of.cpus)):
        made.attend_host(cpu, LocalSoftware(host.attend(cpu)))
    for name, guest in programs.items():
        made.attend_guest(name, 0, LocalSoftware(guest))
    while made.working:
        await made.step()
        if between is not None and not made.entered:
            await between(made)
    assert programs["vm0"].steps == []
    found = {(one.invariant, one.victim) for one in made.judging.found()["violations"]}
    loses = of.design.name == "emulated" and ("I4", "vm0/0") in found
    return Ran(comparable(programs["vm0"].did, interrupts), loses)


async def differ(of: Callable[[str], Experiment], than: Callable[[str], Experiment], design: str) -> list[int]:
    """The seeds with which what is read differs."""
    return [seed for seed in SEEDS if not (await run(of(design), seed)).same(await run(than(design), seed))]


@pytest.mark.parametrize("design", REFERENCES)
async def test_alone_and_among_others(design: str) -> None:
    assert await differ(alone, among_others, design) == []


async def test_among_others_v8_leaks() -> None:
    assert await differ(alone, among_others, "partitioned-v8")


def ideally(seed: int) -> Ran:
    interrupts = seed % 2 == 1
    return Ran(comparable(ideal(program(seed, interrupts), HALF_PER_CYCLE, CPU.pmuver), interrupts), False)


@pytest.mark.parametrize("design", REFERENCES)
async def test_on_a_design_and_on_an_ideal_pmu(design: str) -> None:
    counted = {value for seed in SEEDS for register, value in ideally(seed).did if register == r.PMCCNTR_EL0}
    assert len(counted) > 3
    ran = [await run(among_others(design), seed) for seed in SEEDS]
    assert [seed for seed in SEEDS if not ran[seed].same(ideally(seed))] == []
    assert sum(not one.loses for one in ran) > len(SEEDS) // 3


async def test_v1_is_no_ideal_pmu() -> None:
    assert [seed for seed in SEEDS if not (await run(among_others("partitioned-v1"), seed)).same(ideally(seed))]


def floating(design: str) -> Experiment:
    """Two pCPUs with a program of the host's each, between which the vCPU moves."""
    of = alone(design)
    host = HostSpec(hz=HZ // TICK, cpus=tuple(HostCpuSpec(tasks=(task(f"t{n}", repeat=40),)) for n in range(2)))
    (guest,) = of.guests
    return replace(of, cpus=(CPU,) * 2, host=host, guests=(replace(guest, vcpus=(VcpuSpec(-1, ()),)),))


@pytest.mark.parametrize("design", REFERENCES)
async def test_migrated_and_not(design: str) -> None:
    places: dict[int, set[int]] = {seed: set() for seed in SEEDS}
    for seed in SEEDS:

        async def looks(made: Simulation, seed: int = seed) -> None:
            places[seed] |= {n for n, pcpu in enumerate(made.pcpus) if pcpu.rq.current is made.vcpus[0]}

        migrated = await run(floating(design), seed, between=looks)
        assert migrated.same(await run(alone(design), seed)), seed
    assert sum(where == {0, 1} for where in places.values()) > len(SEEDS) // 2


async def test_migrated_v1_leaves_its_event_types_behind() -> None:
    """They are no part of its swap: what differs, and only when it migrates, is what event counters have counted."""
    assert await differ(floating, alone, "partitioned-v1")
    for seed in SEEDS:
        migrated, stays = await run(floating("partitioned-v1"), seed), await run(alone("partitioned-v1"), seed)
        assert without_counts(migrated.did) == without_counts(stays.did), seed


CLEARS = {r.PMCNTENSET_EL0: r.PMCNTENCLR_EL0, r.PMINTENSET_EL1: r.PMINTENCLR_EL1, r.PMOVSSET_EL0: r.PMOVSCLR_EL0}
SAVED = (
    *(register(n) for register in (r.PMEVTYPER, r.PMEVCNTR) for n in range(COUNTERS)),
    r.PMCCFILTR_EL0,
    r.PMCCNTR_EL0,
    r.PMSELR_EL0,
    r.PMUSERENR_EL0,
    r.PMCR_EL0,
    *CLEARS,
)


async def save_and_restore(vcpu: VCpu, lost: int = 0) -> None:
    """As a VMM does with a VM that stands, `lost` aside; views are cleared first."""
    saved = {register: await awaited(get_one_reg(vcpu, reg_id(register))) for register in SAVED}
    for register, value in saved.items():
        if register in CLEARS:
            set_one_reg(vcpu, reg_id(CLEARS[register]), r.MASK32)
        set_one_reg(vcpu, reg_id(register), 0 if register == lost else value)


def restoring(times: list[int], lost: int = 0) -> Between:
    async def restores(made: Simulation) -> None:
        vcpu = made.vcpus[0]
        if all(pcpu.rq.current is not vcpu for pcpu in made.pcpus):
            await save_and_restore(vcpu, lost)
            times.append(made.now)

    return restores


@pytest.mark.parametrize("design", REFERENCES)
async def test_saved_and_restored_at_each_step_and_not(design: str) -> None:
    """A vCPU that has run has backing events under `emulated`, which count on and are added to what is set (declared,
    up to Linux 6.14): its counts differ, where the judge finds that they are lost, and nothing else does."""
    times: list[int] = []
    differs: list[int] = []
    for seed in SEEDS:
        restored = await run(among_others(design), seed, between=restoring(times))
        plain = await run(among_others(design), seed)
        assert restored.same(plain), seed
        if restored.did != plain.did:
            differs.append(seed)
    assert bool(differs) is (design == "emulated")
    assert len(times) > 2 * len(SEEDS)


@pytest.mark.parametrize("design", REFERENCES)
async def test_a_restore_that_loses_a_register_is_noticed(design: str) -> None:
    """Of `emulated`, too, though its counts are left out."""
    of = among_others(design)
    forgets = restoring([], r.PMCNTENSET_EL0)
    assert [seed for seed in SEEDS if not (await run(of, seed, between=forgets)).same(await run(of, seed))]


def opened(design: str) -> Experiment:
    """The host counts a program of its own, and closes its events while the guest has hardly begun."""
    of = alone(design)
    return replace(of, host=replace(of.host, cpus=(HostCpuSpec(tasks=(task("counted", STAT, repeat=2),)),)))


@pytest.mark.parametrize("design", REFERENCES)
async def test_host_events_opened_and_closed_again_and_never_opened(design: str) -> None:
    """Counts of `emulated` aside, with those seeds with which it loses some in any case."""
    assert await differ(opened, alone, design) == []
    keep = [seed for seed in SEEDS if not any([(await run(of(design), seed)).loses for of in (opened, alone)])]
    assert len(keep) > len(SEEDS) // 3
    assert (len(keep) == len(SEEDS)) is (design != "emulated")


async def test_host_events_leave_something_behind_in_v8() -> None:
    assert await differ(opened, alone, "partitioned-v8")
