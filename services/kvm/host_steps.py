"""What comes to a pCPU by a step's interrupt, its idling and hotplug, and what is asked of the host's perf."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson

from services import typed_json
from services._pmu import CPUTIME_HOST_KERNEL, CPUTIME_IDLE
from services.boot import NO_PROCESS, CpuSession, ThreadSession
from services.cpu import Timer
from services.experiment import StepSpec
from services.kvm import cpuhp, parameter
from services.kvm.board import Board
from services.kvm.stepped import SteppedPCpu, SteppedVCpu
from services.kvm.stepping import Act, ImpossibleStep, Outcome, Stage, free, online
from services.kvm.vpmu import Design

PERF: Final = ("perf_open", "perf_close", "perf_enable", "perf_disable", "perf_read")


class HostSteps:
    """What comes to a pCPU by an interrupt, its idling and hotplug, and what is asked of the host's perf."""

    DERIVED = ("stage", "board", "design", "pcpus", "vcpus", "actions", "asked")

    def __init__(
        self, stage: Stage, board: Board, design: Design, pcpus: Sequence[SteppedPCpu], vcpus: Sequence[SteppedVCpu]
    ) -> None:
        self.stage = stage
        self.board = board
        self.design = design
        self.pcpus = pcpus
        self.vcpus = vcpus
        self.asked: list[list[Outcome]] = [[] for _ in pcpus]  # of each pCPU's perf within one step, in order
        self.actions: dict[str, Act] = {
            **dict.fromkeys(("tick", "mux", "call", *PERF), self._interrupt),
            "nmi": self._nmi,
            "sysfs": self._sysfs,
            "idle": self._idle,
            "offline": self._offline,
            "online": self._online,
        }

    def pcpu_of(self, step: StepSpec) -> SteppedPCpu:
        """Where a step comes that is an interrupt."""
        if step.action == "preempt":
            cpu = self.vcpus[step.target].cpu
        elif step.thread >= 0:
            cpu = self.vcpus[step.thread].cpu
        else:
            cpu = step.target
        return online(self.pcpus[cpu])

    def arrive(self, number: int, step: StepSpec, outcome: Outcome) -> None:
        """It is pending from now on."""
        pcpu = self.pcpu_of(step)
        match step.action:
            case "tick":
                pcpu.expire_tick()
            case "mux":
                outcome["armed"] = int(pcpu.expire(Timer.MUX))
            case "call":
                pcpu.smp_call(pcpu.now)
            case "nmi":
                pcpu.nmi_cpu_backtrace()
            case "preempt":
                if pcpu.rq.current is self.vcpus[step.target]:
                    pcpu.resched()
            case _:
                self.asked[pcpu.cpu].append(outcome)
                if step.action == "perf_open":
                    for one in self.pcpus if step.thread >= 0 else (pcpu,):
                        one.host_has_events = True
                pcpu.ask(self._perf_call(step))

    async def _interrupt(self, number: int, step: StepSpec) -> None:
        pcpu = self.pcpu_of(step)
        outcome = self.stage.record(number)
        self.arrive(number, step, outcome)
        await self.stage.settle(pcpu)
        outcome["cycle"] = pcpu.now

    async def _nmi(self, number: int, step: StepSpec) -> None:
        """A vCPU that is loaded exits."""
        pcpu = self.pcpu_of(step)
        outcome = self.stage.record(number)
        vcpu = self.stage.current(pcpu)
        if vcpu is None:
            self.arrive(number, step, outcome)
        else:
            await self.stage.run(vcpu.take_nmi())
        await self.stage.settle(pcpu)
        outcome["cycle"] = pcpu.now

    async def _sysfs(self, number: int, step: StepSpec) -> None:
        """Each CPU has its events rescheduled, by an IPI."""
        outcome = self.stage.record(number)
        why = parameter.refused(self.design, self.board.experiment, step.reserved)
        if why:
            outcome["error"] = why
            return
        for pcpu, reserved in zip(self.pcpus, step.reserved, strict=True):
            if not pcpu.offline:
                pcpu.write_parameter(reserved)
                await self.stage.settle(pcpu)

    def _perf_call(self, step: StepSpec) -> bytes:
        if step.session is None:
            if step.action == "perf_close" and step.name in self.stage.guests_too:
                self.stage.guests_too.remove(step.name)
            return orjson.dumps({"call": step.action.removeprefix("perf_"), "of": step.name})
        opened: CpuSession | ThreadSession
        if step.thread >= 0:
            vcpu = self.vcpus[step.thread]
            if vcpu.vm in (*self.stage.dead, *self.stage.absent):
                raise ImpossibleStep(f"{vcpu.name} has no threads")
            cpus = tuple(range(len(self.pcpus))) if step.session.verb == "record" else ()
            opened = ThreadSession(vcpu.id, step.session, NO_PROCESS, cpus)
        else:
            opened = CpuSession(step.session, NO_PROCESS, (step.target,))
        vms = {vcpu.vm for vcpu in self.vcpus} - {*self.stage.dead, *self.stage.absent}
        if not vms and len(step.session.excluding_guests()) < len(step.session.events):
            self.stage.guests_too.append(step.name)
        return typed_json.dumps({"open": opened, "delayed": step.flag, "vms": bool(vms)})

    def answered(self, pcpu: SteppedPCpu) -> None:
        """What the host's perf has answered there belongs to what it was asked."""
        for answer in pcpu.answers:
            if self.asked[pcpu.cpu]:
                outcome = self.asked[pcpu.cpu].pop(0)
                if answer:
                    outcome |= pcpu.told(answer)
        pcpu.answers.clear()

    def forget(self) -> None:
        """There is another past."""
        for pcpu, asked in zip(self.pcpus, self.asked, strict=True):
            pcpu.answers.clear()
            asked.clear()

    async def _idle(self, number: int, step: StepSpec) -> None:
        pcpu = free(self.stage, self.pcpus[step.target])
        machine, until = pcpu.machine, pcpu.now + step.cycles
        machine.set_cputime(pcpu.cpu, CPUTIME_IDLE)
        if step.flag:
            await cpuhp.power_down(pcpu, machine.idle_stop(pcpu.cpu, until))
        else:
            machine.idle(pcpu.cpu, until)
            machine.set_cputime(pcpu.cpu, CPUTIME_HOST_KERNEL)
            pcpu.enter_kernel()
        await pcpu.serve_interrupts(-1)
        if pcpu.cpu not in self.stage.idle:
            self.stage.idle.append(pcpu.cpu)
        self.stage.record(number, cycle=pcpu.now)

    async def _offline(self, number: int, step: StepSpec) -> None:
        """What runs there is preempted before."""
        pcpu = online(self.pcpus[step.target])
        if pcpu.rq.current is not None:
            pcpu.resched()
            await self.stage.settle(pcpu)
        pcpu.going = True
        await cpuhp.take_offline(pcpu)
        self.stage.record(number, cycle=pcpu.now)

    async def _online(self, number: int, step: StepSpec) -> None:
        pcpu = self.pcpus[step.target]
        if not pcpu.offline:
            raise ImpossibleStep(f"pCPU {pcpu.cpu} is online")
        pcpu.hotplug_time = max(one.now for one in self.pcpus)
        await cpuhp.bring_online(pcpu)
        self.stage.record(number, cycle=pcpu.now)
