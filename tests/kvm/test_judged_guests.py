"""What the judge says of guests: nothing of what is right, and which invariant what is wrong breaks."""

from __future__ import annotations

import pytest

from services import registers as r
from services._pmu import register_encoding
from services.cpu import Cpu, Entry, Notice
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.one_reg import get_one_reg, reg_id, set_filter, set_nr_counters, set_one_reg
from services.kvm.simulation import Simulation
from tests.kvm.linux_guest import FGT, WITHOUT_FGT, LinuxGuest, world
from tests.kvm.posted_traffic import Replay
from tests.kvm.random_guests import RandomWorld, judged, judgement, undeclared
from tests.kvm.recordings import RECORDINGS
from tests.kvm.scripted import INST_RETIRED, Scripted, experiment

Found = set[tuple[str, int, str]]  # invariant, register, other

RUNS = 80


@pytest.mark.parametrize("design", ["partitioned", "emulated", "mediated"])
async def test_no_undeclared_violation_in_random_worlds(design: str) -> None:
    premises = 0
    for seed in range(RUNS):
        found = await judged(RandomWorld(seed, design))
        assert undeclared(design, found) == [], f"seed {seed}"
        premises += found["premises"]["I4"]
    assert premises > RUNS


@pytest.mark.parametrize("cpu", [FGT, WITHOUT_FGT], ids=["FGT", "no FGT"])
@pytest.mark.parametrize("events", [0, 3])
@pytest.mark.parametrize("design", ["partitioned", "emulated", "mediated"])
async def test_no_violation_when_a_linux_guest_does_what_was_recorded(design: str, cpu: object, events: int) -> None:
    made = Simulation(world(design, WITHOUT_FGT if cpu is WITHOUT_FGT else FGT, events))
    guest = LinuxGuest("emulated" if design == "emulated" else "partitioned")
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    made.attend_guest("vm0", 0, LocalSoftware(guest))
    await made.run()
    found = judgement(made)
    assert guest.ended > 0
    assert found["violations"] == []
    assert all(found["premises"][one] > 0 for one in ("I1", "I4", "I8", "I9"))


async def found_in(name: str) -> Found:
    """What is found where v8 does what was recorded of it."""
    (recording,) = (
        one for one in RECORDINGS if one["name"] == name and one["accesses"] and "with FEAT_FGT" in one["run"]
    )
    made = Replay(recording)
    await made.run()
    assert made.difference == ""
    return {(one["invariant"], one["register"], one["other"]) for one in judgement(made.simulation)["violations"]}


@pytest.mark.parametrize(
    "name",
    ["owned + host pinned cycles", "owned + host cycles + 2 instr (one exclude_guest)"],
)
async def test_a_guest_of_v8_reads_the_host_s_enables(name: str) -> None:
    """B54, N1: the first access finds the host's PMCNTENSET_EL0 and PMCR_EL0.E on the CPU."""
    found = await found_in(name)
    assert ("I1", register_encoding("PMCNTENSET_EL0"), "host") in found
    assert ("I1", register_encoding("PMCR_EL0"), "host") in found


async def test_an_emulated_vm_beside_v8_is_as_it_should_be() -> None:
    assert await found_in("restored running vCPU, clean state, emulated") == set()


@pytest.mark.parametrize(
    ("design", "seen"), [("partitioned-v6", True), ("partitioned-v7", True), ("partitioned-v8", False)]
)
async def test_b49_pmxevcntr_behind_pmselr_without_a_barrier(design: str, seen: bool) -> None:
    found = [one for one in (await judged(RandomWorld(0, design)))["violations"] if one["kind"] == "unsynchronised"]
    assert bool(found) is seen
    assert all(one["invariant"] == "I6" and one["since"] < one["cycle"] for one in found)


def idle(design: str) -> Simulation:
    made = Simulation(experiment(design, counters=4))
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    made.attend_guest("vm0", 0, LocalSoftware(Scripted()))
    return made


SETTLED = {
    r.PMEVCNTR(1): 77,
    r.PMEVTYPER(1): INST_RETIRED,
    r.PMCCNTR_EL0: 99,
    r.PMSELR_EL0: 3,
    r.PMUSERENR_EL0: 5,
}


