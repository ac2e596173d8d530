"""A task of the host: user work that competes with the vCPUs for a pCPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.experiment import PhaseSpec, TaskSpec
from services.kvm.pcpu import PCpu

if TYPE_CHECKING:
    from services.kvm.simulation import Simulation


class HostTask:
    """Runs its phases `repeat` times over, asleep in between if it is to, then exits."""

    def __init__(self, simulation: Simulation, thread_id: int, pcpu: PCpu, spec: TaskSpec) -> None:
        self.id = thread_id
        self.pcpu = pcpu
        self.floats = False
        self.spec = spec
        self.machine = simulation.machine
        self.context = pcpu.context
        self.phase = 0  # counts over all repetitions
        self.left = spec.phases[0].cycles if spec.phases else 0
        self.asleep = False
        self.computed = 0  # cycles of work done
        self.in_kernel = 0  # of these, at EL2

    @property
    def finished(self) -> bool:
        return self.phase >= len(self.spec.phases) * self.spec.repeat

    @property
    def runnable(self) -> bool:
        return not (self.finished or self.asleep)

    def unblock(self) -> None:
        self.asleep = False

    def next_interaction(self) -> int:
        """The end of the phase, or the interrupt before it; at once, if it is to be taken off the CPU."""
        if not self.runnable:
            return self.pcpu.now
        phase = self._current()
        self.machine.set_running(self.pcpu.index, self.context, phase.el, phase.profile)
        return self.machine.next_stop(self.pcpu.index, self.left)

    async def switched_in(self) -> None:
        self._account()

    async def switched_out(self) -> None:
        self.pcpu.account("host_kernel")

    async def step(self) -> None:
        """Work up to the end of the phase or an interrupt."""
        machine, pcpu, phase = self.machine, self.pcpu, self._current()
        machine.set_running(pcpu.index, self.context, phase.el, phase.profile)
        done = machine.run(pcpu.index, self.left)
        self.left -= done
        self.computed += done
        if phase.el == 2:
            self.in_kernel += done
        if not self.left:
            self.phase += 1
            if not self.finished:
                self.left = self._current().cycles
                self._sleep()
        if machine.interrupt(pcpu.index) or pcpu.now >= pcpu.deadline:
            pcpu.account("host_kernel")
            pcpu.enter_kernel()
            await pcpu.serve_interrupts(phase.el)
        self._account()

    def _account(self) -> None:
        """The task's own work, from now on."""
        if self.runnable:
            self.pcpu.account("host_kernel" if self._current().el else "host_user")

    def _sleep(self) -> None:
        """Between two repetitions."""
        if self.spec.sleep and self.phase % len(self.spec.phases) == 0:
            self.asleep = True
            self.pcpu.sleepers.append((self.pcpu.now + self.spec.sleep, self.id))
            self.pcpu.rearm()

    def _current(self) -> PhaseSpec:
        return self.spec.phases[self.phase % len(self.spec.phases)]

    def state(self) -> dict[str, Any]:
        return {
            "phase": self.phase,
            "left": self.left,
            "asleep": self.asleep,
            "computed": self.computed,
            "in_kernel": self.in_kernel,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state()` gave."""
        self.phase, self.left, self.asleep = state["phase"], state["left"], state["asleep"]
        self.computed, self.in_kernel = state["computed"], state["in_kernel"]
