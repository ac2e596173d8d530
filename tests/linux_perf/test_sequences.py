"""Register accesses per operation: what Linux's driver does, and so what a trap-and-emulate vPMU pays for."""

from __future__ import annotations

import pytest

from services.cpu import CounterFlag
from services.linux_perf import PerfConfig, State
from services.registers import PMEVTYPER
from tests.linux_perf.bench import COSTS, CYCLES, INSTRUCTIONS, Kernel

OFF = ["r PMCR_EL0", "w PMCR_EL0"]
ON = ["w PMUSERENR_EL0", "r PMCR_EL0", "w PMCR_EL0"]


def start(n: int) -> list[str]:
    return [f"w PMEVCNTR{n}_EL0", "w PMCNTENCLR_EL0", f"w PMEVTYPER{n}_EL0", "w PMINTENSET_EL1", "w PMCNTENSET_EL0"]


def stop(n: int) -> list[str]:
    return ["w PMCNTENCLR_EL0", "w PMINTENCLR_EL1", "w PMOVSCLR_EL0", f"r PMEVCNTR{n}_EL0"]


async def test_starting_is_five_writes_and_stopping_three_and_a_read() -> None:
    kernel = await Kernel.boot()
    event = await kernel.open(INSTRUCTIONS)
    assert kernel.accesses() == [*OFF, *start(0), *ON]
    await kernel.disable(event)
    assert kernel.accesses() == [*OFF, *stop(0)]


async def test_barriers_of_a_start_and_a_stop() -> None:
    kernel = await Kernel.boot()
    event = await kernel.open(INSTRUCTIONS, disabled=True)
    before = kernel.bench.machine.now(0)
    await kernel.enable(event)
    assert kernel.bench.machine.now(0) - before == (2 + 1) + (5 + 2) + (3 + 1)  # a cycle per access and barrier
    before = kernel.bench.machine.now(0)
    await kernel.disable(event)
    assert kernel.bench.machine.now(0) - before == (2 + 1) + (4 + 3)


async def test_a_disabled_event_that_is_not_the_first_costs_nothing_to_open() -> None:
    kernel = await Kernel.boot()
    await kernel.open(INSTRUCTIONS, disabled=True)
    assert kernel.accesses() == OFF
    await kernel.open(INSTRUCTIONS, disabled=True)
    assert kernel.accesses() == []


@pytest.mark.parametrize("overflowed", [1, 2, 5])
async def test_an_overflow_interrupt_is_seven_accesses_and_two_per_counter(overflowed: int) -> None:
    kernel = await Kernel.boot()
    for _ in range(overflowed):
        await kernel.open(INSTRUCTIONS, period=1_000_000, disabled=True, enable_on_exec=True)
    await kernel.exec()
    kernel.accesses()
    assert await kernel.bench.work_until_interrupt(kernel.perf)
    counters = [f"{way} PMEVCNTR{n}_EL0" for n in range(overflowed) for way in "rw"]
    assert kernel.accesses() == ["r PMOVSCLR_EL0", "w PMOVSCLR_EL0", *OFF, *counters, *ON]


@pytest.mark.parametrize("counters", [1, 2, 6, 10])
async def test_a_rotation_is_five_accesses_and_nine_per_counter(counters: int) -> None:
    kernel = await Kernel.boot(counters=counters)
    for _ in range(counters + 1):
        await kernel.open(INSTRUCTIONS)
    kernel.accesses()
    await kernel.rotate()
    outs = [access for n in range(counters) for access in stop(n)]
    ins = [access for n in range(counters) for access in start(n)]
    assert kernel.accesses() == [*OFF, *outs, *ins, *ON]


@pytest.mark.parametrize("counters", [1, 6, 10])
async def test_a_tick_is_five_accesses_and_nine_per_running_frequency_event(counters: int) -> None:
    kernel = await Kernel.boot(counters=counters)
    for _ in range(counters):
        await kernel.open(INSTRUCTIONS, frequency=1000)
    await kernel.open(CYCLES)  # by no frequency
    kernel.accesses()
    await kernel.tick()
    assert kernel.accesses() == [*OFF, *(access for n in range(counters) for access in stop(n) + start(n)), *ON]