@pytest.mark.parametrize("design", ["emulated", "emulated-6.15", "partitioned", "mediated"])
async def test_what_a_vmm_sets_is_what_it_reads_back(design: str) -> None:
    made = idle(design)
    (vcpu,) = made.vcpus
    if design != "mediated":
        set_nr_counters(vcpu, 3)
    for register, value in SETTLED.items():
        set_one_reg(vcpu, reg_id(register), value)
    for sets, clears in ((r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0), (r.PMINTENSET_EL1, r.PMINTENCLR_EL1)):
        set_one_reg(vcpu, reg_id(sets), 0b100)
        set_one_reg(vcpu, reg_id(clears), 0b010)
        set_one_reg(vcpu, reg_id(sets), 0b011)
    read = [
        get_one_reg(vcpu, reg_id(register)) for register in (*SETTLED, r.PMCNTENSET_EL0, r.PMINTENCLR_EL1, r.PMCR_EL0)
    ]
    assert read[:-3] == list(SETTLED.values())
    found = judgement(made)
    assert found["violations"] == []
    assert found["premises"]["I11"] == len(read)
    viewed = read[-3:-1].count(0b111)  # else KVM has assigned what was set last
    assert found["windows"]["view set by userspace"] == {"uses": viewed, "edge": viewed}


@pytest.mark.parametrize("register", [*SETTLED, r.PMCR_EL0])
async def test_a_register_that_a_restore_loses_breaks_i11(register: int) -> None:
    made = idle("partitioned")
    (vcpu,) = made.vcpus
    set_one_reg(vcpu, reg_id(register), SETTLED.get(register, r.PMCR_E))
    pmu = vcpu.pmu
    pmu.pmcr = pmu.selr = pmu.userenr = 0
    pmu.counter, pmu.typer = [0] * 32, [0] * 32
    get_one_reg(vcpu, reg_id(register))
    (one,) = judgement(made)["violations"]
    assert (one["invariant"], one["kind"], one["register"]) == ("I11", "one_reg", register)


@pytest.mark.parametrize("design", ["partitioned", "partitioned-v1"])
async def test_an_event_that_a_filter_denies_and_that_counts_breaks_i1(design: str) -> None:
    """B8: v1 writes event types through, whatever the VM's filter says."""

    async def boot(cpu: Cpu, entry: Entry) -> None:
        for register, value in (
            (r.PMCNTENCLR_EL0, r.MASK32),
            (r.PMINTENCLR_EL1, r.MASK32),
            (r.PMEVTYPER(0), INST_RETIRED),
            (r.PMEVCNTR(0), 0),
            (r.PMCNTENSET_EL0, 1),
            (r.PMCR_EL0, r.PMCR_E | r.PMCR_LC),
        ):
            cpu.burst.msr(register, value)
        cpu.burst.compute(2, 0, 1_000)

    async def resume(cpu: Cpu, entry: Entry) -> None:
        await cpu.mrs(r.PMEVCNTR(0))
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    made = idle(design)
    made.attend_guest("vm0", 0, LocalSoftware(Scripted(boot=boot, resume=resume)))
    set_filter(made.vcpus[0], INST_RETIRED, 1, deny=True)
    await made.run()
    of_counter = [one for one in judgement(made)["violations"] if one["register"] == r.PMEVCNTR(0)]
    assert {one["invariant"] for one in of_counter} == (set() if design == "partitioned" else {"I1"})


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("design", ["partitioned", "emulated"])
async def test_judged_or_not_and_restored_at_any_step_it_is_the_same(design: str, seed: int) -> None:
    """A machine's snapshot has the judge, and the judge changes nothing."""
    once, _ = RandomWorld(seed, design).made()
    again, _ = RandomWorld(seed, design).made()
    await once.run()
    while again.working:
        await again.step()
        if not again.entered:
            machine = again.board.machine
            machine.restore(machine.state())
    assert again.board.machine.digest() == once.board.machine.digest()
    assert judgement(again) == judgement(once)
