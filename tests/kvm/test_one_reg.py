"""What a VMM reads and sets, before a VM has run and afterwards; PMCR_EL0.N as each published version has it."""

import errno
from collections.abc import Mapping
from dataclasses import replace

import pytest

from services import registers as r
from services.cpu import Cpu, Entry, Notice, Timer, awaited
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.one_reg import get_one_reg, reg_id, set_filter, set_nr_counters, set_one_reg
from services.kvm.simulation import Simulation
from services.kvm.vcpu import VCpu
from services.registers import PMEVCNTR, PMEVTYPER
from tests.kvm.scripted import INST_RETIRED, Scripted, experiment, simulation

WORK = 1_000_000


def lab(design: str, guest: Scripted, axes: Mapping[str, str] | None = None) -> Simulation:
    made = simulation(experiment(design, counters=6, axes=axes), guest)
    host = HostPerf()
    made.attend_host(0, LocalSoftware(host.attend(0)))
    return made


async def put(made: Simulation) -> None:
    """Run until the vCPU is off its pCPU."""
    await made.run()
    while made.pcpus[0].rq.current is not None:
        await made.step()


async def one_reg(vcpu: VCpu, register: int) -> int:
    return await awaited(get_one_reg(vcpu, reg_id(register)))


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
    assert n_of(await one_reg(vcpu, r.PMCR_EL0)) == 6
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


@pytest.mark.parametrize("design", ["emulated", "partitioned", "partitioned-v1"])
async def test_a_guest_without_a_pmu_has_no_registers_and_no_attributes_of_one(design: str) -> None:
    of = experiment(design)
    made = Simulation(replace(of, guests=tuple(replace(one, pmuver=0) for one in of.guests)))
    (vcpu,) = made.vcpus
    with pytest.raises(OSError, match="has no PMU") as caught:
        await one_reg(vcpu, r.PMCR_EL0)
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(OSError, match="has no PMU") as caught:
        set_one_reg(vcpu, reg_id(r.PMSWINC_EL0), 1)
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(OSError, match="has no PMU") as caught:
        set_nr_counters(vcpu, 1)
    assert caught.value.errno == errno.ENODEV
    with pytest.raises(OSError, match="has no PMU") as caught:
        set_filter(vcpu, 0x08, 1, deny=True)
    assert caught.value.errno == errno.ENODEV


@pytest.mark.parametrize("design", ["emulated", "partitioned"])
async def test_pmswinc_is_raz_wi_to_a_vmm(design: str) -> None:
    made = lab(design, Reader())
    (vcpu,) = made.vcpus
    for register, value in {PMEVTYPER(0): r.SW_INCR, PMEVCNTR(0): 5, r.PMCNTENSET_EL0: 1, r.PMCR_EL0: ENABLED}.items():
        set_one_reg(vcpu, reg_id(register), value)
    set_one_reg(vcpu, reg_id(r.PMSWINC_EL0), 1)
    assert await one_reg(vcpu, r.PMSWINC_EL0) == 0
    assert await one_reg(vcpu, PMEVCNTR(0)) == 5


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
        assert await one_reg(vcpu, register) == value
    await put(made)
    assert seen == list(given.values())
    if design == "partitioned-v6":  # its put has selected the cycle counter before it reads the register
        given[r.PMSELR_EL0] = 31
    assert [await one_reg(vcpu, register) for register in given] == list(given.values())


class Counter(Scripted):
    """A guest that counts the instructions of its user work by an event type of its own."""

    def __init__(self, typer: int = INST_RETIRED | r.PMEVTYPER_P) -> None:
        super().__init__(boot=self.boot, resume=self.resume)
        self.typer = typer
        self.count = -1

    async def boot(self, cpu: Cpu, entry: Entry) -> None:
        cpu.burst.msr(PMEVTYPER(0), self.typer)
        cpu.burst.msr(PMEVCNTR(0), 0)
        cpu.burst.msr(r.PMCNTENSET_EL0, 1)
        cpu.burst.msr(r.PMCR_EL0, r.PMCR_LC | r.PMCR_E)
        cpu.burst.compute(2, 0, WORK)

    async def resume(self, cpu: Cpu, entry: Entry) -> None:
        self.count = await cpu.mrs(PMEVCNTR(0))
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()


