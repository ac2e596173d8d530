"""`reservation=grow`: HPMN grows with the guest's first use of a counter."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

import pmulab
from pmulab import Run, scenario
from services import registers as r
from services.cpu import Cpu, Entry, Notice, awaited
from services.embedded import Embedded
from services.experiment import CpuSpec, EventSpec, HostCpuSpec, SessionSpec
from services.host_perf import HostPerf
from services.kvm import designs
from services.kvm.attendant import LocalSoftware
from services.kvm.errors import InjectUndef
from services.kvm.vpmu import Vpmu
from services.registers import CYCLE_BIT
from tests.kvm.scripted import INST_RETIRED, Scripted, experiment, simulation
from tests.kvm.stub_vcpu import StubVcpu, access, vcpu_load, vcpu_put

FGT = CpuSpec(model="fgt", counters=6, pmuver=6, fgt=1, hpmn0=True)
WITHOUT_HPMN0 = CpuSpec(model="fgt", counters=6, pmuver=6, fgt=1)
WITHOUT_FGT = CpuSpec(model="no fgt", counters=6, pmuver=6)
COUNTERS = 3


def made(cpu: CpuSpec = FGT, **axes: str) -> tuple[StubVcpu, Vpmu]:
    vcpu = StubVcpu(cpu, COUNTERS)
    design = designs.named("partitioned").make({"reservation": "grow", **axes}, r.counter_mask(COUNTERS))
    return vcpu, design.vpmu(vcpu)


def told(vcpu: StubVcpu) -> str:
    return ", ".join(vcpu.tell())


async def test_first_uses_grow_the_range_and_a_put_gives_it_up() -> None:
    vcpu, vpmu = made()
    await vcpu_load(vpmu)
    assert told(vcpu) == "w MDCR_EL2, w HDFGRTR_EL2, w HDFGWTR_EL2, w PMSELR_EL0"
    await access(vpmu, r.PMEVTYPER(1), True, 0x11)
    assert told(vcpu) == (
        "GUEST_COUNTERS 0x80000000, r PMCR_EL0, w MDCR_EL2, w HDFGRTR_EL2, w HDFGWTR_EL2, w PMCCFILTR_EL0, "
        "w PMCCNTR_EL0, w PMSELR_EL0, w PMCR_EL0, w PMOVSCLR_EL0, w PMCNTENSET_EL0, w PMCNTENCLR_EL0, "
        "w PMINTENSET_EL1, w PMINTENCLR_EL1, w PMUSERENR_EL0"
    ), "resident by its first access, with the cycle counter alone; the type stays in memory"
    await access(vpmu, r.PMEVCNTR(1), True, 5)
    await access(vpmu, r.PMCNTENSET_EL0, True, 0b010)
    assert told(vcpu) == "w PMCNTENSET_EL0", "nothing counts without PMCR_EL0.E"
    assert vcpu.peek(r.MDCR_EL2) & (r.MDCR_EL2_HPMN | r.MDCR_EL2_TPMCR) == r.MDCR_EL2_TPMCR
    await access(vpmu, r.PMCR_EL0, True, r.PMCR_E)
    assert told(vcpu) == (
        "GUEST_COUNTERS 0x80000003, r MDCR_EL2, w MDCR_EL2, w HDFGRTR_EL2, w HDFGWTR_EL2, "
        "w PMEVTYPER0_EL0, w PMEVCNTR0_EL0, w PMEVTYPER1_EL0, w PMEVCNTR1_EL0, w PMOVSCLR_EL0, "
        "w PMCNTENSET_EL0, w PMINTENSET_EL1, w PMCR_EL0"
    )
    assert (vcpu.peek(r.MDCR_EL2) & r.MDCR_EL2_HPMN, vcpu.peek(r.PMCNTENSET_EL0)) == (2, 0b010)
    assert (vcpu.peek(r.PMEVCNTR(1)), vcpu.peek(r.PMEVTYPER(1))) == (5, 0x11)
    await access(vpmu, r.PMINTENSET_EL1, True, 0b100)
    assert "GUEST_COUNTERS 0x80000007" in told(vcpu)
    assert vcpu.peek(r.MDCR_EL2) & (r.MDCR_EL2_HPMN | r.MDCR_EL2_TPMCR) == COUNTERS, "full: PMCR_EL0 is the guest's"
    assert vcpu.peek(r.HDFGWTR_EL2) == r.HDFG_PMOVS | r.HDFG_PMEVTYPERN | r.HDFG_PMCCFILTR
    await access(vpmu, r.PMINTENCLR_EL1, True, 0b100)
    vcpu.tell()
    await vcpu_put(vpmu)
    assert told(vcpu) == (
        "r MDCR_EL2, r PMEVCNTR0_EL0, r PMEVCNTR1_EL0, r PMEVCNTR2_EL0, r PMCCNTR_EL0, r PMSELR_EL0, r PMCR_EL0, "
        "r PMCNTENSET_EL0, r PMINTENSET_EL1, r PMOVSSET_EL0, r PMUSERENR_EL0, w PMOVSCLR_EL0, w PMCNTENCLR_EL0, "
        "w PMINTENCLR_EL1, w PMUSERENR_EL0, w PMCR_EL0, w MDCR_EL2, w HDFGRTR_EL2, w HDFGWTR_EL2, GUEST_COUNTERS 0x0"
    )
    await vcpu_load(vpmu)
    assert "GUEST_COUNTERS 0x80000003" in told(vcpu), "as far as its enabled counters reach"
    assert vcpu.peek(r.MDCR_EL2) & r.MDCR_EL2_HPMN == 2


async def test_without_feat_hpmn0_counter_0_comes_with_the_first_access() -> None:
    vcpu, vpmu = made(WITHOUT_HPMN0)
    assert "HPMN is 1 at least" in vpmu.design.check(WITHOUT_HPMN0, COUNTERS)[0]
    await vcpu_load(vpmu)
    await access(vpmu, r.PMSELR_EL0, True, 0)
    assert vcpu.peek(r.MDCR_EL2) & r.MDCR_EL2_HPMN == 1
    assert f"GUEST_COUNTERS {CYCLE_BIT | 1:#x}" in told(vcpu)


async def test_without_feat_fgt_it_grows_by_the_traps_that_there_are() -> None:
    vcpu, vpmu = made(WITHOUT_FGT)
    await vcpu_load(vpmu)
    await access(vpmu, r.PMCR_EL0, True, r.PMCR_E)
    await access(vpmu, r.PMCNTENSET_EL0, True, 0b110)
    assert vcpu.peek(r.MDCR_EL2) & (r.MDCR_EL2_HPMN | r.PMU_TRAPS) == r.PMU_TRAPS | COUNTERS


@pytest.mark.parametrize("pmcr", ["untrapped", "trapped"])
async def test_pmcr_n_is_the_vms_from_the_beginning(pmcr: str) -> None:
    _, vpmu = made(pmcr=pmcr)
    await vcpu_load(vpmu)
    assert await access(vpmu, r.PMCR_EL0, False, 0) >> r.PMCR_N_SHIFT & 0x1F == COUNTERS


async def test_a_fast_path_completes_what_cannot_make_it_grow() -> None:
    _, vpmu = made(traps="fast-path")
    await vcpu_load(vpmu)
    await access(vpmu, r.PMCR_EL0, True, r.PMCR_E)
    assert vpmu.fast_path
    assert not vpmu.fast(r.PMCR_EL0, True), "the host's perf is needed"
    await access(vpmu, r.PMCNTENSET_EL0, True, 0b100)
    assert vpmu.fast(r.PMCR_EL0, True)


async def interrupts(vpmu: Vpmu) -> bool:
    """By a flag in memory, or by one on the CPU."""
    vcpu = vpmu.vcpu
    assert isinstance(vcpu, StubVcpu)
    enabled = vcpu.peek(r.PMINTENSET_EL1) if vcpu.peek(r.PMCR_EL0) & r.PMCR_E else 0
    return bool(await awaited(vpmu.level()) or vcpu.peek(r.PMOVSSET_EL0) & enabled)


REGISTERS = (
    *(r.PMCR_EL0, r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0, r.PMINTENSET_EL1, r.PMINTENCLR_EL1, r.PMOVSSET_EL0),
    *(r.PMOVSCLR_EL0, r.PMSELR_EL0, r.PMXEVCNTR_EL0, r.PMXEVTYPER_EL0, r.PMSWINC_EL0),
    *(register(n) for n in range(COUNTERS + 1) for register in (r.PMEVCNTR, r.PMEVTYPER)),
)


@pytest.mark.parametrize("cpu", [FGT, WITHOUT_HPMN0, WITHOUT_FGT], ids=lambda cpu: f"{cpu.model} {cpu.hpmn0}")
@pytest.mark.parametrize("seed", range(20))
async def test_a_guest_reads_what_it_would_if_it_had_all_its_counters_from_the_beginning(
    cpu: CpuSpec, seed: int
) -> None:
    """Nothing counts here but PMSWINC_EL0: random accesses read the same under `dynamic`, over puts and loads."""
    chance = random.Random(seed)
    both = [made(cpu, reservation=reservation, traps="slow-path")[1] for reservation in ("grow", "dynamic")]
    for vpmu in both:
        await vcpu_load(vpmu)
    for _ in range(300):
        if chance.random() < 0.03:
            for vpmu in both:
                await vcpu_put(vpmu)
                await vcpu_load(vpmu)
            continue
        register, write = chance.choice(REGISTERS), chance.random() < 0.6
        value = chance.getrandbits(32) & (0x41 if register == r.PMCR_EL0 else 0xFFFF_FFFF)
        if register == r.PMSELR_EL0:
            value %= COUNTERS + 1
        elif register in (r.PMXEVTYPER_EL0, *map(r.PMEVTYPER, range(COUNTERS + 1))):
            value = chance.choice((r.SW_INCR, 0x11))
        found = []
        for vpmu in both:
            try:
                found.append(await access(vpmu, register, write, value))
            except InjectUndef:
                found.append(-1)
        assert found[0] == found[1], (hex(register), write)
        assert await interrupts(both[0]) == await interrupts(both[1])


TEXT = """
[machine]
counters = 6
pmuver = 8
icntr = false
fgt = {fgt}
hpmn0 = {hpmn0}
[host]
hz = 1000
[[host.perf]]
verb = "stat"
events = "instructions:u,branches:uH,branch-misses,cache-references:D"
[[host.task]]
workload = "gzip-random"
seconds = 0.01
sleep_ms = 1
repeat = 2
[[guest]]
counters = 4
[[guest.task]]
workload = "gzip-random"
seconds = 0.01
repeat = 2
sleep_ms = 1
[guest.task.perf]
verb = "stat"
events = "{events}"
"""
MACHINES = [("1", "true"), ("1", "false"), ("0", "false")]


def run_of(tmp_path: Path, events: str, fgt: str = "1", hpmn0: str = "true", reservation: str = "grow") -> Run:
    path = tmp_path / "own.toml"
    path.write_text(TEXT.format(events=events, fgt=fgt, hpmn0=hpmn0))
    (run,) = pmulab.run(path, designs=[f"partitioned,reservation={reservation}"]).runs
    return run


@pytest.mark.parametrize(("fgt", "hpmn0"), MACHINES)
@pytest.mark.parametrize("events", ["instructions:u", "cycles:u,instructions:u,{branches:u,branch-misses:u}"])
def test_both_sides_count_right_while_the_range_grows(tmp_path: Path, events: str, fgt: str, hpmn0: str) -> None:
    """A guest's program is counted whole; of the host's events none is lost but in windows of its own driver."""
    run = run_of(tmp_path, events, fgt, hpmn0)
    for event in run.guests[0].events:
        assert (event.count, event.running) == (event.truth, 1), event.event
    for event in run.host.events:
        assert event.error is not None
        assert event.error.surplus == event.error.overflow == 0, event.event
        if event.event in ("instructions:u", "branches:uH"):
            assert event.error.stopped == 0, event.event


def test_a_guest_that_uses_few_counters_leaves_the_host_the_others(tmp_path: Path) -> None:
    """Of six, five are the host's for its four events; by `dynamic` two while the guest is resident."""
    grow, dynamic = (run_of(tmp_path, "instructions:u", reservation=one).host.events for one in ("grow", "dynamic"))
    assert [event.running for event in grow] == [1, 1, 1, 1]
    assert min(event.running or 0 for event in dynamic) < 0.9


