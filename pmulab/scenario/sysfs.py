"""`[[host.sysfs]]`: what an operator writes during the run."""

from __future__ import annotations

from pmulab.scenario import keys
from pmulab.scenario.machine import LONGEST_MS, Machine, read_reserved
from services.experiment import ParameterWrite
from services.tables import Table


def read_parameter_writes(host: Table, machine: Machine) -> tuple[ParameterWrite, ...]:
    """When `reserved_host_counters` is written, and what, in order."""
    found: list[ParameterWrite] = []
    for table in host.tables("sysfs", keys.SYSFS):
        table.require("at_ms", "10")
        table.require("reserved_host_counters", "4")
        time = machine.length(table, "at_ms", "ms", 0, 0, LONGEST_MS)
        if found and time <= found[-1].time:
            table.refuse("at_ms", "the write before is no earlier", "put them in order")
        found.append(ParameterWrite(time, read_reserved(table, machine.cpus)))
    return tuple(found)
