"""What traps under each design, and what a guest gets from it."""

import pytest

from services import registers as r
from services.cpu import Cpu, Entry, Notice, TookException
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.errors import SimulationError
from services.kvm.simulation import Simulation
from services.registers import PMEVCNTR, PMEVTYPER
from services.state import save
from tests.kvm.scripted import Scripted, experiment, simulation


def start_event(cpu: Cpu, n: int) -> None:
    """The five writes of armpmu_start."""
    cpu.burst.msr(PMEVCNTR(n), 0x8000_0000)
    cpu.burst.msr(r.PMCNTENCLR_EL0, 1 << n)
    cpu.burst.msr(PMEVTYPER(n), 0x08)
    cpu.burst.msr(r.PMINTENSET_EL1, 1 << n)
    cpu.burst.msr(r.PMCNTENSET_EL0, 1 << n)


async def boot(cpu: Cpu, entry: Entry) -> None:
    cpu.burst.msr(r.PMCR_EL0, r.PMCR_LC)
    start_event(cpu, 0)
    cpu.burst.notify(Notice.WORK_DONE, 0)
    cpu.burst.wfi()


async def ran(design: str, **axes: str) -> Simulation:
    made = simulation(experiment(design, axes=axes), Scripted(boot=boot))
    await made.run()
    return made


@pytest.mark.parametrize(
    ("axes", "traps"),
    [
        ({}, {PMEVTYPER(0)}),
        (
            {"traps": "slow-path"},
            {r.PMCR_EL0, PMEVCNTR(0), r.PMCNTENCLR_EL0, PMEVTYPER(0), r.PMINTENSET_EL1, r.PMCNTENSET_EL0},
        ),
        ({"pmcr": "trapped"}, {PMEVTYPER(0), r.PMCR_EL0}),
    ],
)
async def test_starting_an_event_traps_once_with_fgt_and_each_time_without(
    axes: dict[str, str], traps: set[int]
) -> None:
    made = await ran("partitioned", swap="eager", **axes)
    assert {key >> 1 for key in made.vcpus[0].traps} == traps
    assert set(made.vcpus[0].traps.values()) == {1}


async def test_a_guest_counter_beyond_hpmn_is_undefined() -> None:
    outcome: list[object] = []

    async def boot(cpu: Cpu, entry: Entry) -> None:
        try:
            await cpu.mrs(PMEVCNTR(6))
        except TookException as exc:
            outcome.append(exc.esr >> 26)
        outcome.append(await cpu.mrs(r.PMCR_EL0) >> r.PMCR_N_SHIFT & 31)
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    made = simulation(experiment("partitioned", counters=6), Scripted(boot=boot))
    await made.run()
    assert outcome == [0, 6]


async def test_a_swap_of_v6_is_4h_plus_11_writes_at_load_and_h_plus_5_reads_and_h_plus_1_writes_at_put() -> None:
    made = await ran("partitioned-v6")
    vpmu = made.vcpus[0].vpmu
    await made.result()
    swaps = vpmu.swaps
    assert swaps.register_writes == swaps.loads * (4 * 6 + 11) + swaps.puts * (6 + 1)
    assert swaps.register_reads == swaps.puts * (6 + 5)
    assert swaps.loads == swaps.puts + 1 or swaps.loads == swaps.puts


async def test_what_a_guest_programmed_survives_put_and_load() -> None:
    made = await ran("partitioned")
    vcpu = made.vcpus[0]
    await made.result()
    while save(vcpu.vpmu)["context"]["loaded"]:
        await made.step()
    assert (vcpu.pmu.counter[0], vcpu.pmu.typer[0], vcpu.pmu.cnten, vcpu.pmu.inten) == (0x8000_0000, 0x08, 1, 1)


