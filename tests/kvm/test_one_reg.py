"""What a VMM reads and sets, before a VM has run and afterwards; PMCR_EL0.N as each published version has it."""

import errno

import pytest

from services import registers as r
from services.cpu import Cpu, Entry, Notice
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.one_reg import get_one_reg, reg_id, set_filter, set_nr_counters, set_one_reg
from services.kvm.simulation import Simulation
from services.registers import PMEVCNTR, PMEVTYPER
from tests.kvm.scripted import INST_RETIRED, Scripted, experiment, simulation

WORK = 1_000_000


def lab(design: str, guest: Scripted) -> Simulation:
    made = simulation(experiment(design, counters=6), guest)
    host = HostPerf()
    made.attend_host(0, LocalSoftware(host.attend(0)))
    return made


async def put(made: Simulation) -> None:
    """Run until the vCPU is off its pCPU."""
    await made.run()
    while made.pcpus[0].rq.current is not None:
        await made.step()


def n_of(value: int) -> int:
    return (value & r.PMCR_N) >> r.PMCR_N_SHIFT


class Reader(Scripted):
    """A guest that reads PMCR_EL0.N and is done."""

    def __init__(self) -> None:
        super().__init__(boot=self.boot)
        self.n = -1

    async def boot(self, cpu: Cpu, entry: Entry) -> None:
        self.n = n_of(await cpu.mrs(r.PMCR_EL0))
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()


@pytest.mark.parametrize(
    ("design", "by_one_reg", "by_attribute"),
    [
        ("partitioned-v1", 6, 6),  # N is HPMN, whatever userspace sets
        ("partitioned-v2", 4, 4),
        ("partitioned-v6", 6, 4),  # SET_ONE_REG of N is ignored, the attribute counts
        ("emulated", 4, 4),
    ],
)
async def test_pmcr_n_as_the_guest_sees_it(design: str, by_one_reg: int, by_attribute: int) -> None:
    guest = Reader()
    made = lab(design, guest)
    set_one_reg(made.vcpus[0], reg_id(r.PMCR_EL0), 4 << r.PMCR_N_SHIFT)
    await made.run()
    assert guest.n == by_one_reg

    guest = Reader()
    made = lab(design, guest)
    set_nr_counters(made.vcpus[0], 4)
    await made.run()
    assert guest.n == by_attribute


async def test_after_the_first_run_n_and_the_filter_are_fixed() -> None:
    made = lab("emulated", Reader())
    await put(made)
    vcpu = made.vcpus[0]
    set_one_reg(vcpu, reg_id(r.PMCR_EL0), 2 << r.PMCR_N_SHIFT)
    assert n_of(get_one_reg(vcpu, reg_id(r.PMCR_EL0))) == 6
    with pytest.raises(OSError, match="has run") as caught:
        set_nr_counters(vcpu, 2)
    assert caught.value.errno == errno.EBUSY
    with pytest.raises(OSError, match="has run") as caught:
        set_filter(vcpu, 0x08, 1, deny=True)
    assert caught.value.errno == errno.EBUSY


@pytest.mark.parametrize("register", [r.PMXEVCNTR_EL0, r.PMCEID0_EL0, r.MDCR_EL2, r.ICC_SGI1R_EL1])
def test_a_register_that_has_no_id_is_refused(register: int) -> None:
    made = lab("partitioned", Reader())
    with pytest.raises(OSError, match="ONE_REG") as caught:
        get_one_reg(made.vcpus[0], reg_id(register))
    assert caught.value.errno == errno.ENOENT


@pytest.mark.parametrize("design", ["emulated", "partitioned", "partitioned-v6"])
async def test_what_is_set_is_read_back_and_reaches_the_guest(design: str) -> None:
    seen: list[int] = []

    async def boot(cpu: Cpu, entry: Entry) -> None:
        for register in given:
            cpu.burst.mrs(register)
        seen.extend(await cpu.wait())
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    made = lab(design, Scripted(boot=boot))
    vcpu = made.vcpus[0]
    given = {
        PMEVCNTR(2): 0x1234,
        PMEVTYPER(2): INST_RETIRED | r.PMEVTYPER_P,
        r.PMCNTENSET_EL0: 0b100,
        r.PMINTENSET_EL1: 0b101,
        r.PMOVSSET_EL0: 0b10,
        r.PMSELR_EL0: 5,
    }
    for register, value in given.items():
        set_one_reg(vcpu, reg_id(register), value)
        assert get_one_reg(vcpu, reg_id(register)) == value
    await put(made)
    assert seen == list(given.values())
    assert [get_one_reg(vcpu, reg_id(register)) for register in given] == list(given.values())


@pytest.mark.parametrize("design", ["emulated", "emulated-6.15", "partitioned", "partitioned-v5"])
@pytest.mark.parametrize("deny", [False, True])
async def test_a_denied_event_does_not_count(design: str, deny: bool) -> None:
    counts: list[int] = []

    async def boot(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.msr(PMEVTYPER(0), INST_RETIRED | r.PMEVTYPER_P)
        cpu.burst.msr(PMEVCNTR(0), 0)
        cpu.burst.msr(r.PMCNTENSET_EL0, 1)
        cpu.burst.msr(r.PMCR_EL0, r.PMCR_LC | r.PMCR_E)
        cpu.burst.compute(2, 0, WORK)

    async def resume(cpu: Cpu, entry: Entry) -> None:
        counts.append(await cpu.mrs(PMEVCNTR(0)))
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    made = lab(design, Scripted(boot=boot, resume=resume))
    if deny:
        set_filter(made.vcpus[0], INST_RETIRED, 1, deny=True)
    await made.run()
    assert counts == [0 if deny else WORK // 2]