async def test_a_tick_without_frequency_events_touches_nothing() -> None:
    kernel = await Kernel.boot()
    await kernel.open(INSTRUCTIONS, period=1000)
    kernel.accesses()
    await kernel.tick()
    assert kernel.accesses() == []


async def test_a_task_without_events_costs_nothing_to_switch() -> None:
    kernel = await Kernel.boot()
    await kernel.switch()
    assert kernel.accesses() == []


async def test_a_task_whose_events_are_off_still_costs_the_pmu_off() -> None:
    kernel = await Kernel.boot()
    await kernel.open(INSTRUCTIONS, disabled=True)
    kernel.accesses()
    await kernel.switch()
    assert kernel.accesses() == [*OFF, *OFF]


async def test_exec_enables_all_in_one_bracket() -> None:
    kernel = await Kernel.boot()
    for _ in range(3):
        await kernel.open(INSTRUCTIONS, disabled=True, enable_on_exec=True)
    kernel.accesses()
    await kernel.exec()
    assert kernel.accesses() == [*OFF, *start(0), *start(1), *start(2), *ON]


async def test_reading_is_one_access() -> None:
    kernel = await Kernel.boot()
    event = await kernel.open(INSTRUCTIONS)
    kernel.accesses()
    await kernel.perf.read(kernel.cpu, event)
    assert kernel.accesses() == ["r PMEVCNTR0_EL0"]


async def test_closing_a_running_event_is_a_bracket_of_its_own() -> None:
    kernel = await Kernel.boot()
    first, second = [await kernel.open(INSTRUCTIONS) for _ in range(2)]
    kernel.accesses()
    await kernel.perf.release(kernel.cpu, first)
    await kernel.done()
    assert kernel.accesses() == [*OFF, *stop(0), *ON]
    await kernel.perf.release(kernel.cpu, second)
    await kernel.done()
    assert kernel.accesses() == [*OFF, *stop(1)]


async def test_without_long_counters_a_long_event_takes_a_pair() -> None:
    kernel = await Kernel.boot(pmuver=1)
    event = await kernel.open(INSTRUCTIONS, long=True)
    pair = [
        *("w PMEVCNTR1_EL0", "w PMEVCNTR0_EL0", "w PMCNTENCLR_EL0", "w PMEVTYPER0_EL0", "w PMEVTYPER1_EL0"),
        *("w PMINTENSET_EL1", "w PMCNTENSET_EL0"),
    ]
    assert kernel.accesses() == [*OFF, *pair, *ON]
    await kernel.disable(event)
    stops = ["w PMCNTENCLR_EL0", "w PMINTENCLR_EL1", "w PMOVSCLR_EL0", "r PMEVCNTR1_EL0", "r PMEVCNTR0_EL0"]
    assert kernel.accesses() == [*OFF, *stops]


async def test_a_loaded_vcpus_pmuserenr_is_left_alone() -> None:
    kernel = await Kernel.boot(hyp=True)
    kernel.perf.pmuserenr_on_cpu = True
    await kernel.open(INSTRUCTIONS)
    assert kernel.accesses() == [*OFF, *start(0), *ON[1:]]


@pytest.mark.parametrize(
    ("attributes", "hyp", "bits"),
    [
        ({}, True, 1 << 27),
        ({"exclude_kernel": True}, True, 1 << 31),
        ({"exclude_user": True}, True, 1 << 27 | 1 << 30),
        ({"exclude_guest": True}, True, 1 << 27 | 1 << 31),
        ({"exclude_host": True}, True, 1 << 30),
        ({}, False, 1 << 27),
        ({"exclude_hv": True}, False, 0),
        ({"exclude_kernel": True}, False, 1 << 27 | 1 << 31),
        ({"exclude_user": True, "exclude_hv": True}, False, 1 << 30),
    ],
)
async def test_filters_are_armv8pmu_set_event_filters(attributes: dict[str, bool], hyp: bool, bits: int) -> None:
    kernel = await Kernel.boot(hyp=hyp)
    await kernel.open(INSTRUCTIONS, leader=None, **attributes)
    assert kernel.bench.machine.peek(0, PMEVTYPER(0)) == INSTRUCTIONS | bits


