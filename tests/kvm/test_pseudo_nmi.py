"""The PMU's interrupt as a pseudo-NMI (armpmu_request_irq, armv8pmu_handle_irq in NMI context; Linux 6.12)."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from pmulab import scenario
from services import registers as r
from services.costs import Cost
from services.cpu import Cpu, Entry, EntryKind
from services.embedded import Embedded
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.simulation import Simulation
from services.registers import PMEVCNTR, PMEVTYPER
from tests.kvm.scripted import HZ, INST_RETIRED, Scripted, ScriptedHost, experiment, simulation
from tests.kvm.test_pmi_delay import Counting
from tests.repeatability.test_restored import finished
from tests.repeatability.worlds import NMI, after

MS = HZ // 1000


class Host(ScriptedHost):
    """A host whose counter overflows in the first entry of a kind, and which notes what it is entered for."""

    def __init__(self, kind: str = "boot") -> None:
        super().__init__(**{kind: self.overflow}, pmu_irq=self.pmu_irq)
        self.overflowed = False

    async def overflow(self, cpu: Cpu, _entry: Entry) -> None:
        if self.overflowed:
            return
        self.overflowed = True
        cpu.burst.msr(PMEVTYPER(9), INST_RETIRED | r.PMEVTYPER_NSH)
        cpu.burst.msr(PMEVCNTR(9), (1 << 32) - 1)
        cpu.burst.msr(r.PMINTENSET_EL1, 1 << 9)
        cpu.burst.msr(r.PMCNTENSET_EL0, 1 << 9)
        cpu.burst.msr(r.PMCR_EL0, r.PMCR_LC | r.PMCR_E)
        cpu.burst.charge(Cost.TICK, 100)

    async def pmu_irq(self, cpu: Cpu, _entry: Entry) -> None:
        cpu.burst.msr(r.PMOVSCLR_EL0, 1 << 9)
        cpu.burst.ipi(0)


def with_nmi(design: str, *, on: bool = True, vcpus: tuple[int, ...] = (0,), **axes: str) -> Simulation:
    of = experiment(design, vcpus=vcpus, axes=axes)
    return simulation(replace(of, host=replace(of.host, pseudo_nmi=on)), Scripted())


@pytest.mark.parametrize("on", [False, True])
async def test_while_masked_it_is_taken_alone(*, on: bool) -> None:
    """Neither the tick nor the SGI of its own irq_work, which wait for the kernel to unmask interrupts."""
    made, host = with_nmi("partitioned", on=on), Host()
    made.attend_host(0, LocalSoftware(host))
    (pcpu,) = made.pcpus
    await made.step()
    assert [entry.kind for entry in host.entered] == [EntryKind.BOOT, *([EntryKind.PMU_IRQ] if on else [])]
    assert pcpu.irq_work is on
    pcpu.machine.charge(0, Cost.TICK, 5 * MS)  # up to behind the tick
    await pcpu.nmi()
    assert EntryKind.TIMER not in [entry.kind for entry in host.entered]
    await pcpu.serve_interrupts(2)
    assert [entry.kind for entry in host.entered[1:]] == [EntryKind.PMU_IRQ, EntryKind.SGI, EntryKind.TIMER]
    assert not pcpu.irq_work


@pytest.mark.parametrize("design", ["emulated", "partitioned-v8"])
async def test_an_overflow_does_not_wait_for_the_end_of_a_switch(design: str) -> None:
    """perf_event_task_sched_out runs with interrupts off, as all of __schedule does."""
    waited = {}
    for on in (False, True):
        made, host = with_nmi(design, on=on, vcpus=(0, 0)), Host("task_out")
        made.attend_host(0, LocalSoftware(host))
        for index in (0, 1):
            made.attend_guest("vm0", index, LocalSoftware(Counting().software))
        await made.run()
        kinds = [entry.kind for entry in host.entered]
        out, taken = kinds.index(EntryKind.TASK_OUT), kinds.index(EntryKind.PMU_IRQ)
        (waited[on],) = made.pcpus[0].latencies.times
        assert (EntryKind.TASK_IN in kinds[out:taken]) is not on
    assert waited[True] < waited[False] - made.pcpus[0].costs[Cost.CONTEXT_SWITCH]


async def test_a_sample_lands_inside_a_vcpu_load() -> None:
    """kvm_arch_vcpu_load by kvm_sched_in has interrupts on: it takes longer by the handler, an NMI or not."""
    taken = {}
    for on in (False, True):
        made, host = with_nmi("partitioned", on=on, swap="eager"), Host("call")
        made.attend_host(0, LocalSoftware(host))
        await made.step()  # boots
        await made.step()  # switches to the vCPU
        taken[on] = max(made.vcpus[0].load_times.times)
        assert [entry.kind for entry in host.entered][:4] == [
            *(EntryKind.BOOT, EntryKind.TASK_IN),
            *(EntryKind.CALL, EntryKind.PMU_IRQ),
        ]
    quiet = with_nmi("partitioned", on=False, swap="eager")
    await quiet.step()
    await quiet.step()
    assert min(taken.values()) >= max(quiet.vcpus[0].load_times.times) + quiet.pcpus[0].costs[Cost.IRQ_ENTRY]


@pytest.mark.parametrize(("design", "ipis"), [("emulated", 1), ("partitioned-v8", 0)])
async def test_kvm_kicks_by_irq_work(design: str, ipis: int) -> None:
    """kvm_pmu_perf_overflow, in_nmi(): irq_work_queue(&vcpu->arch.pmu.overflow_work), an IPI more per overflow.

    v8 kicks where PMCR_EL0.E is set, and the host's handler has the PMU stopped when it asks.
    """
    taken = []
    for on in (False, True):
        made, kernel = with_nmi(design, on=on, vcpus=(0, 0)), Counting(first=MS // 2)
        made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
        for index, guest in enumerate((kernel, Counting())):
            made.attend_guest("vm0", index, LocalSoftware(guest.software))
        await made.run()
        assert kernel.found == [1]
        cost = made.pcpus[0].costs[Cost.IRQ_ENTRY]
        charged = sum(made.board.machine.charged(0, account)[Cost.IRQ_ENTRY] for account in range(8))
        taken.append(charged // cost)
    assert taken[1] == taken[0] + ipis


async def test_a_vcpu_that_has_blocked_is_woken_by_the_irq_work() -> None:
    """kvm_pmu_perf_overflow_notify_vcpu."""
    made = with_nmi("emulated")
    (pcpu,), (vcpu,) = made.pcpus, made.vcpus
    vcpu.blocked = True
    vcpu.kick()
    assert vcpu.blocked
    assert pcpu.rearm() == 0
    await pcpu.irq_work_run(2)
    assert not vcpu.blocked
    assert pcpu.rearm() > 0


def dense(design: str, period: int) -> Embedded:
    """A world in which many overflows meet a switch."""
    often = [
        f"host.perf.period={period}",
        "host.perf.events=cycles,instructions,branches",
        "guest.task.sleep_ms=0.05",
        "guest.task.repeat=60",
        "guest.task.seconds=0.0005",
        "guest.task.perf.period=50021",
    ]
    (made,) = scenario.load(NMI, designs=[design], overrides=often).experiments
    return Embedded.of(made)


async def amid_irq_work(design: str) -> tuple[Embedded, int]:
    """A run in which an irq_work waits between two interactions, and its period: at which one does hangs on costs."""
    for period in (7_001, 9_001, 11_003, 13_007, 17_011):
        running = dense(design, period)
        for _ in range(20_000):
            await after(running, 1)
            if any(pcpu.irq_work or pcpu.overflow_work for pcpu in running.simulation.pcpus):
                return running, period
    pytest.fail("none ever waits between two interactions")


@pytest.mark.parametrize("design", ["emulated", "partitioned-v8"])
async def test_what_waits_for_an_irq_work_is_state(design: str) -> None:
    running, period = await amid_irq_work(design)
    amid = orjson.dumps(running.state())
    expected = await finished(running)
    restored = dense(design, period)
    restored.restore(orjson.loads(amid))
    assert orjson.dumps(restored.state()) == amid
    assert (await finished(restored))["digest"] == expected["digest"]
