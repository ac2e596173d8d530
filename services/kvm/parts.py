"""What a design leaves to host and guests of a CPU's event counters, against what Arm's base architectures want."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.experiment import Experiment
from services.kvm.vpmu import Design

# Arm Base System Architecture, and Virtual BSA.
FOR_AN_OS = 4
FOR_A_HYPERVISOR = 2
FOR_A_VIRTUAL_PE = 2


def parts(design: Design, experiment: Experiment) -> Iterator[dict[str, Any]]:
    """Of each guest and each kind of CPU that it may run on; none under a design that does not divide them."""
    for guest in experiment.guests:
        cpus = guest.allowed(experiment.cpus)
        counters = design.nr_counters(cpus, guest.counters)
        for cpu in dict.fromkeys(cpus) if guest.pmuver else ():
            kept = design.host_keeps(cpu, counters)
            if kept is not None:
                yield {
                    "guest": guest.name,
                    "cpu": cpu.model,
                    "guest_counters": counters,
                    "host_counters": kept,
                    "bsa": counters >= FOR_AN_OS and kept >= FOR_A_HYPERVISOR,
                    "vbsa": counters >= FOR_A_VIRTUAL_PE,
                }
