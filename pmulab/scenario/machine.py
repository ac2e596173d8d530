"""`[machine]`: the pCPUs, their clock and what each action costs on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TypeVar

from pmulab.scenario import keys
from services import cores, costs, durations
from services.errors import UserError
from services.experiment import NO_PARTITION, CpuSpec, ExitSpec
from services.tables import Table, is_path

T = TypeVar("T")

LONGEST_MS = 10**9  # until something happens
_MAX_PCPUS = 512
_DEFAULT_CORE = "maximal"
_RESERVED = "reserved_host_counters"


@dataclass(frozen=True, slots=True)
class Machine:
    cpus: tuple[CpuSpec, ...]
    frequency_hz: int
    costs: dict[str, int]  # cycles, by lower-case cost name
    exits: ExitSpec
    assumed_costs: dict[str, str] = field(default_factory=dict)  # those that nobody has measured; what was taken

    def length(self, table: Table, key: str, unit: str, default: int, low: Decimal | int, high: Decimal | int) -> int:
        """A key's length of time, in cycles: none at all, or at least one."""
        time = table.duration(key, unit, default, low, high)
        cycles = self.cycles(time / durations.NANOSECONDS["s"] * durations.NANOSECONDS[unit])
        if time and not cycles:
            table.refuse(key, *_no_cycle(key, table.data[key], self.frequency_hz))
        return cycles

    def cycles(self, seconds: Decimal) -> int:
        """A duration in cycles, rounded to the nearest."""
        return _cycles(seconds, self.frequency_hz)


def read_machine(scenario: Table) -> Machine:
    table = scenario.table("machine", keys.MACHINE)
    found = _cores(table)
    counters = table.integers("counters", [core.spec.counters for core in found], 0, 31)
    pmuver = table.integers("pmuver", [core.spec.pmuver for core in found], 1, max(cores.PMUVER))
    fgt = table.integers("fgt", [core.spec.fgt for core in found], 0, 2)
    hpmn0 = table.booleans("hpmn0", [core.spec.hpmn0 for core in found])
    icntr = table.booleans("icntr", [core.spec.icntr for core in found])
    pmi_delay = table.durations("pmi_delay", "ns", [core.pmi_delay for core in found], 0, cores.MAX_PMI_DELAY)
    pmccntr_in_wfi = table.booleans("pmccntr_in_wfi", [core.spec.pmccntr_in_wfi for core in found])
    for value in pmuver:
        if value not in cores.PMUVER:
            known = ", ".join(f"{version} ({name})" for version, name in cores.PMUVER.items())
            table.refuse("pmuver", f"{value} is not a PMUv3 version", f"ID_AA64DFR0_EL1.PMUVer is one of {known}")
    lists: dict[str, Sequence[object]] = {
        "core": found,
        "counters": counters,
        "pmuver": pmuver,
        "fgt": fgt,
        "hpmn0": hpmn0,
        "icntr": icntr,
        "pmi_delay": pmi_delay,
        "pmccntr_in_wfi": pmccntr_in_wfi,
    }
    pcpus = table.integer("pcpus", max(len(values) for values in lists.values()), 1, _MAX_PCPUS)
    for key, values in lists.items():
        _check_length(table, key, values, pcpus)
    clock_ghz = table.number("clock_ghz", Decimal("3.0"), Decimal("0.001"), 100)
    frequency_hz = int(clock_ghz * 10**9)
    table_of_costs = _costs(table, _cost_table(table, found))
    for n, delay in enumerate(pmi_delay):
        if delay and not _cycles(delay / 10**9, frequency_hz):
            table.refuse(
                "pmi_delay",
                *_no_cycle("pmi_delay", f"{delay} ns", frequency_hz),
                index=n if isinstance(table.data.get("pmi_delay"), list) else None,
            )
    cpus = [
        replace(
            _of(found, n).spec,
            counters=_of(counters, n),
            pmuver=_of(pmuver, n),
            fgt=_of(fgt, n),
            hpmn0=_of(hpmn0, n),
            icntr=_of(icntr, n),
            pmi_delay=_cycles(_of(pmi_delay, n) / 10**9, frequency_hz),
            pmccntr_in_wfi=_of(pmccntr_in_wfi, n),
        )
        for n in range(pcpus)
    ]
    return Machine(
        cpus=_reserved(scenario.table("host", keys.HOST), cpus),
        frequency_hz=frequency_hz,
        costs=table_of_costs.cycles(frequency_hz),
        exits=table_of_costs.exit_spec(frequency_hz),
        assumed_costs=table_of_costs.assumed(),
    )


