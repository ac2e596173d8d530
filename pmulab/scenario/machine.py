"""`[machine]`: the pCPUs, their clock and what each action costs on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TypeVar

from pmulab.scenario import keys
from pmulab.scenario.errors import ScenarioError
from pmulab.scenario.table import Table
from services import cores, costs
from services.experiment import CpuSpec
from services.tables import TableError, is_path

T = TypeVar("T")

_MAX_PCPUS = 512
_DEFAULT_CORE = "maximal"


@dataclass(frozen=True, slots=True)
class Machine:
    cpus: tuple[CpuSpec, ...]
    frequency_hz: int
    costs: dict[str, int]  # cycles, by lower-case cost name

    def cycles(self, seconds: Decimal) -> int:
        """A duration in cycles, rounded to the nearest."""
        return int(seconds * self.frequency_hz + Decimal("0.5"))


def read_machine(scenario: Table) -> Machine:
    table = scenario.table("machine", keys.MACHINE)
    core = catalogued(table, "core", lambda: cores.load(_path(table, "core", _DEFAULT_CORE)))
    pcpus = table.integer("pcpus", 1, 1, _MAX_PCPUS)
    counters = table.integers("counters", [core.spec.counters], 0, 31)
    if len(counters) not in (1, pcpus):
        table.refuse(
            "counters", f"counters has {len(counters)} values for {pcpus} pCPUs", "give one value, or one for each pCPU"
        )
    pmuver = table.integer("pmuver", core.spec.pmuver, 1, max(cores.PMUVER))
    if pmuver not in cores.PMUVER:
        known = ", ".join(f"{value} ({name})" for value, name in cores.PMUVER.items())
        table.refuse("pmuver", f"pmuver = {pmuver} is no PMUv3 version", f"ID_AA64DFR0_EL1.PMUVer is one of {known}")
    spec = replace(
        core.spec,
        pmuver=pmuver,
        fgt=table.integer("fgt", core.spec.fgt, 0, 2),
        hpmn0=table.boolean("hpmn0", core.spec.hpmn0),
        icntr=table.boolean("icntr", core.spec.icntr),
    )
    clock_ghz = table.number("clock_ghz", Decimal("3.0"), Decimal("0.001"), 100)
    frequency_hz = int(clock_ghz * 10**9)
    return Machine(
        cpus=tuple(replace(spec, counters=counters[n % len(counters)]) for n in range(pcpus)),
        frequency_hz=frequency_hz,
        costs=_costs(table, core.costs, frequency_hz),
    )


def _costs(table: Table, default: str, frequency_hz: int) -> dict[str, int]:
    given = table.table("cost", costs.NAMES)
    overrides = {name: given.text(name) for name in given.data}
    for name, text in overrides.items():
        try:
            costs.quantity(name, text)
        except ValueError as error:
            problem, _, remedy = str(error).partition("; ")
            given.refuse(name, problem, remedy)
    factor = table.number("perf_factor", 1, 0, 1000) if "perf_factor" in table else None
    name = _path(table, "costs", default)
    return catalogued(table, "costs", lambda: costs.load(name, frequency_hz, overrides, factor))


def _path(table: Table, key: str, default: str) -> str:
    """A name of a catalogue as it is; a file's name relative to the scenario."""
    name = table.text(key, default)
    return str(table.source.directory / name) if key in table and is_path(name) else name


def catalogued(table: Table, key: str, load: Callable[[], T]) -> T:
    """What `load` finds under the name at `key`; its refusals at that key's place."""
    try:
        return load()
    except TableError as error:
        raise ScenarioError(table.where(key), str(error).removesuffix(f"; {error.remedy}"), error.remedy) from None
    except OSError as error:
        table.refuse(
            key, f"{error.filename} cannot be read ({error.strerror})", "give the path of a readable TOML file"
        )
    except ValueError as error:
        problem, _, remedy = str(error).partition(": ")
        table.refuse(key, problem, remedy)
