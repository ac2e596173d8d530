"""Workloads: how often each PMUv3 event happens in a program, and for how long. The numbers are TOML beside this file.

Arithmetic is exact (`Fraction`) up to the one rounding into Q32.32, so that rates are the same on
every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson

from services import events
from services.tables import Table, is_path, near

SHIPPED: Final = Path(__file__).with_suffix(".toml")
PROGRAMS: Final = Path(__file__).with_name("program-event-counts.json")

ONE: Final = 1 << 32  # one occurrence per cycle, as Q32.32
KERNEL: Final = "guest-kernel"  # the workload whose rates a program's own time in the kernel has
DEFAULT_IPC: Final = Fraction(1)

Rates = tuple[tuple[int, int], ...]  # (event number, occurrences per cycle as Q32.32), by event number


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of a workload whose events come at constant rates. `el` is 0 for user, 1 or 2 for a kernel."""

    el: int
    instructions: int
    ipc: Fraction
    rates: Rates

    @property
    def cycles(self) -> int:
        """How long it takes."""
        return cycles(self.instructions, self.ipc)


@dataclass(frozen=True, slots=True)
class Workload:
    """A program as phases, in order. `assumed` says what of it nobody measured: event or key, and what was taken."""

    name: str
    title: str
    phases: tuple[Phase, ...]
    assumed: Mapping[str, str]

    def scaled(self, scale: Fraction | int) -> Workload:
        """The same work, `scale` times as long."""
        phases = (replace(phase, instructions=_whole(Fraction(phase.instructions * scale))) for phase in self.phases)
        return replace(self, phases=tuple(phases))


def cycles(instructions: int, ipc: Fraction) -> int:
    """How many cycles `instructions` take, to the nearest, and at least one."""
    return max(1, _whole(instructions / ipc))


def rate(occurrences: Fraction | int, in_cycles: Fraction | int) -> int:
    """Occurrences per cycle as Q32.32, to the nearest."""
    return _whole(Fraction(occurrences) * ONE / in_cycles)


def names() -> list[str]:
    """The workloads that are shipped."""
    return list(_shipped().data["workload"])


def load(name: str, *, ipc: Fraction | None = None) -> Workload:
    """A shipped workload by its name, or a user's own by its path (one workload, its keys at the top level).

    `ipc` replaces the instructions per cycle of its own code (not those of the kernel for it). Raises
    `services.tables.TableError` for a workload that cannot be used, OSError for a file that cannot be read, and
    ValueError with the near matches for a name that is not shipped.
    """
    if is_path(name):
        own = Table.read(Path(name))
        return _parse(own, (), own.data, Path(name).stem, ipc)
    shipped = _shipped()
    if name not in shipped.data["workload"]:
        raise ValueError(f"no workload {name!r}: {near(name, names())}")
    return _parse(shipped, ("workload", name), shipped.data["workload"][name], name, ipc)


def rates(name: str, ipc: Fraction | None = None) -> Rates:
    """The rates of a workload's first phase."""
    return load(name, ipc=ipc).phases[0].rates


def from_counts(name: str, title: str, counts: Mapping[int, Mapping[int, Fraction]]) -> Workload:
    """A workload from counts of a real run: for each exception level, event number to count.

    Each level needs cycles and instructions among its events. What was not counted is taken from the typical rates and
    is named in `assumed`. Raises ValueError.
    """
    phases, assumed = [], {}
    for el, counted in sorted(counts.items()):
        for wanted in (events.CPU_CYCLES, events.INST_RETIRED):
            if counted.get(wanted, 0) <= 0:
                missing = events.architectural_name(wanted)
                raise ValueError(
                    f"{name}: no count of {missing} at EL{el}; count cycles and instructions with the rest"
                )
        length, instructions = counted[events.CPU_CYCLES], counted[events.INST_RETIRED]
        own = {event: rate(count, length) for event, count in counted.items() if event != events.CPU_CYCLES}
        for key, figure in _figures(_shipped(), ("typical",), _shipped().data["typical"]).items():
            number = events.number(key)
            if number not in own:
                own[number] = rate(figure.occurrences({}, instructions, length), length)
                assumed[key] = figure.source
        phases.append(Phase(el, _whole(instructions), instructions / length, tuple(sorted(own.items()))))
    return Workload(name, title, tuple(phases), assumed)


@dataclass(frozen=True, slots=True)
class _Figure:
    """How often one event happens, as `workload.toml` says at its head."""

    source: str
    sum: tuple[str, ...]
    times: Fraction
    per_kilo_instruction: Fraction
    per_kilo_cycle: Fraction

    def occurrences(
        self, counts: Mapping[str, int], instructions: Fraction | int, in_cycles: Fraction | int
    ) -> Fraction:
        counted = self.times * sum(counts[key] for key in self.sum)
        return counted + (self.per_kilo_instruction * instructions + self.per_kilo_cycle * in_cycles) / 1000


