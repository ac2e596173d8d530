"""A scenario's steps, one after the other, in place of what the host's scheduler, workloads and VMM choose.

The effect of a step is complete before the next begins: what is pending has been taken, and a vCPU that is to be
preempted, or that is blocked, has been put. Nothing else happens: timers expire, threads are switched and CPUs idle by
steps alone. Each CPU has its own clock, which stands still while no step is about it; it idles up to when a thread that
comes from another one has left there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from services import state
from services.experiment import StepSpec
from services.kvm.board import Board
from services.kvm.errors import SimulationError
from services.kvm.host_steps import HostSteps
from services.kvm.interruption import Interruptions, on_pcpu
from services.kvm.pcpu import PCpu
from services.kvm.preemption import Work, rest
from services.kvm.stepped import SteppedPCpu, SteppedVCpu
from services.kvm.stepping import ImpossibleStep, Outcome, VcpuSteps, VmSteps
from services.kvm.vcpu import VCpu
from services.kvm.vpmu import Design


@dataclass(slots=True)
class ScriptState:
    """How far the steps have got."""

    next: int = 0  # the number of the step that comes, from 0
    armed: list[int] = field(default_factory=list)  # steps that come amid what the next one has KVM do
    outcomes: list[dict[str, Any]] = field(default_factory=list)  # what each gave, as it was complete
    idle: list[int] = field(default_factory=list)  # pCPUs whose last thread has blocked
    absent: list[int] = field(default_factory=list)  # VMs that are yet to be created
    dead: list[int] = field(default_factory=list)  # and those that are no more
    guests_too: list[str] = field(default_factory=list)  # open sessions that count guests, and are older than any VM


class Script(ScriptState):
    """The steps of one simulation."""

    DERIVED = ("board", "steps", "pcpus", "vcpus", "interruptions", "of_host", "of_vcpus", "of_vms")
    __slots__ = DERIVED

    def __init__(
        self,
        board: Board,
        design: Design,
        pcpus: Sequence[SteppedPCpu],
        vcpus: Sequence[SteppedVCpu],
        interruptions: Interruptions,
    ) -> None:
        super().__init__()
        self.board = board
        self.steps: Sequence[StepSpec] = board.experiment.steps
        self.pcpus = pcpus
        self.vcpus = vcpus
        self.interruptions = interruptions
        self.absent = sorted({step.target for step in self.steps if step.action == "create"})
        self.of_host = HostSteps(self, board, design, pcpus, vcpus)
        self.of_vcpus = VcpuSteps(self, pcpus, vcpus)
        self.of_vms = VmSteps(self, pcpus, vcpus)

    @classmethod
    def of(
        cls,
        board: Board,
        design: Design,
        pcpus: Sequence[PCpu],
        vcpus: Sequence[VCpu],
        interruptions: Interruptions,
    ) -> Script:
        """That of a simulation whose CPUs and vCPUs are all stepped."""
        return cls(
            board,
            design,
            [pcpu for pcpu in pcpus if isinstance(pcpu, SteppedPCpu)],
            [vcpu for vcpu in vcpus if isinstance(vcpu, SteppedVCpu)],
            interruptions,
        )

    @property
    def working(self) -> bool:
        """Are there steps left, or handlers in whose midst a vCPU was preempted?"""
        return self.next < len(self.steps) or self.board.preempted > 0

    def step(self) -> Work:
        """One interaction: a CPU boots, or the next step."""
        for pcpu in self.pcpus:
            if not (pcpu.rq.online or pcpu.offline):
                return pcpu.bring_up()
        if self.next == len(self.steps):
            return self._finish()
        self.next += 1
        return self._perform(self.next - 1)

    async def carry_out(self, steps: Sequence[StepSpec]) -> list[Outcome]:
        """These instead of the steps that are left, once every CPU has booted: as a search has them, one at a time and
        with what comes amid it before it. What each gave. Raises ImpossibleStep of one that cannot be; nothing has
        happened then."""
        self.steps = steps
        try:
            while self.next < len(steps):
                self.next += 1
                await self._perform(self.next - 1)
            return self.told()
        except ImpossibleStep:
            self.armed.clear()
            self.interruptions.due.clear()
            raise
        finally:
            self.steps, self.next, self.outcomes = (), 0, []

    async def _finish(self) -> None:
        """After the last step vCPUs come to the end of the handlers that they were preempted in."""
        vcpu = next(vcpu for vcpu in self.vcpus if vcpu.amid)
        await self.switch(vcpu)
        await self.settle(vcpu.here)

    async def switch(self, vcpu: SteppedVCpu) -> None:
        """It runs on its pCPU, in whoever's place."""
        await self.of_vcpus.switch(vcpu)

    async def _perform(self, number: int) -> None:
        step = self.steps[number]
        if step.at >= 0:
            self.armed.append(number)
            return
        coming: list[tuple[int, Outcome]] = []
        for pcpu in self.pcpus:
            pcpu.raised.clear()
        try:
            coming += self._coming()
            await self._act(number, step)
            for pcpu in self.pcpus:
                await self.settle(pcpu)
        except SimulationError as exc:
            raise exc.within(f"{step.where}: step {number + 1}, {step.party} {step.action}") from exc
        finally:
            for whose, outcome in coming:
                outcome["operations"] = self.interruptions.operations.get(whose, 0)
        self.interruptions.due.clear()

    # What comes amid a step.

    def _coming(self) -> list[tuple[int, Outcome]]:
        """Arm what the steps before have said; amid whose operations, and their outcomes."""
        armed, self.armed = self.armed, []
        due = self.interruptions.due
        self.interruptions.operations.clear()
        found: list[tuple[int, Outcome]] = []
        for number in armed:
            step, outcome = self.steps[number], self.record(number, reached=False)
            whose = step.target if step.action == "preempt" else on_pcpu(self.of_host.pcpu_of(step).cpu)
            found.append((whose, outcome))
            due.setdefault(whose, []).append((step.at, self._arrival(number, step, outcome)))
        for coming in due.values():
            coming.sort(key=lambda one: one[0])
        return found

    def _arrival(self, number: int, step: StepSpec, outcome: Outcome) -> Callable[[], None]:
        def come() -> None:
            outcome["reached"] = True
            self.of_host.arrive(number, step, outcome)

        return come

    # One step.

    async def _act(self, number: int, step: StepSpec) -> None:
        for steps in (self.of_vcpus, self.of_host, self.of_vms):
            act = steps.actions.get(step.action)
            if act is not None:
                await act(number, step)
                return
        raise ImpossibleStep(f"there is no action {step.action!r}")

    def record(self, number: int, **found: Any) -> Outcome:
        """What a step gave, in the order in which steps were complete."""
        outcome: Outcome = {"step": number + 1, **found}
        self.outcomes.append(outcome)
        return outcome

    def told(self) -> list[Outcome]:
        """What each step gave, in their order."""
        return sorted(self.outcomes, key=lambda outcome: int(outcome["step"]))

    async def run(self, work: Work) -> None:
        """What a vCPU does, to its end or to where it is preempted."""
        try:
            trap = work.send(None)
        except StopIteration:
            return
        await rest(work, trap)

    async def settle(self, pcpu: SteppedPCpu) -> None:
        """Have taken what is pending there, and put what cannot go on."""
        while not pcpu.offline and pcpu.rq.online:
            vcpu = self.current(pcpu)
            if vcpu is None:
                if not pcpu.interrupt_pending():
                    break
                pcpu.enter_kernel()
                await pcpu.serve_interrupts(-1 if pcpu.cpu in self.idle else 2)
            elif vcpu.amid or not vcpu.runnable():
                await self.put(pcpu)
            elif pcpu.interrupt_pending():
                await self.run(vcpu.interrupt_guest())
            elif pcpu.rq.need_resched:
                await self.put(pcpu)
            else:
                break
        pcpu.rq.need_resched = False
        self.of_host.answered(pcpu)

    async def put(self, pcpu: SteppedPCpu) -> None:
        """The current thread is switched out: to nothing if it is blocked."""
        vcpu = self.current(pcpu)
        if vcpu is not None and not vcpu.runnable():
            self.idle.append(pcpu.cpu)
        pcpu.rq.need_resched = False
        await pcpu.preempt()

    def current(self, pcpu: SteppedPCpu) -> SteppedVCpu | None:
        """The vCPU that is loaded there."""
        thread = pcpu.rq.current
        return None if thread is None else self.vcpus[thread.id]

    def save(self) -> state.Saved:
        return state.save(self)

    def restore(self, saved: state.Saved) -> None:
        """Take up what `save` gave; of a step that has failed in its middle nothing is left."""
        state.restore(self, saved)
        self.interruptions.due.clear()
        self.of_host.forget()
