"""Workloads of a scenario's tasks: phases in cycles, and the profiles of event rates that they share."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from pmulab.scenario.machine import Machine, catalogued
from pmulab.scenario.table import Table
from services import workload
from services.experiment import PhaseSpec
from services.tables import is_path

_MAX_SECONDS = 10**6


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

    def phases(self, table: Table) -> tuple[PhaseSpec, ...]:
        """What the task in `table` executes once: `workload`, as long as `scale` or `seconds` says."""
        table.required("workload", '"gzip-random"')
        name = table.text("workload")
        if is_path(name):
            name = str(table.source.directory / name)
        ipc = Fraction(table.number("ipc", 1, Decimal("0.001"), 100)) if "ipc" in table else None
        if "scale" in table and "seconds" in table:
            table.refuse("seconds", "both scale and seconds are given", "give one of them")
        scale = Fraction(table.number("scale", 1, Decimal("0.000001"), 10**6))
        found = catalogued(table, "workload", lambda: workload.load(name, ipc=ipc, scale=scale))
        if "seconds" in table:
            wanted = table.number("seconds", 1, Decimal("0.000001"), _MAX_SECONDS) * self.machine.frequency_hz
            scale = Fraction(wanted) / sum(phase.cycles for phase in found.phases)
            found = catalogued(table, "workload", lambda: workload.load(name, ipc=ipc, scale=scale))
        return tuple(PhaseSpec(self.profile(phase.rates), phase.cycles, phase.el) for phase in found.phases)
