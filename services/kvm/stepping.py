"""What the actions of steps do: to a vCPU and its guest, and to a VM."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import orjson

from services._pmu import CPUTIME_HOST_KERNEL, CPUTIME_HOST_USER
from services.cpu import awaited
from services.experiment import StepSpec
from services.kvm import one_reg
from services.kvm.errors import SimulationError
from services.kvm.preemption import Work
from services.kvm.stepped import SteppedPCpu, SteppedVCpu

Outcome = dict[str, Any]
Act = Callable[[int, StepSpec], Awaitable[object]]


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


RUNNING = frozenset({"mrs", "msr", "isb", "hvc", "run", "wfi", "irq", "preempt", "block"})  # what a vCPU does that runs


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

    def ruled_out(self, step: StepSpec) -> bool:
        """Is it impossible by who runs where? Most that a search draws is, and nobody is told why."""
        if step.action == "migrate":
            vcpu = self.vcpus[step.target]
            return vcpu.cpu == step.pcpu or vcpu.pcpu.rq.current is vcpu
        if step.action not in RUNNING:
            return False
        if step.party.startswith("host/"):
            return self.pcpus[step.target].rq.current is not None
        vcpu = self.vcpus[step.target]
        return vcpu.pcpu.rq.current is not vcpu

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
                machine.interrupt_cputime(cpu)
                pcpu.enter_kernel()
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