@pytest.mark.parametrize("design", ["emulated", "emulated-6.15", "partitioned", "partitioned-v5"])
@pytest.mark.parametrize("deny", [False, True])
async def test_a_denied_event_does_not_count(design: str, deny: bool) -> None:
    guest = Counter()
    made = lab(design, guest)
    if deny:
        set_filter(made.vcpus[0], INST_RETIRED, 1, deny=True)
    await made.run()
    assert guest.count == (0 if deny else WORK // 2)


@pytest.mark.parametrize("design", ["emulated", "partitioned"])
@pytest.mark.parametrize(("allowed", "counted"), [(INST_RETIRED, WORK // 2), (r.CPU_CYCLES, 0)])
async def test_where_the_first_filter_allows_all_else_is_denied(design: str, allowed: int, counted: int) -> None:
    guest = Counter()
    made = lab(design, guest)
    set_filter(made.vcpus[0], allowed, 1, deny=False)
    await made.run()
    assert guest.count == counted


NON_SECURE = r.PMEVTYPER_NSU | r.PMEVTYPER_NSK


@pytest.mark.parametrize("design", ["emulated", "emulated-6.15", "partitioned", "partitioned-v1", "gunyah"])
@pytest.mark.parametrize(
    ("filters", "counts"),
    [
        (r.PMEVTYPER_P | r.PMEVTYPER_U, False),
        (r.PMEVTYPER_P | r.PMEVTYPER_U | NON_SECURE, True),
        (NON_SECURE, False),
        (r.PMEVTYPER_P | r.PMEVTYPER_NSU, False),
        (r.PMEVTYPER_P | r.PMEVTYPER_NSK, True),
    ],
)
async def test_the_filters_of_non_secure_state_turn_the_others_round(design: str, filters: int, counts: bool) -> None:
    guest = Counter(INST_RETIRED | filters)
    await lab(design, guest).run()
    assert (guest.count >= WORK // 2) is counts


@pytest.mark.parametrize(
    ("design", "axes"),
    [("emulated", {}), ("partitioned", {}), ("partitioned", {"reservation": "grow"}), ("mediated", {})],
)
async def test_they_bring_back_nothing_that_is_denied(design: str, axes: dict[str, str]) -> None:
    guest = Counter(INST_RETIRED | NON_SECURE)
    made = lab(design, guest, axes)
    set_filter(made.vcpus[0], INST_RETIRED, 1, deny=True)
    await made.run()
    assert guest.count == 0


EMULATED = ["emulated", "emulated-6.12.0", "emulated-6.15"]
ENABLED = 6 << r.PMCR_N_SHIFT | r.PMCR_LC | r.PMCR_E
ON = {PMEVTYPER(0): INST_RETIRED | r.PMEVTYPER_P, r.PMCNTENSET_EL0: 1, r.PMCR_EL0: ENABLED}


class Working(Scripted):
    """A guest that writes what it is `given`, works, and reads counter 0; and so again with a timer's help."""

    def __init__(self, given: dict[int, int]) -> None:
        super().__init__(boot=self.boot, resume=self.resume, timer=self.boot)
        self.given = given
        self.counts: list[int] = []

    async def boot(self, cpu: Cpu, entry: Entry) -> None:
        for register, value in self.given.items():
            cpu.burst.msr(register, value)
        cpu.burst.notify(Notice.WORK_BEGUN, 0)
        cpu.burst.compute(2, 0, WORK)

    async def resume(self, cpu: Cpu, entry: Entry) -> None:
        self.counts.append(await cpu.mrs(PMEVCNTR(0)))
        cpu.burst.timer(Timer.TICK, cpu.now + 100 * WORK)
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()


@pytest.mark.parametrize("design", [*EMULATED, "partitioned"])
async def test_a_counter_is_what_is_in_memory_plus_what_its_backing_event_has_counted(design: str) -> None:
    made = lab(design, Working(ON))
    await put(made)
    assert await one_reg(made.vcpus[0], PMEVCNTR(0)) == WORK // 2


@pytest.mark.parametrize("design", EMULATED)
async def test_what_a_vmm_restores_counts_from_the_first_run_on(design: str) -> None:
    """KVM_REQ_RELOAD_PMU."""
    guest = Working({})
    made = lab(design, guest)
    for register, value in ON.items():
        set_one_reg(made.vcpus[0], reg_id(register), value)
    await put(made)
    assert guest.counts == [WORK // 2]


@pytest.mark.parametrize(("design", "counts"), [("emulated", WORK // 2), ("emulated-6.15", WORK)])
async def test_what_a_vmm_enables_after_the_first_run_counts_from_the_next_one_on_in_6_15(
    design: str, counts: int
) -> None:
    guest = Working({})
    made = lab(design, guest)
    for register, value in ON.items():
        set_one_reg(made.vcpus[0], reg_id(register), value)
    set_one_reg(made.vcpus[0], reg_id(r.PMCNTENSET_EL0), 0)
    set_one_reg(made.vcpus[0], reg_id(r.PMCNTENCLR_EL0), 1 if design == "emulated" else 0)
    await put(made)
    assert guest.counts == [0]
    set_one_reg(made.vcpus[0], reg_id(r.PMCNTENSET_EL0), 1)
    await one_more(made, guest)
    assert guest.counts == [0, counts - WORK // 2]


async def one_more(made: Simulation, guest: Working) -> None:
    """Up to the guest's next count, and the put after it."""
    while len(guest.counts) < 2 or made.pcpus[0].rq.current is not None:
        await made.step()


@pytest.mark.parametrize(
    ("design", "kept", "read"), [("emulated", 1000, 1000 + WORK // 2), ("emulated-6.15", 1000, 1000)]
)
async def test_a_running_counter_that_a_vmm_writes(design: str, kept: int, read: int) -> None:
    """6.12 leaves the backing event what it has counted, 6.15 releases it (kvm_pmu_set_counter_value_user)."""
    guest = Working(ON)
    made = lab(design, guest)
    await put(made)
    vcpu = made.vcpus[0]
    set_one_reg(vcpu, reg_id(PMEVCNTR(0)), kept)
    assert vcpu.pmu.counter[0] == kept
    assert await one_reg(vcpu, PMEVCNTR(0)) == read
    guest.given = {}
    await one_more(made, guest)
    assert guest.counts == [WORK // 2, read + WORK // 2]


@pytest.mark.parametrize("design", ["emulated", "emulated-6.12.0"])
async def test_up_to_6_12_a_view_sets_or_clears(design: str) -> None:
    vcpu = lab(design, Reader()).vcpus[0]
    for sets, clears in (
        (r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0),
        (r.PMINTENSET_EL1, r.PMINTENCLR_EL1),
        (r.PMOVSSET_EL0, r.PMOVSCLR_EL0),
    ):
        set_one_reg(vcpu, reg_id(clears), r.MASK64)
        set_one_reg(vcpu, reg_id(sets), 0b0011)
        set_one_reg(vcpu, reg_id(sets), 0b0110)
        assert await one_reg(vcpu, clears) == 0b0111
        set_one_reg(vcpu, reg_id(clears), 0b0101)
        assert await one_reg(vcpu, sets) == 0b0010


@pytest.mark.parametrize("design", ["emulated-6.15", "partitioned", "partitioned-v8"])
async def test_since_6_15_each_view_assigns(design: str) -> None:
    vcpu = lab(design, Reader()).vcpus[0]
    for sets, clears in (
        (r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0),
        (r.PMINTENSET_EL1, r.PMINTENCLR_EL1),
        (r.PMOVSSET_EL0, r.PMOVSCLR_EL0),
    ):
        set_one_reg(vcpu, reg_id(sets), 0b0011)
        set_one_reg(vcpu, reg_id(sets), 0b0110)
        assert await one_reg(vcpu, clears) == 0b0110
        set_one_reg(vcpu, reg_id(clears), r.CYCLE_BIT | 1 << 20)
        assert await one_reg(vcpu, sets) == r.CYCLE_BIT


@pytest.mark.parametrize(
    ("axes", "by_one_reg", "by_attribute"),
    [({"kernel": "7.3"}, 4, 4), ({"kernel": "7.3", "strict": "yes"}, 6, 4), ({"counters": "fixed"}, 0, 0)],
)
async def test_pmcr_n_of_a_strict_pmu_and_of_one_with_fixed_counters(
    axes: dict[str, str], by_one_reg: int, by_attribute: int
) -> None:
    vcpu = simulation(experiment("emulated", counters=6, axes=axes), Reader()).vcpus[0]
    set_one_reg(vcpu, reg_id(r.PMCR_EL0), 4 << r.PMCR_N_SHIFT)
    assert n_of(await one_reg(vcpu, r.PMCR_EL0)) == by_one_reg
    if by_attribute:
        set_nr_counters(vcpu, by_attribute)
    else:
        with pytest.raises(OSError, match="fixed counters only") as caught:
            set_nr_counters(vcpu, 4)
        assert caught.value.errno == errno.EINVAL
    assert n_of(await one_reg(vcpu, r.PMCR_EL0)) == by_attribute


@pytest.mark.parametrize(
    ("design", "count", "kept"),
    [("emulated", 0, 0), ("emulated-6.12.0", 0, 0), ("emulated-6.15", 1000, r.PMCR_P), ("partitioned", 1000, 0)],
)
async def test_pmcr_p_of_a_vmm_stays_in_memory_until_kvm_pmu_handle_pmcr(design: str, count: int, kept: int) -> None:
    """set_pmcr keeps it; in 6.12 the first run's reload takes PMCR_EL0 for a guest's write, in 6.15 it does not."""
    seen: list[int] = []

    async def boot(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.mrs(PMEVCNTR(0))
        cpu.burst.mrs(r.PMCR_EL0)
        seen.extend(await cpu.wait())
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    made = lab(design, Scripted(boot=boot))
    vcpu = made.vcpus[0]
    set_one_reg(vcpu, reg_id(PMEVCNTR(0)), 1000)
    set_one_reg(vcpu, reg_id(r.PMCR_EL0), 6 << r.PMCR_N_SHIFT | r.PMCR_P)
    assert await one_reg(vcpu, r.PMCR_EL0) & r.PMCR_P
    await put(made)
    assert (seen[0], seen[1] & r.PMCR_P) == (count, 0), "a guest never reads it as set"
    assert await one_reg(vcpu, r.PMCR_EL0) & r.PMCR_P == kept
