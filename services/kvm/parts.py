"""What a design leaves to host and guests of a CPU's event counters, against what Arm's base architectures want."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from services.experiment import Experiment
from services.kvm import parameter
from services.kvm.vpmu import Design

# Arm Base System Architecture, and Virtual BSA.
FOR_AN_OS = 4
FOR_A_HYPERVISOR = 2
FOR_A_VIRTUAL_PE = 2


def parts(design: Design, experiment: Experiment, written: Iterable[tuple[int, ...]] = ()) -> Iterator[dict[str, Any]]:
    """Of each guest and each kind of CPU that it may run on, and where an operator moves the line, as it is from then
    on, too (`written`: by live clients); none under a design that does not divide them."""
    writes = [*(reserved for _, reserved in parameter.effective(design, experiment)), *written]
    for guest in experiment.guests:
        cpus = guest.allowed(experiment.cpus)
        counters = design.nr_counters(cpus, guest.counters)
        later = [guest.allowed(tuple(map(parameter.with_reserved, experiment.cpus, reserved))) for reserved in writes]
        for cpu in dict.fromkeys(chain(cpus, *later)) if guest.pmuver else ():
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