async def test_el0_filters_of_backing_events_are_flipped_when_a_guest_is_loaded() -> None:
    kernel = await Kernel.boot(hyp=True)
    guests = await kernel.create(0, INSTRUCTIONS, 0, 1 << 20)
    assert guests.state == State.ACTIVE
    hosts = await kernel.open(INSTRUCTIONS, exclude_guest=True, task=None)
    await kernel.open(INSTRUCTIONS, task=None)  # wants both: never flipped
    kernel.accesses()
    typers = [PMEVTYPER(guests.idx), PMEVTYPER(hosts.idx)]
    for guest_loaded, expected in ((True, [0, 1 << 30]), (False, [1 << 30, 0])):
        kernel.perf.el0_filter(kernel.cpu, guest_loaded)
        await kernel.done()
        assert len(kernel.accesses()) == 4
        assert [kernel.bench.machine.peek(0, typer) & 1 << 30 for typer in typers] == expected


async def test_pmicntrs_el0_filter_is_flipped_too() -> None:
    """kvm_vcpu_pmu_read_evtype_direct and kvm_vcpu_pmu_write_evtype_direct: PMICFILTR_EL0 is the type of counter 32."""
    kernel = await Kernel.boot(hyp=True, icntr=True)
    await kernel.open(INSTRUCTIONS, exclude_guest=True, task=None)
    kernel.accesses()
    kernel.perf.el0_filter(kernel.cpu, True)
    await kernel.done()
    assert kernel.accesses() == ["r PMICFILTR_EL0", "w PMICFILTR_EL0"]


async def test_kvms_counter_costs_half_of_its_price_to_create_and_half_to_release() -> None:
    kernel = await Kernel.boot(hyp=True, costs={**COSTS, "perf_release_create": 3001})
    before = kernel.bench.machine.now(0)
    event = kernel.perf.create_kernel_counter(kernel.cpu, 0, INSTRUCTIONS, CounterFlag.DISABLED, 1 << 20)
    await kernel.done()
    created = kernel.bench.machine.now(0)
    await kernel.perf.destroy_kernel_counter(kernel.cpu, event)
    await kernel.done()
    assert (created - before, kernel.bench.machine.now(0) - created) == (1501, 1500)


async def test_a_sibling_of_a_leader_in_error_reschedules_when_it_is_opened() -> None:
    """perf_install_in_context: __perf_effective_state is the leader's, ERROR, which is not OFF."""
    kernel = await Kernel.boot(counters=1)
    await kernel.open(INSTRUCTIONS, pinned=True)
    leader = await kernel.open(INSTRUCTIONS, pinned=True)
    assert leader.state == State.ERROR
    kernel.accesses()
    await kernel.open(INSTRUCTIONS, leader=leader)
    assert kernel.accesses() == [*OFF, *stop(0), *start(0), *ON]


async def test_a_pmu_is_probed_on_one_of_its_cpus_and_reset_on_all() -> None:
    """armv8pmu_probe_pmu calls one CPU of supported_cpus (smp_call_function_any), armv8pmu_reset runs on each."""
    kernel = await Kernel.boot()
    for arm_pmu, probes in ((0, False), (1, True)):
        other = kernel.all_perf.add_cpu(PerfConfig(pmuver=6, cpu=1, arm_pmu=arm_pmu))
        await other.probe(kernel.cpu)
        await kernel.bench.flush()
        probe = ["r PMCR_EL0", "r PMCEID0_EL0", "r PMCEID1_EL0", "r PMMIR_EL1"] if probes else []
        assert kernel.accesses() == [*probe, "w PMCNTENCLR_EL0", "w PMINTENCLR_EL1", "w PMOVSCLR_EL0", "w PMCR_EL0"]
        assert (other.counters, other.pmu.cntr_mask) == (6, kernel.perf.pmu.cntr_mask)
