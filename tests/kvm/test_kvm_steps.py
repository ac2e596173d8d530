"""Interrupts between two of KVM's own operations (kvm_sched_in, kvm_sched_out; Linux 6.12)."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from services import registers as r
from services import typed_json
from services._pmu import Burst
from services.boot import CpuSession
from services.costs import Cost, load
from services.cpu import Cpu, Entry, EntryKind, Notice, Timer
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.irqs import Irqs
from services.kvm.simulation import Simulation
from services.kvm.vcpu import VCpu
from tests.kvm.scripted import HZ, Scripted, ScriptedHost, experiment, simulation
from tests.kvm.test_designs import INSTRUCTIONS, host_session

COSTS = load("altra-n1-vhe").cycles(HZ)
MS = HZ // 1000
FLAGS = [r.PMOVSSET_EL0, r.PMCNTENSET_EL0, r.PMINTENSET_EL1]


class Host(ScriptedHost):
    """It clears the flag of counter 0, tells KVM of it, and notes when."""

    def __init__(self) -> None:
        super().__init__(pmu_irq=self.pmu_irq)
        self.at: list[int] = []

    async def pmu_irq(self, cpu: Cpu, entry: Entry) -> None:
        self.at.append(entry.now)
        cpu.burst.msr(r.PMOVSCLR_EL0, 1)
        cpu.burst.notify(Notice.GUEST_OVERFLOW, 1)


async def loaded(*, nmi: bool = False, vcpus: tuple[int, ...] = (0,)) -> tuple[Simulation, Host]:
    of, host = experiment("partitioned", vcpus=vcpus, axes={"swap": "eager"}), Host()
    made = simulation(replace(of, host=replace(of.host, pseudo_nmi=nmi)), Scripted(), host)
    await made.step()  # boots
    await made.step()  # switches to the first vCPU
    assert made.pcpus[0].rq.current is made.vcpus[0]
    return made, host


def overflowing() -> Burst:
    """Counter 0 has its flag and its interrupt by the second operation; a third and a fourth follow."""
    burst = Burst()
    burst.msr(r.PMINTENSET_EL1, 1)
    burst.msr(r.PMOVSSET_EL0, 1)
    burst.mrs(r.PMOVSSET_EL0)
    burst.mrs(r.PMOVSSET_EL0)
    return burst


async def executed(vcpu: VCpu) -> list[int]:
    await vcpu.write(r.PMCR_EL0, r.PMCR_E)
    vcpu.pcpu.enter_kernel()
    values = vcpu.kvm(overflowing())
    return values if isinstance(values, list) else await values


@pytest.mark.parametrize(("irqs", "taken"), [(Irqs.ON, True), (Irqs.OFF, True), (Irqs.MASKED, False)])
async def test_the_pmus_interrupt_is_taken_between_two_operations(irqs: Irqs, *, taken: bool) -> None:
    """By the operation behind it the handler has cleared the flag, and told KVM of it."""
    made, host = await loaded(nmi=True)
    (vcpu,) = made.vcpus
    vcpu.irqs = irqs
    values = await executed(vcpu)
    assert [value & 1 for value in values] == ([0, 0] if taken else [1, 1])
    assert (len(host.at), vcpu.pmu.ovs & 1) == (int(taken), int(taken))


async def test_a_tick_waits_where_interrupts_are_off() -> None:
    """And comes between two operations where they are on."""
    for irqs in Irqs:
        made, host = await loaded()
        (vcpu,) = made.vcpus
        vcpu.irqs = irqs
        made.board.machine.charge(0, Cost.TICK, 5 * MS)  # up to behind it
        burst = Burst()
        burst.mrs(r.PMCR_EL0)
        values = vcpu.kvm(burst)
        if not isinstance(values, list):
            await values
        assert ([entry.kind for entry in host.entered].count(EntryKind.TIMER) == 1) is (irqs is Irqs.ON)


async def test_a_step_with_nothing_pending_is_one_list() -> None:
    made, _ = await loaded()
    burst = Burst()
    for register in FLAGS:
        burst.mrs(register)
    assert isinstance(made.vcpus[0].kvm(burst), list)


@pytest.mark.parametrize("design", ["emulated", "partitioned"])
async def test_what_is_pending_at_a_switch_is_taken_before_the_load_and_is_no_guests(design: str) -> None:
    """finish_lock_switch comes before kvm_sched_in: kvm_running_vcpu is NULL, and who is loaded then is not told."""

    class Switching(Host):
        """What overflows as the second vCPU is switched in is of whoever ran before."""

        def __init__(self) -> None:
            super().__init__()
            self.handlers[EntryKind.TASK_IN] = self.task_in

        async def task_in(self, cpu: Cpu, entry: Entry) -> None:
            cpu.burst.msr(r.PMCR_EL0, r.PMCR_E)
            cpu.burst.msr(r.PMINTENSET_EL1, 1)
            cpu.burst.msr(r.PMOVSSET_EL0, 1)

        async def pmu_irq(self, cpu: Cpu, entry: Entry) -> None:
            self.at.append(entry.now)
            cpu.burst.msr(r.PMOVSCLR_EL0, 1)
            if design != "emulated":
                cpu.burst.notify(Notice.GUEST_OVERFLOW, 1)

    made, host = simulation(experiment(design), Scripted()), Switching()
    made.attend_host(0, LocalSoftware(host))
    await made.step()
    await made.step()
    kinds = [entry.kind for entry in host.entered]
    assert kinds[kinds.index(EntryKind.TASK_IN) + 1] == EntryKind.PMU_IRQ
    (vcpu,) = made.vcpus
    assert (vcpu.pmu.ovs, vcpu.vgic.overflowed) == (0, -1)
    assert made.pcpus[0].latencies.times  # it was the host's own, for all that anybody knows


class Opening:
    """The host's perf, of which a user opens an event on this CPU, by an IPI, when the mux timer is due."""

    def __init__(self) -> None:
        self.host = HostPerf().attend(0)
        self.opened = False

    def enter(self, cpu: Cpu, entry: Entry) -> Coroutine[Any, Any, object] | None:
        if entry.kind is EntryKind.TIMER and entry.argument >> Timer.MUX & 1:
            self.opened = True
            payload = typed_json.dumps(CpuSession(host_session(INSTRUCTIONS), -1, (0,)))
            entry = replace(entry, kind=EntryKind.REQUEST, argument=0, payload=payload)
        return self.host.enter(cpu, entry)


async def test_an_event_of_the_host_that_is_opened_amid_a_load_counts_from_then_on() -> None:
    """Its PMU was stopped: what starts it is PMCR_EL0.E before, MDCR_EL2.HPME behind."""
    opened = 0
    for delay in range(3_550, 3_650, COSTS["mrs"] // 2):  # from the switch before the load
        made, host = simulation(experiment("partitioned", axes={"swap": "eager"}), Scripted()), Opening()
        made.attend_host(0, LocalSoftware(host))
        await made.step()  # boots
        (pcpu,), (vcpu,) = made.pcpus, made.vcpus
        pcpu.timers[Timer.MUX] = pcpu.now + delay
        pcpu.rearm()
        while pcpu.rq.current is not vcpu:
            await made.step()
        opened += host.opened
        assert bool(made.board.machine.peek(0, r.MDCR_EL2) & r.MDCR_EL2_HPME) is host.opened, delay
    assert opened > 0
