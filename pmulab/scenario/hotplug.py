"""`[[host.offline]]`: when which pCPUs are offline."""

from __future__ import annotations

from collections.abc import Sequence

from pmulab.scenario import keys
from pmulab.scenario.machine import LONGEST_MS, Machine
from services.cpu import NEVER
from services.experiment import GuestSpec, HostCpuSpec
from services.tables import Table

Spans = tuple[tuple[int, int], ...]


def read_offline(host: Table, machine: Machine) -> list[Spans]:
    """Of each pCPU, from when to when it is offline, in cycles, in order."""
    pcpus = len(machine.cpus)
    found: list[list[tuple[int, int]]] = [[] for _ in range(pcpus)]
    for table in host.tables("offline", keys.OFFLINE):
        table.require("pcpu", "1")
        table.require("from_ms", "10")
        pcpu = table.integer("pcpu", 0, 0, pcpus - 1)
        if pcpu == 0:
            table.refuse("pcpu", "pCPU 0 stays online: somebody has to", "take another one")
        begin = machine.length(table, "from_ms", "ms", 0, 0, LONGEST_MS)
        end = NEVER
        if "to_ms" in table:
            end = machine.length(table, "to_ms", "ms", 0, 0, LONGEST_MS)
        last = found[pcpu][-1][1] if found[pcpu] else 0
        if begin <= last:
            table.refuse("from_ms", f"pCPU {pcpu} is not online before that", "put them in order")
        if end <= begin:
            table.refuse("to_ms", "it comes online before it goes offline", "give a later time, or leave it out")
        found[pcpu].append((begin, end))
    return [tuple(spans) for spans in found]


def check_offline(host: Table, cpus: Sequence[HostCpuSpec], guests: Sequence[GuestSpec]) -> None:
    """What stays on a pCPU cannot be there if it goes offline."""
    for table in host.tables("offline", keys.OFFLINE):
        pcpu = table.integer("pcpu", 0, 0, len(cpus) - 1)
        if cpus[pcpu].tasks:
            table.refuse("pcpu", f"a [[host.task]] is on pCPU {pcpu}", "give the task another pcpu")
        if any(session.interval for session in cpus[pcpu].sessions):
            table.refuse("pcpu", f"a [[host.perf]] with interval_ms reads on pCPU {pcpu}", "give it another pcpu")
        for guest in guests:
            if any(vcpu.pcpu == pcpu for vcpu in guest.vcpus):
                table.refuse("pcpu", f"a vCPU of {guest.name} is pinned to pCPU {pcpu}", "let it float, with pin = -1")