@pytest.mark.parametrize("swap", ["lazy", "lazy-sticky"])
async def test_a_guest_that_never_touches_its_pmu_costs_no_swap(swap: str) -> None:
    async def boot(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.compute(2, 0, 30_000_000)
        cpu.burst.notify(Notice.WORK_DONE, 0)

    made = simulation(experiment("partitioned", axes={"swap": swap, "reservation": "dynamic"}), Scripted(boot=boot))
    await made.run()
    await made.result()
    swaps = made.vcpus[0].vpmu.swaps
    assert (swaps.loads, swaps.register_writes, swaps.register_reads) == (0, 0, 0)


def sequence(operation: str, n: int, k: int) -> list[tuple[str, int]]:
    """Linux's accesses for an operation on n running events, k of them overflowed: ("r" or "w", register)."""
    off = [("r", r.PMCR_EL0), ("w", r.PMCR_EL0)]
    on = [("w", r.PMUSERENR_EL0), *off]

    def start(i: int) -> list[tuple[str, int]]:
        types = [PMEVCNTR(i), r.PMCNTENCLR_EL0, PMEVTYPER(i), r.PMINTENSET_EL1, r.PMCNTENSET_EL0]
        return [("w", register) for register in types]

    def stop(i: int) -> list[tuple[str, int]]:
        writes = [("w", register) for register in (r.PMCNTENCLR_EL0, r.PMINTENCLR_EL1, r.PMOVSCLR_EL0)]
        return [*writes, ("r", PMEVCNTR(i))]

    counters = [(rw, PMEVCNTR(i)) for i in range(k) for rw in "rw"]
    return {
        "start": start(0),
        "stop": stop(0),
        "off and on": off + on,
        "overflow": [("r", r.PMOVSCLR_EL0), ("w", r.PMOVSCLR_EL0), *off, *counters, *on],
        "rotation": off + [a for i in range(n) for a in stop(i)] + [a for i in range(n) for a in start(i)] + on,
    }[operation]


@pytest.mark.parametrize(
    ("operation", "accesses", "with_fgt"),
    [
        ("start", 5, 1),
        ("stop", 4, 1),
        ("off and on", 5, 0),
        ("overflow", 7 + 2 * 2, 2),
        ("rotation", 5 + 9 * 6, 2 * 6),
    ],
)
@pytest.mark.parametrize("design", ["emulated", "emulated-6.15", "partitioned", "partitioned,slow", "partitioned,fast"])
async def test_what_an_operation_of_linuxs_driver_traps(
    operation: str, accesses: int, with_fgt: int, design: str
) -> None:
    of = sequence(operation, n=6, k=2)

    async def boot(cpu: Cpu, entry: Entry) -> None:
        for rw, register in of:
            if rw == "r":
                cpu.burst.mrs(register)
            else:
                cpu.burst.msr(register, 0)
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    name, _, path = design.partition(",")
    axes = {"swap": "eager"} if name == "partitioned" else {}
    made = simulation(experiment(name, axes=axes | ({"traps": f"{path}-path"} if path else {})), Scripted(boot=boot))
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    await made.run()
    assert len(of) == accesses
    assert sum(made.vcpus[0].traps.values()) == (with_fgt if design == "partitioned" else accesses)


async def test_an_exception_after_a_handlers_last_wait_is_told_with_who_took_it() -> None:
    async def boot(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.mrs(PMEVCNTR(6))

    made = simulation(experiment("partitioned", counters=6), Scripted(boot=boot))
    with pytest.raises(SimulationError, match=r"vm0 on vCPU 0: exception .* ESR 0x2000000, and its handler has ended"):
        await made.run()


@pytest.mark.parametrize("answer", [b"", b"\xff", b"null", b"[]", b"[" * 10_000])
async def test_a_report_that_is_none_is_told_with_who_made_it(answer: bytes) -> None:
    async def boot(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    async def report(cpu: Cpu, entry: Entry) -> None:
        cpu.answer(answer)

    made = simulation(experiment("emulated"), Scripted(boot=boot, report=report))
    await made.run()
    with pytest.raises(SimulationError, match="vm0 on vCPU 0: report: it is not "):
        await made.result()
