"""What the judge says of guests: nothing of what is right, and which invariant what is wrong breaks."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from services import registers as r
from services.cpu import Cpu, Entry, Notice
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.one_reg import get_one_reg, reg_id, set_filter, set_nr_counters, set_one_reg
from services.kvm.simulation import Simulation
from tests.kvm.scripted import INST_RETIRED, Scripted, experiment


def judgement(made: Simulation) -> dict[str, Any]:
    """What the judge has found up to now."""
    found: dict[str, Any] = orjson.loads(made.board.machine.judgement() or b"{}")
    return found


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
    viewed = sum(value != 0b011 for value in read[-3:-1])  # else KVM has assigned what was set last
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
