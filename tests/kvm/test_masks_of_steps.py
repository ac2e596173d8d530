"""Which of KVM's steps have interrupts on, and which preemption (Linux 6.12, arch/arm64/kvm/arm.c; the posted series).

An interrupt is made pending before each of a step's operations in turn, and is gone with it if it has not been taken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from services import registers as r
from services._pmu import Stop
from services.cpu import NEVER, Cpu, Entry, Eventual, Timer, awaited
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.pcpu import PCpu
from services.kvm.simulation import Simulation
from services.kvm.vcpu import VCpu
from tests.kvm.scripted import Scripted, ScriptedHost, experiment, simulation

HOSTS = 1 << 9  # a counter that is no guest's
ON, OFF = {"timer", "nmi"}, {"nmi"}  # of interrupts
PREEMPTIBLE = {*ON, "preempted"}
FLAGS = "change of PMOVSSET_EL0"  # in memory, by a trap handler
STEPS = {"trap set-up": OFF, "load": ON, "flush": ON, "sync": OFF, "undoing the trap set-up": OFF, "put": OFF}


class Watched:
    """The step under way, and what has been taken in each; a vCPU's machine, on which something is always pending."""

    def __init__(self, pcpu: PCpu, what: str) -> None:
        self.pcpu = pcpu
        self.machine = pcpu.machine
        self.what = what  # is pending: the timer or the PMU's interrupt, a pseudo-NMI
        self.again = -1  # the operation before which it has just been taken
        self.flushing = False
        self.steps: list[str] = []
        self.taken: dict[str, set[str]] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self.taken.setdefault(name, set())
        self.steps.append(name)
        yield
        self.steps.pop()

    def took(self, what: str) -> None:
        if self.steps:
            self.taken[self.steps[-1]].add(what)

    def arise(self) -> None:
        if not self.steps:
            return
        if self.what == "timer":
            self.pcpu.timers[Timer.MUX] = self.pcpu.now
            self.pcpu.rearm()
        else:
            self.machine.poke(0, r.PMINTENSET_EL1, HOSTS)
            self.machine.poke(0, r.PMOVSSET_EL0, HOSTS)

    def pass_by(self) -> None:
        self.pcpu.timers[Timer.MUX] = NEVER
        self.pcpu.rearm()
        self.machine.poke(0, r.PMOVSCLR_EL0, HOSTS)

    # The machine, as the vCPU has it.

    def __getattr__(self, name: str) -> Any:
        return getattr(self.machine, name)

    def execute(self, cpu: int, burst: Any, start: int, irqs: int) -> int | Stop:
        self.arise()
        stop = self.machine.execute(cpu, burst, start, irqs)
        if not isinstance(stop, Stop):
            self.pass_by()
            return stop
        if start == stop.index == self.again:  # past it now
            self.pass_by()
            self.again = -1
            return self.machine.execute(cpu, burst, start, irqs)
        self.again = stop.index
        return stop

    def pending_interrupt(self, cpu: int) -> bool:
        self.arise()
        return self.machine.pending_interrupt(cpu)

    def interrupt(self, cpu: int) -> bool:
        self.arise()
        return self.machine.interrupt(cpu)

    def read(self, cpu: int, register: int) -> int:
        self.arise()
        value = self.machine.read(cpu, register)
        self.pass_by()
        return value

    def write(self, cpu: int, register: int, value: int) -> None:
        self.arise()
        self.machine.write(cpu, register, value)
        self.pass_by()


