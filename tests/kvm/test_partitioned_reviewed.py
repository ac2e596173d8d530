"""The plain `partitioned` has none of the faults that are known of the posted versions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services import registers as r
from services.cpu import awaited
from services.experiment import CpuSpec, EventSpec, SessionSpec
from services.host_perf.kernel import HostPerf
from services.kvm import designs
from services.kvm.attendant import LocalSoftware
from services.kvm.requests import HOST, Request
from services.linux_perf.attr import State
from services.registers import CYCLE_BIT, CYCLE_COUNTER
from tests.kvm.scripted import experiment, simulation
from tests.kvm.stub_vcpu import StubVcpu, access, vcpu_load, vcpu_put
from tests.kvm.test_designs import CYCLES, INSTRUCTIONS, INSTRUCTIONS_H, ran, with_host
from tests.kvm.test_emulated import Counting

CPU = CpuSpec(model="test", counters=6, pmuver=6, fgt=1)
ON = r.PMCR_LC | r.PMCR_E
PINNED = replace(INSTRUCTIONS, pinned=True)
PINNED_CYCLES_H = EventSpec("cycles:HD", CYCLES, 0, pinned=True, exclude_guest=True)


def made(counters: int = 4, **axes: str) -> tuple[Any, StubVcpu]:
    vcpu = StubVcpu(CPU, counters)
    vpmu = designs.named("partitioned").make(axes, r.counter_mask(counters)).vpmu(vcpu)
    return vpmu, vcpu


@pytest.mark.parametrize("host", [r.PMCR_LP, 0])
async def test_the_host_s_long_events_stay_long_beside_a_guest(host: int) -> None:
    """PMCR_EL0.LP, which armv8pmu_reset sets, is the guest's then: MDCR_EL2.HLP is what [HPMN, N) goes by."""
    vpmu, vcpu = made()
    vcpu.machine.poke(0, r.PMCR_EL0, ON | host)
    vcpu.pmu.pmcr, vcpu.pmu.cnten = ON, 1
    await vcpu_load(vpmu)
    assert vcpu.peek(r.MDCR_EL2) & r.MDCR_EL2_HLP == (r.MDCR_EL2_HLP if host else 0)
    assert not vcpu.peek(r.PMCR_EL0) & r.PMCR_LP
    await vcpu_put(vpmu)
    assert not vcpu.peek(r.MDCR_EL2) & r.MDCR_EL2_HLP
    assert vcpu.peek(r.PMCR_EL0) & r.PMCR_LP == host


@pytest.mark.parametrize(("host", "guest"), [(r.PMCR_LP, 0), (0, r.PMCR_LP)])
async def test_without_a_split_a_guest_does_not_change_where_the_host_s_events_overflow(host: int, guest: int) -> None:
    """HPMN = 0 without FEAT_HPMN0: every event counter goes by PMCR_EL0.LP, and is the host's."""
    vpmu, vcpu = made(counters=0, swap="eager")
    vcpu.machine.poke(0, r.PMCR_EL0, ON | host)
    vcpu.pmu.pmcr = ON | guest
    await vcpu_load(vpmu)
    assert vcpu.peek(r.PMCR_EL0) & r.PMCR_LP == host
    assert await access(vpmu, r.PMCR_EL0, False, 0) & r.PMCR_LP == guest


async def test_a_guest_s_programs_have_its_pmuserenr_though_its_registers_are_in_memory() -> None:
    """What traps to EL1 goes by PMUSERENR_EL0, before MDCR_EL2.TPM has it trap to EL2."""
    vpmu, vcpu = made()
    vcpu.pmu.userenr = r.PMUSERENR_EN
    await vcpu_load(vpmu)
    assert not vpmu.context.owned
    assert vcpu.peek(r.PMUSERENR_EL0) == r.PMUSERENR_EN
    await vcpu_put(vpmu)
    assert (vcpu.peek(r.PMUSERENR_EL0), vcpu.pmu.userenr) == (0, r.PMUSERENR_EN)
    vcpu.host_userenr = r.PMUSERENR_ER
    vcpu.machine.poke(0, r.PMUSERENR_EL0, r.PMUSERENR_ER)
    vcpu.pmu.userenr = 0
    await vcpu_load(vpmu)
    assert vcpu.peek(r.PMUSERENR_EL0) == 0
    await vcpu_put(vpmu)
    assert vcpu.peek(r.PMUSERENR_EL0) == vcpu.host_userenr


