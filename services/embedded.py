"""All actors in one process: software attends its CPU by a direct call, never a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from services.experiment import Experiment
from services.guest import GuestKernel
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.simulation import Simulation, digest


def attach(simulation: Simulation) -> tuple[HostPerf, dict[str, GuestKernel]]:
    """Attach every party of the simulation's experiment: the host's perf, and the guests by name."""
    host = HostPerf()
    for index in range(len(simulation.pcpus)):
        simulation.attend_host(index, LocalSoftware(host.attend(index)))
    guests = {guest.name: GuestKernel() for guest in simulation.experiment.guests}
    for vcpu in simulation.vcpus:
        simulation.attend_guest(vcpu.name, vcpu.index, LocalSoftware(guests[vcpu.name].attend(vcpu.index)))
    return host, guests


async def run(experiment: Experiment, progress: Callable[[Simulation], None] | None = None) -> dict[str, Any]:
    """Run `experiment` to its end. The result of `Simulation.result()`, its digest, and the wall time in seconds."""
    began = time.perf_counter()
    simulation = Simulation(experiment)
    attach(simulation)
    await simulation.run(None if progress is None else lambda: progress(simulation))
    result = await simulation.result()
    return {
        "digest": digest(result),
        "wall_seconds": time.perf_counter() - began,
        "round_trips": simulation.round_trips(),
        **result,
    }
