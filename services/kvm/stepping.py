"""What each action of a step does: to a vCPU and its guest, to the host's CPUs and perf, to a VM."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import orjson

from services import typed_json
from services._pmu import CPUTIME_HOST_KERNEL, CPUTIME_HOST_USER, CPUTIME_IDLE
from services.boot import NO_PROCESS, CpuSession, ThreadSession
from services.costs import Cost
from services.cpu import Timer, awaited
from services.experiment import StepSpec
from services.kvm import cpuhp, one_reg, parameter
from services.kvm.board import Board
from services.kvm.errors import SimulationError
from services.kvm.preemption import Work
from services.kvm.stepped import SteppedPCpu, SteppedVCpu
from services.kvm.vpmu import Design

Outcome = dict[str, Any]
Act = Callable[[int, StepSpec], Awaitable[object]]
PERF = ("perf_open", "perf_close", "perf_enable", "perf_disable", "perf_read")


class ImpossibleStep(SimulationError):
    """A step that cannot be carried out as things are."""


class Stage(Protocol):
    """What carries out steps, to those that know an action."""

    idle: list[int]
    absent: list[int]
    dead: list[int]
    guests_too: list[str]

    def record(self, number: int, **found: Any) -> Outcome: ...
    async def run(self, work: Work) -> None: ...
    async def switch(self, vcpu: SteppedVCpu) -> None: ...
    async def settle(self, pcpu: SteppedPCpu) -> None: ...
    async def put(self, pcpu: SteppedPCpu) -> None: ...
    def current(self, pcpu: SteppedPCpu) -> SteppedVCpu | None: ...


def who(vcpu: SteppedVCpu) -> str:
    """A vCPU as messages have it."""
    return f"vCPU {vcpu.index} of {vcpu.name}"


class VcpuSteps:
    """What a guest does, where its vCPU's thread goes, and what the VMM asks of it."""

    DERIVED = ("stage", "pcpus", "vcpus", "actions")

    def __init__(self, stage: Stage, pcpus: Sequence[SteppedPCpu], vcpus: Sequence[SteppedVCpu]) -> None:
        self.stage = stage
        self.pcpus = pcpus
        self.vcpus = vcpus
        self.actions: dict[str, Act] = {
            **dict.fromkeys(("mrs", "msr", "isb", "hvc"), self._access),
            "run": self._run,
            "wfi": self._wfi,
            "irq": self._irq,
            "switch": self._switch,
            "preempt": self._preempt,
            "block": self._block,
            "wake": self._wake,
            "migrate": self._migrate,
            **dict.fromkeys(("get_one_reg", "set_one_reg", "set_nr_counters", "filter"), self._vmm),
        }

    def _vcpu(self, step: StepSpec) -> SteppedVCpu:
        vcpu = self.vcpus[step.target]
        if vcpu.vm in self.stage.dead:
            raise ImpossibleStep(f"{vcpu.name} is no more")
        if vcpu.vm in self.stage.absent:
            raise ImpossibleStep(f"{vcpu.name} has yet to be created")
        return vcpu

    def _loaded(self, step: StepSpec) -> SteppedVCpu:
        vcpu = self._vcpu(step)
        if vcpu.pcpu.rq.current is not vcpu:
            raise ImpossibleStep(f"{who(vcpu)} does not run: switch to it before")
        return vcpu

    # The guest.

    async def _access(self, number: int, step: StepSpec) -> None:
        vcpu = self._loaded(step)
        asked = {"action": step.action, "register": step.register, "value": step.value, "el": step.el}

        async def access() -> None:
            found = await vcpu.perform(asked)
            self.stage.record(number, cycle=vcpu.pcpu.now, **found)

        await self.stage.run(access())

    async def _run(self, number: int, step: StepSpec) -> None:
        """Of a vCPU's guest, or of the host on a pCPU without one."""
        if step.party.startswith("host/"):
            await self._host_runs(number, step)
            return
        vcpu = self._loaded(step)

        async def run() -> None:
            before = vcpu.computed
            await vcpu.perform({"action": "run", "profile": step.profile, "el": step.el, "cycles": step.cycles})
            interrupted = await vcpu.work(until_event=step.until_event)
            done = vcpu.computed - before
            self.stage.record(number, cycle=vcpu.pcpu.now, cycles=done, interrupted=int(interrupted))

        await self.stage.run(run())

    async def _host_runs(self, number: int, step: StepSpec) -> None:
        pcpu = free(self.stage, self.pcpus[step.target])
        machine, cpu = pcpu.machine, pcpu.cpu
        self.stage.idle = [one for one in self.stage.idle if one != cpu]
        left, interrupted = step.cycles, 0
        while left and not (interrupted and step.until_event):
            machine.set_cputime(cpu, CPUTIME_HOST_KERNEL if step.el else CPUTIME_HOST_USER)
            done, _, pending = machine.work(cpu, pcpu.context, step.el, step.profile, left)
            left -= done
            if pending:
                interrupted = 1
                await pcpu.serve_interrupts(step.el)
        machine.set_cputime(cpu, CPUTIME_HOST_KERNEL)
        pcpu.enter_kernel()
        self.stage.record(number, cycle=pcpu.now, cycles=step.cycles - left, interrupted=interrupted)

    async def _wfi(self, number: int, step: StepSpec) -> None:
        vcpu = self._loaded(step)

        async def wait() -> None:
            await vcpu.perform({"action": "wfi"})
            await vcpu.wait_for_interrupt()
            self.stage.record(number, cycle=vcpu.pcpu.now, blocked=int(vcpu.blocked))

        await self.stage.run(wait())

    async def _irq(self, number: int, step: StepSpec) -> None:
        vcpu = self._loaded(step)

        async def take() -> None:
            found = await vcpu.take_interrupt()
            self.stage.record(number, cycle=vcpu.pcpu.now, taken=int(found is not None), **(found or {}))

        await self.stage.run(take())

    # Its thread.

    async def _switch(self, number: int, step: StepSpec) -> None:
        vcpu = self._vcpu(step)
        await self.switch(vcpu)
        self.stage.record(number, cycle=vcpu.pcpu.now)

    async def switch(self, vcpu: SteppedVCpu) -> None:
        """It runs on its pCPU, in whoever's place, and goes on with what it was preempted in."""
        pcpu = vcpu.here
        rq = pcpu.rq
        if rq.current is vcpu:
            return
        if vcpu.blocked:
            raise ImpossibleStep(f"{who(vcpu)} is blocked: wake it before")
        online(pcpu)
        if rq.current is not None:
            pcpu.resched()
            await self.stage.settle(pcpu)
        came = min((time for time, thread in rq.arrivals if thread == vcpu.id), default=0)
        if came > pcpu.now:
            pcpu.machine.idle(pcpu.cpu, came)
        rq.stay_asleep(vcpu.id)
        if vcpu in rq.waiting:
            rq.waiting.remove(vcpu)
        pcpu.rearm()
        from_idle = pcpu.cpu in self.stage.idle
        self.stage.idle = [cpu for cpu in self.stage.idle if cpu != pcpu.cpu]
        await pcpu.switch_to(vcpu, -1 if from_idle else 2)
        if vcpu.amid:
            work = vcpu.step()
            assert work is not None
            await self.stage.run(work)
        elif not vcpu.booted:
            await self.stage.run(vcpu.boot_guest())

    async def _preempt(self, number: int, step: StepSpec) -> None:
        vcpu = self._loaded(step)
        pcpu = vcpu.here
        pcpu.resched()
        await self.stage.settle(pcpu)
        self.stage.record(number, cycle=pcpu.now)

    async def _block(self, number: int, step: StepSpec) -> None:
        vcpu = self._loaded(step)
        await self.stage.run(vcpu.sleep())
        self.stage.record(number, cycle=vcpu.pcpu.now)

    async def _wake(self, number: int, step: StepSpec) -> None:
        vcpu = self._vcpu(step)
        if not vcpu.blocked:
            raise ImpossibleStep(f"{who(vcpu)} is not blocked")
        vcpu.pcpu.rq.arrive(vcpu.pcpu.now, vcpu.id)
        self.stage.record(number, cycle=vcpu.pcpu.now)

    async def _migrate(self, number: int, step: StepSpec) -> None:
        vcpu, target = self._vcpu(step), online(self.pcpus[step.pcpu])
        source = vcpu.pcpu
        if source.rq.current is vcpu:
            raise ImpossibleStep(f"{who(vcpu)} runs on pCPU {source.cpu}: preempt it before")
        if target is source:
            raise ImpossibleStep(f"{who(vcpu)} is on pCPU {source.cpu} already")
        source.rq.stay_asleep(vcpu.id)
        if vcpu in source.rq.waiting:
            source.rq.waiting.remove(vcpu)
        vcpu.set_task_cpu(target.cpu)
        if not vcpu.blocked:
            target.rq.arrive(max(source.now, target.now), vcpu.id)
        self.stage.record(number, cycle=target.now)

    # Its VMM.

    async def _vmm(self, number: int, step: StepSpec) -> None:
        vcpu = self._vcpu(step)
        found: Outcome = {}
        try:
            if step.action == "get_one_reg":
                found["value"] = await awaited(one_reg.get_one_reg(vcpu, one_reg.reg_id(step.register)))
            elif step.action == "set_one_reg":
                one_reg.set_one_reg(vcpu, one_reg.reg_id(step.register), step.value)
            elif step.action == "set_nr_counters":
                one_reg.set_nr_counters(vcpu, step.value)
            else:
                one_reg.set_filter(vcpu, *step.events, deny=step.flag)
        except OSError as exc:
            found["error"] = f"{errno.errorcode[exc.errno or 0]}: {exc.strerror}"
        self.stage.record(number, cycle=vcpu.pcpu.now, **found)


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
                pcpu.charge(Cost.IRQ_ENTRY)  # nmi_cpu_backtrace: interrupts may be masked where it comes
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
        self.arrive(number, step, outcome)
        vcpu = self.stage.current(pcpu)
        if vcpu is not None:
            await self.stage.run(vcpu.interrupt_guest())
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