def watch(watched: Watched, vcpu: VCpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each step of a vCPU's said when it is under way."""
    vpmu: Any = vcpu.vpmu

    def named(of: Any, method: str, name: Callable[[], str]) -> None:
        function = getattr(of, method)

        async def performed(*arguments: Any) -> Any:
            with watched.step(name()):
                return await awaited(function(*arguments))

        monkeypatch.setattr(of, method, performed)

    named(vpmu, "activate_traps", lambda: "trap set-up")
    named(vpmu, "load", lambda: "load of a trap handler" if watched.steps else "load")
    named(vpmu, "deactivate_traps", lambda: "undoing the trap set-up")
    named(vpmu, "put", lambda: "put")
    named(vpmu, "access", lambda: "trap handler")
    named(vpmu, "level", lambda: "flush" if watched.flushing else "sync")
    monkeypatch.setattr(vcpu, "machine", watched)


async def taken(design: str, what: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """By step. One vCPU becomes the owner of its registers by its first access, the other has been it before."""

    async def guest(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.msr(r.PMOVSCLR_EL0, 1)
        cpu.burst.mrs(r.PMCEID0_EL0)
        cpu.burst.wfi()

    async def guests_irq(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.msr(r.PMOVSCLR_EL0, 0b10)

    async def host(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.msr(r.PMCR_EL0, r.PMCR_E)

    async def timer(cpu: Cpu, entry: Entry) -> None:
        watched.took("timer")
        made.pcpus[0].rq.need_resched = bool(watched.steps)

    async def pmu_irq(cpu: Cpu, entry: Entry) -> None:
        watched.took("nmi")
        cpu.burst.msr(r.PMOVSCLR_EL0, HOSTS)

    of = experiment(design, vcpus=(0, 0))
    of = replace(of, halt_poll=0, host=replace(of.host, pseudo_nmi=True))
    made: Simulation = simulation(
        of, Scripted(boot=guest, pmu_irq=guests_irq), ScriptedHost(boot=host, timer=timer, pmu_irq=pmu_irq)
    )
    watched = Watched(made.pcpus[0], what)
    for vcpu in made.vcpus:
        vcpu.pmu.pmcr, vcpu.pmu.ovs, vcpu.pmu.inten = r.PMCR_E, 0b11, 0b10
        watch(watched, vcpu, monkeypatch)
    if hasattr(made.vcpus[1].vpmu, "context"):
        made.vcpus[1].vpmu.context.owned = True

    flush: Callable[[VCpu], Eventual[None]] = VCpu._flush_pmu
    change: Callable[..., Awaitable[None]] = PmuContext.change_overflows

    async def flushed(vcpu: VCpu) -> None:
        watched.flushing = True
        await awaited(flush(vcpu))
        watched.flushing = False

    async def changed(context: PmuContext, how: Callable[[int], int]) -> None:
        with watched.step(FLAGS):
            await change(context, how)

    async def preempted(vcpu: VCpu) -> None:
        watched.took("preempted")
        made.pcpus[0].rq.need_resched = False

    monkeypatch.setattr(VCpu, "_flush_pmu", flushed)
    monkeypatch.setattr(VCpu, "_preempt", preempted)
    monkeypatch.setattr(PmuContext, "change_overflows", changed)
    for _ in range(20):
        await made.step()
        made.pcpus[0].rq.need_resched = False
        if all(vcpu.blocked for vcpu in made.vcpus):
            return watched.taken
    pytest.fail("no vCPU was put")


@pytest.mark.parametrize(
    ("design", "steps"),
    [
        ("emulated", {"trap set-up": OFF, "trap handler": PREEMPTIBLE, "undoing the trap set-up": OFF}),
        (
            "partitioned-v5",
            {**STEPS, "trap handler": PREEMPTIBLE, FLAGS: PREEMPTIBLE, "load of a trap handler": PREEMPTIBLE},
        ),
        ("partitioned-v6", {**STEPS, "trap handler": PREEMPTIBLE}),  # PMCEID0_EL0's; PMOVSCLR_EL0's is the fast path's
        ("partitioned-v7", {**STEPS, "trap handler": PREEMPTIBLE, FLAGS: PREEMPTIBLE}),
        ("partitioned-v8", {**STEPS, "trap handler": ON, FLAGS: OFF}),
        ("partitioned-v9", {**STEPS, "trap handler": ON, FLAGS: OFF}),
        # Its load and put set the traps; an exit asks the CPU for nothing, and a change of a flag is one operation.
        ("partitioned", {"load": ON, "put": OFF, "flush": ON, "trap handler": ON}),
    ],
)
async def test_what_is_taken_between_two_operations_of_a_step(
    design: str, steps: dict[str, set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, set[str]] = {}
    for what in ("timer", "nmi"):
        with monkeypatch.context() as patched:
            for step, kinds in (await taken(design, what, patched)).items():
                found.setdefault(step, set()).update(kinds)
    assert {step: kinds for step, kinds in found.items() if kinds} == steps