@cache
def _shipped() -> Table:
    return Table.read(SHIPPED)


@cache
def _programs() -> dict[str, dict[str, int]]:
    runs = orjson.loads(PROGRAMS.read_bytes())["runs"]
    return {name: run["counts"] for name, run in runs.items()}


def _figures(table: Table, path: tuple[str, ...], data: object, counted: tuple[str, ...] = ()) -> dict[str, _Figure]:
    figures = {}
    for key, value in table.only(path, data, events.pmuv3()).items():
        where = (*path, key)
        given = table.only(where, value, ("sum", "times", "per_kilo_instruction", "per_kilo_cycle", "source"))
        for part in given.get("sum", ()):
            if part not in counted:
                raise table.error((*where, "sum"), f"{part!r} is not a measured count here", near(str(part), counted))
        figures[key] = _Figure(
            source=table.string((*where, "source"), given.get("source")),
            sum=tuple(given.get("sum", ())),
            times=table.number((*where, "times"), given.get("times", 1)),
            per_kilo_instruction=table.number((*where, "per_kilo_instruction"), given.get("per_kilo_instruction", 0)),
            per_kilo_cycle=table.number((*where, "per_kilo_cycle"), given.get("per_kilo_cycle", 0)),
        )
    return figures


_KEYS: Final = ("title", "program", "instructions", "ipc", "el", "kernel_instructions", "rates")


def _parse(table: Table, path: tuple[str, ...], data: object, name: str, ipc: Fraction | None) -> Workload:
    keys = table.only(path, data, _KEYS)
    counts = _counts(table, path, keys)
    shipped = _shipped()
    figures = _figures(shipped, ("typical",), shipped.data["typical"])
    if counts:
        figures |= _figures(shipped, ("counted",), shipped.data["counted"], tuple(counts))
    figures |= _figures(table, (*path, "rates"), keys.get("rates", {}), tuple(counts))
    assumed = {key: figure.source for key, figure in figures.items() if figure.source.startswith("assumed")}

    own_ipc, source = _value(
        table, (*path, "ipc"), keys.get("ipc", {"value": DEFAULT_IPC.numerator, "source": "assumed"})
    )
    chosen = own_ipc if ipc is None else ipc
    if chosen <= 0:
        raise table.error((*path, "ipc"), f"{chosen} instructions per cycle", "write a positive number")
    if source.startswith("assumed") and ipc is None:
        assumed["ipc"] = f"{source}: {float(own_ipc):g}"
    if counts:
        instructions: Fraction | int = counts["instructions"]
    else:
        instructions = table.integer((*path, "instructions"), keys.get("instructions"), 1, 2**63)
    level = table.integer((*path, "el"), keys.get("el", 0), 0, 2)
    phases = [_phase(level, figures, counts, Fraction(instructions), chosen)]
    if "kernel_instructions" in keys:
        kernel, source = _value(table, (*path, "kernel_instructions"), keys["kernel_instructions"])
        if source.startswith("assumed"):
            assumed["kernel_instructions"] = source
        if kernel:
            kernel_rates = load(KERNEL).phases[0]
            phases.append(Phase(1, _whole(kernel), kernel_rates.ipc, kernel_rates.rates))
    return Workload(name, table.string((*path, "title"), keys.get("title", name)), tuple(phases), assumed)


def _counts(table: Table, path: tuple[str, ...], keys: Mapping[str, Any]) -> dict[str, int]:
    """The measured counts of the workload's program; none if its rates are declared."""
    if "program" not in keys:
        return {}
    if "instructions" in keys:
        raise table.error((*path, "instructions"), "is measured with the program", "leave it out")
    program = table.string((*path, "program"), keys["program"])
    if program not in _programs():
        raise table.error((*path, "program"), f"no measured program {program!r}", near(program, _programs()))
    return _programs()[program]


def _value(table: Table, path: tuple[str, ...], data: object) -> tuple[Fraction, str]:
    given = table.only(path, data, ("value", "source"))
    value = table.number((*path, "value"), given.get("value"))
    return value, table.string((*path, "source"), given.get("source"))


def _phase(
    el: int,
    figures: Mapping[str, _Figure],
    counts: Mapping[str, int],
    instructions: Fraction,
    ipc: Fraction,
) -> Phase:
    length = instructions / ipc
    per_cycle = {
        events.number(key): rate(figure.occurrences(counts, instructions, length), length)
        for key, figure in figures.items()
    }
    return Phase(el, _whole(instructions), ipc, tuple(sorted(per_cycle.items())))


def _whole(number: Fraction) -> int:
    """To the nearest, halves up."""
    return int(number + Fraction(1, 2))