@pytest.mark.parametrize(
    ("pmcr", "inten", "on_cpu"), [(ON, 0b01, 0b10), (ON, 0b10, 0), (ON, 0, 0b10), (r.PMCR_LC, 0b10, 0b10)]
)
async def test_a_flag_that_does_not_interrupt_waits_on_the_cpu_for_its_enable(
    pmcr: int, inten: int, on_cpu: int
) -> None:
    """PMINTENSET_EL1 and PMCR_EL0 do not trap: only there does the flag have its interrupt as soon as it is enabled."""
    vpmu, vcpu = made(swap="eager")
    vcpu.pmu.pmcr, vcpu.pmu.inten, vcpu.pmu.ovs = pmcr, inten, 0b10
    await vcpu_load(vpmu)
    assert (vcpu.peek(r.PMOVSSET_EL0), vcpu.pmu.ovs) == (on_cpu, 0b10 & ~on_cpu)
    assert await awaited(vpmu.level()) == (not on_cpu)
    await vcpu_put(vpmu)
    assert (vcpu.peek(r.PMOVSSET_EL0), vcpu.pmu.ovs) == (0, 0b10)


async def test_the_host_s_events_are_squeezed_last_in_the_range_that_is_its_own() -> None:
    """It allocates from the highest index."""
    _, _, events, _ = await ran(with_host(experiment("partitioned", counters=4), *([INSTRUCTIONS] * 5)))
    assert [event["running"] for event in events] == [event["enabled"] for event in events]


@pytest.mark.parametrize("pinned", ["swap", "error"])
async def test_a_pinned_event_without_a_counter_waits_for_the_put_or_is_in_error_for_good(pinned: str) -> None:
    of = experiment("partitioned", counters=10, axes={"pinned": pinned})
    _, _, (event,), _ = await ran(with_host(of, PINNED))
    if pinned == "error":
        assert event["state"] == State.ERROR
    else:
        assert event["state"] > State.ERROR
        assert 0 < event["running"] < event["enabled"]


async def test_a_pinned_event_that_is_opened_while_a_guest_has_every_counter_has_one_after_the_put() -> None:
    guest, host = Counting(), HostPerf()
    lab = simulation(experiment("partitioned", counters=10), guest.software)
    lab.attend_host(0, LocalSoftware(host.attend(0)))
    while not (lab.working and lab.vcpus[0].vpmu.swaps.loads):
        await lab.step()
    session = SessionSpec("stat", (PINNED,), cpu_wide=True)
    lab.requests.add(Request(HOST, 0, session=session))
    await lab.run()
    assert host.perf is not None
    (event,) = host.perf.events.values()
    assert event.state == State.INACTIVE
    await lab.pcpus[0].preempt()
    assert event.state == State.ACTIVE


@pytest.mark.parametrize("pinned", ["swap", "error"])
async def test_a_pinned_event_has_a_counter_that_no_guest_takes(pinned: str) -> None:
    """Of the host's range, and not the cycle counter, which a guest has with any event counters."""
    of = with_host(
        experiment("partitioned", counters=8, axes={"pinned": pinned}), *[INSTRUCTIONS_H] * 2, PINNED_CYCLES_H
    )
    guest, host = Counting(), HostPerf()
    lab = simulation(of, guest.software)
    lab.attend_host(0, LocalSoftware(host.attend(0)))
    driver = None
    on: set[int] = set()
    while lab.working:
        await lab.step()
        if host.perf is not None:
            driver = host.perf.cpus[0].pmu
            on |= {event.idx for event in driver.events if event is not None and event.attr.pinned}
    assert driver is not None
    assert on == ({9} if pinned == "swap" else {CYCLE_COUNTER, 9})
    assert driver.guests == (r.counter_mask(8) | CYCLE_BIT if pinned == "swap" else 0)