def _reserved(host: Table, cpus: Sequence[CpuSpec]) -> tuple[CpuSpec, ...]:
    """The CPUs with `[host] reserved_host_counters`: one value for all, or one for each."""
    if _RESERVED not in host:
        return tuple(cpus)
    reserved = read_reserved(host, cpus)
    return tuple(replace(cpu, reserved_host_counters=one) for cpu, one in zip(cpus, reserved, strict=True))


def read_reserved(table: Table, cpus: Sequence[CpuSpec]) -> tuple[int, ...]:
    """`reserved_host_counters` of each pCPU."""
    values = table.integers(_RESERVED, [], NO_PARTITION, 31)
    _check_length(table, _RESERVED, values, len(cpus))
    for number, cpu in enumerate(cpus):
        if _of(values, number) > cpu.counters:
            table.refuse(
                _RESERVED,
                f"{_RESERVED} is {_of(values, number)}, but pCPU {number} has {cpu.counters} event counters",
                f"give from 0 to {cpu.counters}, or -1 for no partition",
            )
    return tuple(_of(values, number) for number in range(len(cpus)))


def _check_length(table: Table, key: str, values: Sequence[object], pcpus: int) -> None:
    if len(values) not in (1, pcpus):
        of = "pCPU" if pcpus == 1 else "pCPUs"
        table.refuse(key, f"{key} has {len(values)} values for {pcpus} {of}", "give one value, or one for each pCPU")


def _cycles(seconds: Decimal, frequency_hz: int) -> int:
    return int(seconds * frequency_hz + Decimal("0.5"))


def _no_cycle(key: str, written: object, frequency_hz: int) -> tuple[str, str]:
    """The problem and the remedy of a length of time that is none in cycles."""
    cycle = Decimal(10**9) / frequency_hz
    return f"{key} = {written} is no cycle of the machine's clock", f"give 0, or at least {cycle:.3g} ns"


def _of(values: Sequence[T], pcpu: int) -> T:
    """The value of one pCPU: its own, or the one for all."""
    return values[pcpu % len(values)]


def _cores(table: Table) -> list[cores.Core]:
    names = table.strings("core") or [_DEFAULT_CORE]
    listed = isinstance(table.data.get("core"), list)
    found = []
    for index, name in enumerate(names):
        with table.blamed("core", index if listed else None):
            core = cores.load(_path(table, "core", name))
            if not core.vhe:
                having = ", ".join(other for other in cores.names() if cores.load(other).vhe)
                raise UserError(
                    "", f"{name} has no FEAT_VHE, and a host at EL1 is not modelled", f"take one of {having}"
                )
        found.append(core)
    return found


def _cost_table(table: Table, found: Sequence[cores.Core]) -> str:
    """The cost table in which the cores agree; a scenario has one."""
    tables = sorted({core.costs for core in found})
    if len(tables) > 1 and "costs" not in table:
        table.refuse(
            "core", f"the cores have the cost tables {' and '.join(tables)}", f'choose one: costs = "{tables[0]}"'
        )
    return tables[0]


def _costs(table: Table, default: str) -> costs.CostTable:
    given = table.table("cost", costs.NAMES)
    overrides = {name: given.text(name, like="20 ns") for name in given.data}
    for name, text in overrides.items():
        with given.blamed(name):
            costs.quantity(name, text)
    factor = table.number("perf_factor", 1, 0, 1000) if "perf_factor" in table else None
    irqs_off = None
    if costs.EXIT_IRQS_OFF in table:
        irqs_off = costs.read_irqs_off(table.table(costs.EXIT_IRQS_OFF, ("out", "into")))
    name = _path(table, "costs", table.text("costs", default))
    with table.blamed("costs"):
        return costs.load(name, overrides, factor, irqs_off)


def _path(table: Table, key: str, name: str) -> str:
    """The name of a table in the catalogue, unchanged, or the path of a file."""
    return str(table.file(key, name)) if key in table and is_path(name) else name
