"""What software answers is checked when it arrives: what is wrong ends the run, and is told."""

import contextlib
import random

import pytest

from services import _pmu as pmu
from services import registers as r
from services._pmu import Burst
from services.cpu import Cpu, Entry, EntryKind, Notice, TookException
from services.kvm.attendant import LocalSoftware
from services.kvm.errors import ProtocolError, SimulationError
from services.kvm.simulation import Simulation
from tests.kvm.misbehaving import CASES, CURRENT, VCPU, Case, done, switching
from tests.kvm.scripted import Scripted, experiment, simulation


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_software_that_answers_wrongly_ends_the_run(case: Case) -> None:
    made = simulation(case.experiment(), case.guest(), case.host())

    async def run() -> None:
        await made.run()
        await made.result()

    with pytest.raises(ProtocolError, match=case.error):
        await run()


@pytest.mark.parametrize("design", ["partitioned", "partitioned-v7", "raw"])
@pytest.mark.parametrize("to", [thread for thread in CURRENT.values() if thread != VCPU])
async def test_a_guests_overflow_that_is_found_while_its_vcpu_is_not_current_is_nobodys(design: str, to: int) -> None:
    case = Case("host", "", design, host=switching(lambda cpu: cpu.burst.notify(Notice.GUEST_OVERFLOW, 1), to))
    made = simulation(case.experiment(), Scripted(boot=done), case.host())
    await made.run()
    assert made.vcpus[0].pmu.ovs == 0
    assert made.vcpus[0].vgic.overflowed < 0


OPERANDS = {
    pmu.OP_MSR: 1,
    pmu.OP_USER_MSR: 1,
    pmu.OP_CHARGE: 1,
    pmu.OP_COMPUTE: 1,
    pmu.OP_TIMER: 1,
    pmu.OP_NOTIFY: 1,
    pmu.OP_WRITE_BACK: 3,
}
NO_SUBJECT = (pmu.OP_WFI, pmu.OP_ISB, pmu.OP_CLOCK, pmu.OP_WINDOW)
OPERATIONS = sorted({*OPERANDS, *NO_SUBJECT, pmu.OP_MRS, pmu.OP_USER_MRS, pmu.OP_HVC, pmu.OP_IPI, pmu.OP_TRUTH})
REGISTERS = (r.PMCR_EL0, r.PMOVSSET_EL0, r.PMCNTENSET_EL0, r.PMINTENSET_EL1, r.PMEVCNTR(0), r.PMEVTYPER(0), r.MDCR_EL2)
SUBJECTS = (0, 1, 2, 3, 5, 31, 32, 255, 2**16 - 1, 2**20, 2**24 - 1)
VALUES = (0, 1, 2, 5, 100, 10**6, 2**31, 2**32 - 1, 2**48 - 1, 2**62, 2**63, 2**64 - 1)


class Babbler:
    """Posts well-formed operations at random, as often as `talks`. `works`: a guest, which has to."""

    def __init__(self, seed: int, talks: float, *, works: bool) -> None:
        self.random = random.Random(seed)
        self.talks = talks
        self.works = works

    def burst(self) -> Burst:
        codes, operands = [], []
        for operation in self.random.choices(OPERATIONS, k=self.random.randrange(4)):
            accesses = operation in (pmu.OP_MRS, pmu.OP_USER_MRS, pmu.OP_MSR, pmu.OP_USER_MSR)
            subject = 0 if operation in NO_SUBJECT else self.random.choice(REGISTERS if accesses else SUBJECTS)
            codes.append(operation << 24 | subject)
            operands += self.random.choices(VALUES, k=OPERANDS.get(operation, 0))
        with contextlib.suppress(ValueError):
            return Burst.from_arrays(codes, operands)
        return Burst()

    async def enter(self, cpu: Cpu, entry: Entry) -> None:
        if self.random.random() < self.talks:
            cpu.burst = self.burst()
            with contextlib.suppress(TookException):
                await cpu.wait()
        if self.works:
            cpu.burst.compute(2, 0, 100_000)
        if entry.kind is EntryKind.REPORT:
            cpu.answer(b'{"elapsed": 0, "user": 0, "system": 0}')


@pytest.mark.parametrize("design", ["emulated", "partitioned", "partitioned-v7", "gunyah", "mediated", "raw"])
async def test_whatever_software_posts_the_run_goes_on_or_ends_with_what_was_wrong(design: str) -> None:
    for seed in range(200):
        made = Simulation(experiment(design, counters=10, pcpus=2, vcpus=(0, -1)))
        for pcpu in made.pcpus:
            made.attend_host(pcpu.cpu, LocalSoftware(Babbler(seed, 0.05, works=False)))
        for vcpu in made.vcpus:
            made.attend_guest(vcpu.name, vcpu.index, LocalSoftware(Babbler(seed, 0.9, works=True)))
        with contextlib.suppress(SimulationError):
            for _ in range(60):
                if made.working:
                    await made.step()