def test_one_that_uses_all_pays_with_traps_for_nothing(tmp_path: Path) -> None:
    """The host's flexible events make room either way."""
    all_of_them = "instructions:u,branches:u,branch-misses:u,cache-references:u"
    grow, dynamic = (run_of(tmp_path, all_of_them, reservation=one) for one in ("grow", "dynamic"))
    assert grow.kvm.traps.total > dynamic.kvm.traps.total
    for event, other in zip(grow.host.events, dynamic.host.events, strict=True):
        assert event.running == pytest.approx(other.running, abs=0.02), event.event


GROUP = '"{instructions,branches,branch-misses,cache-references,cache-misses}"'


@pytest.mark.parametrize("hpmn0", ["true", "false"])
async def test_a_group_that_the_first_growth_squeezes_is_back_at_the_put(tmp_path: Path, hpmn0: str) -> None:
    """Five of six counters, of which a growth from 2 on meets none; the guest counts on with none of the host's on."""
    path = tmp_path / "own.toml"
    on_vcpu = '[[guest.perf]]\nverb = "stat"\nevents = "instructions:u,branches:u"\n'
    text = TEXT.format(events="branch-misses:u", fgt=1, hpmn0=hpmn0) + on_vcpu
    path.write_text(text.replace('"instructions:u,branches:uH,branch-misses,cache-references:D"', GROUP))
    (of,) = scenario.load(str(path), designs=["partitioned,reservation=grow"]).experiments
    lab = Embedded.of(of)
    simulation, (pcpu,) = lab.simulation, lab.simulation.pcpus
    on = {True: set[int](), False: set[int]()}  # by whether a vCPU is loaded
    while simulation.working:
        await simulation.step()
        if pcpu.now > 100_000 and not simulation.entered:
            enabled = simulation.board.machine.peek(0, r.PMCNTENSET_EL0)
            loaded = pcpu.rq.current in simulation.vcpus
            on[loaded].add((enabled & ~0b111 if loaded else enabled & ~CYCLE_BIT).bit_count())
    assert on[False] == {5}
    assert 0 in on[True]
    (run,) = pmulab.run(path, designs=["partitioned,reservation=grow"]).runs
    for event in run.guests[0].events:
        assert (event.count, event.running) == (event.truth, 1), event.event