class VmSteps:
    """How a VM comes and goes."""

    DERIVED = ("stage", "pcpus", "vcpus", "actions")

    def __init__(self, stage: Stage, pcpus: Sequence[SteppedPCpu], vcpus: Sequence[SteppedVCpu]) -> None:
        self.stage = stage
        self.pcpus = pcpus
        self.vcpus = vcpus
        self.actions: dict[str, Act] = {"create": self._create, "kill": self._kill}

    async def _create(self, number: int, step: StepSpec) -> None:
        if step.target not in self.stage.absent:
            raise ImpossibleStep(f"{step.party} exists already")
        if self.pcpus[0].policy.refuses_guests and self.stage.guests_too:  # perf_create_mediated_pmu
            names = ", ".join(self.stage.guests_too)
            raise ImpossibleStep(f"EBUSY: there are events that count guests, of {names}: close that, or add :H")
        self.stage.absent.remove(step.target)
        self.stage.record(number)

    async def _kill(self, number: int, step: StepSpec) -> None:
        """SIGKILL: each of its threads exits, from outside of KVM's handlers, then kvm_destroy_vm. What else runs on
        their pCPUs is preempted."""
        vcpus = [vcpu for vcpu in self.vcpus if vcpu.vm == step.target]
        for vcpu in vcpus:
            pcpu, rq = vcpu.here, vcpu.here.rq
            if vcpu.amid:
                await self.stage.switch(vcpu)
                await self.stage.settle(pcpu)
            if rq.current is not None:
                pcpu.resched()
                await self.stage.settle(pcpu)
            rq.stay_asleep(vcpu.id)
            if vcpu in rq.waiting:
                rq.waiting.remove(vcpu)
            vcpu.blocked = True
            pcpu.ask(orjson.dumps({"exited": vcpu.id}))  # perf_event_exit_task
            await self.stage.settle(pcpu)
        for vcpu in vcpus:
            vcpu.pcpu.enter_kernel()
            await awaited(vcpu.vpmu.destroy())
        self.stage.dead.append(step.target)
        self.stage.record(number)


def online(pcpu: SteppedPCpu) -> SteppedPCpu:
    """A pCPU that is. Raises ImpossibleStep."""
    if pcpu.offline:
        raise ImpossibleStep(f"pCPU {pcpu.cpu} is offline")
    return pcpu


def free(stage: Stage, pcpu: SteppedPCpu) -> SteppedPCpu:
    """One on which no vCPU runs. Raises ImpossibleStep."""
    vcpu = stage.current(online(pcpu))
    if vcpu is not None:
        raise ImpossibleStep(f"{who(vcpu)} runs on pCPU {pcpu.cpu}: preempt it before")
    return pcpu
