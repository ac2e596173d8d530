"""All actors in one process: software attends its CPU by a direct call, never a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from services.experiment import Experiment
from services.guest import GuestKernel
from services.guest.scripted import ScriptedGuest
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.requests import Request
from services.kvm.simulation import Simulation
from services.kvm.trials import marked
from services.state import Saved


class Embedded:
    """The simulation of one experiment with all its software."""

    DERIVED = ("simulation", "host", "guests")  # each has a state of its own

    def __init__(
        self, simulation: Simulation, host: HostPerf, guests: Mapping[str, GuestKernel | ScriptedGuest]
    ) -> None:
        self.simulation = simulation
        self.host = host
        self.guests = guests
        self._attend()

    def _attend(self) -> None:
        simulation, host, guests = self.simulation, self.host, self.guests
        for pcpu in simulation.pcpus:
            simulation.attend_host(pcpu.cpu, LocalSoftware(host.attend(pcpu.cpu)))
        for vcpu in simulation.vcpus:
            simulation.attend_guest(vcpu.name, vcpu.index, LocalSoftware(guests[vcpu.name].attend(vcpu.index)))

    @classmethod
    def of(cls, experiment: Experiment) -> Embedded:
        """`experiment` at its beginning."""
        kernel = ScriptedGuest if experiment.steps else GuestKernel
        guests = {guest.name: kernel() for guest in experiment.guests}
        return cls(Simulation(experiment), HostPerf(), guests)

    def state(self) -> Saved:
        """Every actor's state between two entries, as JSON-able data; the experiment is not in it."""
        return {
            "kvm": self.simulation.state(),
            "host_perf": self.host.state(),
            "guests": {name: guest.state() for name, guest in self.guests.items()},
        }

    def restore(self, state: Saved) -> None:
        """Become what `state` gave, of the same experiment."""
        self.simulation.restore(state["kvm"])
        self.host.restore(state["host_perf"])
        for name, guest in self.guests.items():
            guest.restore(state["guests"][name])
        self._attend()  # anew: a handler that failed in its middle leaves what it has posted

    @classmethod
    def from_state(cls, experiment: Experiment, state: Saved) -> Embedded:
        """`experiment` as it was when `state()` was taken."""
        lab = cls.of(experiment)
        lab.restore(state)
        return lab


async def run(experiment: Experiment, progress: Callable[[Simulation], None] | None = None) -> dict[str, Any]:
    """Run `experiment` to its end. The result of `Simulation.result()`, its digest, the wall time in seconds, and what
    the judge has found, with what of it vanishes without what the experiment injects."""
    return await marked(experiment, await play(experiment, progress), play)


async def play(experiment: Experiment, progress: Callable[[Simulation], None] | None = None) -> dict[str, Any]:
    """Likewise, and nothing is tried again."""
    began = time.perf_counter()
    simulation = Embedded.of(experiment).simulation
    await simulation.run(None if progress is None else lambda: progress(simulation))
    return simulation.measured(await simulation.result(), time.perf_counter() - began)


async def replay(experiment: Experiment, injected: Sequence[tuple[int, Request]]) -> dict[str, Any]:
    """As `run`, with what clients of a live run injected, each before the entry at which it took effect then."""
    began = time.perf_counter()
    simulation = Embedded.of(experiment).simulation
    left = list(injected)
    while True:
        while left and left[0][0] == simulation.board.interactions:
            simulation.requests.add(left.pop(0)[1])
        if simulation.working:
            await simulation.step()
            continue
        result = await simulation.result()
        if not left:
            return simulation.measured(result, time.perf_counter() - began)
        if left[0][0] != simulation.board.interactions:
            raise ValueError(f"entry {left[0][0]} of the log is past the end of this experiment")