async def test_growing_beside_events_of_the_host_leaves_the_guests_pmcr_alone() -> None:
    """The host's driver takes a group out that then does not fit: by MDCR_EL2.HPME, so that the guest counts on."""
    cpu = CpuSpec(model="test", counters=4, pmuver=6, fgt=1, hpmn0=True)
    of = experiment("partitioned", counters=3, cpu=cpu, axes={"reservation": "grow"})
    group = SessionSpec("stat", tuple(EventSpec(f"e{n}", INST_RETIRED, 0) for n in range(3)), cpu_wide=True)
    of = replace(of, host=replace(of.host, cpus=(HostCpuSpec(sessions=(group,)),)))
    counts: list[int] = []

    async def boot(cpu: Cpu, entry: Entry) -> None:
        for register, value in (
            (r.PMCR_EL0, r.PMCR_E),
            *((r.PMEVTYPER(n), INST_RETIRED) for n in range(2)),
            (r.PMCNTENSET_EL0, 0b01),
            (r.PMCNTENSET_EL0, 0b10),  # of which the group has this one
        ):
            cpu.burst.msr(register, value)
        cpu.burst.compute(2, 0, 1_000_000)

    async def resume(cpu: Cpu, entry: Entry) -> None:
        counts.extend([await cpu.mrs(r.PMEVCNTR(0)), await cpu.mrs(r.PMEVCNTR(1)), await cpu.mrs(r.PMCR_EL0)])
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    made = simulation(of, Scripted(boot=boot, resume=resume))
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    await made.run()
    assert min(counts[:2]) >= 500_000, "half of an instruction in a cycle"
    assert counts[2] & r.PMCR_E
