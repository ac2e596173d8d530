"""Workloads of a scenario's tasks: phases in cycles, and the profiles of event rates that they share."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from pmulab.scenario import measured
from pmulab.scenario.machine import Machine
from services import workload
from services.experiment import PhaseSpec
from services.tables import Table, is_path

_MAX_SECONDS = 10**6
_KERNEL_SECTION = Decimal("0.000010")  # seconds that a program is in the kernel at a time, at most


@dataclass(slots=True)
class Work:
    """Collects the profiles that an experiment needs; equal ones are one."""

    machine: Machine
    profiles: list[workload.Rates] = field(default_factory=list)

    def profile(self, rates: workload.Rates) -> int:
        """The index of a profile."""
        if rates not in self.profiles:
            self.profiles.append(rates)
        return self.profiles.index(rates)

    def phases(self, table: Table) -> tuple[tuple[PhaseSpec, ...], int]:
        """What the task in `table` executes once: `workload`, as long as `scale` or `seconds` says, and in how many
        turns, so that it is never long in the kernel."""
        table.require("workload", '"gzip-random"')
        found = load(table)
        if "scale" in table and "seconds" in table:
            table.refuse("seconds", "both scale and seconds are given", "give one of them")
        scale = Fraction(table.number("scale", 1, Decimal("0.000001"), 10**6))
        if "seconds" in table:
            wanted = table.duration("seconds", "s", 1, Decimal("0.000001"), _MAX_SECONDS) * self.machine.frequency_hz
            scale = Fraction(wanted) / sum(phase.cycles for phase in found.phases)
        phases = found.scaled(scale).phases
        in_kernel = max((phase.cycles for phase in phases if phase.el), default=0)
        turns = -(-in_kernel // self.machine.cycles(_KERNEL_SECTION)) if len(phases) > 1 else 1
        return (
            tuple(PhaseSpec(self.profile(phase.rates), phase.cycles, phase.el) for phase in phases),
            max(1, min(turns, *(phase.cycles for phase in phases))),
        )


def load(table: Table, default: str = "") -> workload.Workload:
    """The workload of a task or a step: a shipped one, or a file of the user's."""
    name = table.text("workload", default)
    path = table.file("workload", name)
    if measured.is_perf_stat(name):
        for key in ("ipc", "kernel_share"):
            if key in table:
                table.refuse(key, "perf stat has counted instructions and cycles", f"leave {key} out")
        with table.blamed("workload"):
            return measured.load(str(path))
    ipc = Fraction(table.number("ipc", 1, Decimal("0.001"), 100)) if "ipc" in table else None
    with table.blamed("workload"):
        found = workload.load(str(path) if is_path(name) else name, ipc=ipc)
    if "kernel_share" not in table:
        return found
    if all(phase.el for phase in found.phases):
        table.refuse("kernel_share", f"{name} is kernel code and nothing else", "leave kernel_share out")
    return found.in_kernel(Fraction(table.number("kernel_share", 0, 0, Decimal("0.999"))))
