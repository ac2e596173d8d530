"""Workloads: how often each PMUv3 event happens in a program, and for how long. The numbers are TOML beside this file.

Arithmetic is exact (`Fraction`) up to the one rounding into Q32.32, so that rates are the same on
every machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Final

import orjson

from services import events
from services.errors import UserError
from services.registers import CHAIN, CPU_CYCLES, INST_RETIRED, SW_INCR
from services.tables import Document, Table, entry, is_path, near

SHIPPED: Final = Path(__file__).with_suffix(".toml")
PROGRAMS: Final = Path(__file__).with_name("program-event-counts.json")

ONE: Final = 1 << 32  # one occurrence per cycle, as Q32.32
KERNEL: Final = "guest-kernel"  # the workload whose rates a program's own time in the kernel has
DEFAULT_IPC: Final = Fraction(1)

_FEWER: Final = 1 << 16  # occurrences per cycle than any event has
_BY_ITSELF: Final = {SW_INCR: "with writes of PMSWINC_EL0", CHAIN: "as the counter below overflows"}

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

    def in_kernel(self, share: Fraction) -> Workload:
        """The same work of its own, and the kernel for it that `share` of all its time."""
        own = tuple(phase for phase in self.phases if phase.el == 0)
        rates = load(KERNEL).phases[0]
        instructions = _whole(sum(phase.cycles for phase in own) * share / (1 - share) * rates.ipc)
        kernel = (Phase(1, instructions, rates.ipc, rates.rates),) if instructions else ()
        assumed = {key: source for key, source in self.assumed.items() if key != "kernel_instructions"}
        return replace(self, phases=own + kernel, assumed=assumed)


def cycles(instructions: int, ipc: Fraction) -> int:
    """How many cycles `instructions` take, to the nearest, and at least one."""
    return max(1, _whole(instructions / ipc))


def rate(occurrences: Fraction | int, in_cycles: Fraction | int) -> int:
    """Occurrences per cycle as Q32.32, to the nearest."""
    return _whole(Fraction(occurrences) * ONE / in_cycles)


def check(event: int, of: int) -> None:
    """Raise UserError if an event cannot have a rate, as Q32.32, that somebody gives it."""
    name = events.architectural_name(event)
    if event in _BY_ITSELF:
        raise UserError("", f"{name} has no rate: it happens {_BY_ITSELF[event]}", "leave it out")
    if event == CPU_CYCLES and of != ONE:
        raise UserError("", f"{name} happens once per cycle, not {of / ONE:g} times", "leave it out")
    if of >= _FEWER * ONE:
        raise UserError("", f"{name} happens {of / ONE:g} times per cycle", f"give fewer than {_FEWER:,}")


def names() -> list[str]:
    """The workloads that are shipped."""
    return list(_shipped().data["workload"])


def load(name: str, *, ipc: Fraction | None = None) -> Workload:
    """A shipped workload by its name, or a user's own by its path (one workload, its keys at the top level).

    `ipc` replaces the instructions per cycle of its own code (not those of the kernel for it). Raises UserError for
    one that there is not, or that cannot be used.
    """
    table = entry(_shipped(), ("workload",), name, "workload", _KEYS)
    return _parse(table, Path(name).stem if is_path(name) else name, ipc)


def rates(name: str, ipc: Fraction | None = None) -> Rates:
    """The rates of a workload's first phase."""
    return load(name, ipc=ipc).phases[0].rates


def from_counts(name: str, title: str, counts: Mapping[int, Mapping[int, Fraction]]) -> Workload:
    """A workload from counts of a real run: for each exception level, event number to count.

    Each level needs cycles and instructions among its events. What was not counted is taken from the typical rates and
    is named in `assumed`. Raises UserError.
    """
    phases, assumed = [], {}
    for el, counted in sorted(counts.items()):
        for wanted in (CPU_CYCLES, INST_RETIRED):
            if counted.get(wanted, 0) <= 0:
                missing = events.architectural_name(wanted)
                raise UserError("", f"no count of {missing} at EL{el}", "count cycles and instructions with the rest")
        length, instructions = counted[CPU_CYCLES], counted[INST_RETIRED]
        own = {event: rate(count, length) for event, count in counted.items() if event != CPU_CYCLES}
        for event, of in own.items():
            check(event, of)
        for key, figure in _typical().items():
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
def _shipped() -> Document:
    return Document.read(str(SHIPPED))


@cache
def _programs() -> dict[str, dict[str, int]]:
    runs = orjson.loads(PROGRAMS.read_bytes())["runs"]
    return {name: run["counts"] for name, run in runs.items()}


_KEYS: Final = ("title", "program", "instructions", "ipc", "el", "kernel_instructions", "rates")
_MOST: Final = 10**12  # occurrences per 1,000 instructions or cycles; more would be a slip of the pen


def _typical() -> dict[str, _Figure]:
    """What is assumed of events of which nothing else is known."""
    return _figures(Table(_shipped(), (), _shipped().data, None).table("typical", tuple(events.pmuv3())))


def _figures(table: Table, counted: Sequence[str] = ()) -> dict[str, _Figure]:
    """How often each event of `table` happens; `counted` names what of the program was counted."""
    figures = {}
    for event in table.data:
        given = table.table(event, ("sum", "times", "per_kilo_instruction", "per_kilo_cycle", "source"))
        given.require("source", '"assumed"')
        parts = given.strings("sum")
        for index, part in enumerate(parts):
            if part not in counted:
                remedy = near(part, counted) if counted else "name the program that was counted: program = …"
                given.refuse("sum", f"{part!r} is not a measured count here", remedy, index=index)
        figures[event] = _Figure(
            source=given.text("source"),
            sum=tuple(parts),
            times=Fraction(given.number("times", 1, 0, _MOST)),
            per_kilo_instruction=Fraction(given.number("per_kilo_instruction", 0, 0, _MOST)),
            per_kilo_cycle=Fraction(given.number("per_kilo_cycle", 0, 0, _MOST)),
        )
    return figures


def _parse(table: Table, name: str, ipc: Fraction | None) -> Workload:
    counts = _counts(table)
    figures = _typical()
    if counts:
        whole = Table(_shipped(), (), _shipped().data, None)
        figures |= _figures(whole.table("counted", tuple(events.pmuv3())), tuple(counts))
    own = table.table("rates", tuple(events.pmuv3()))
    figures |= _figures(own, tuple(counts))
    assumed = {key: figure.source for key, figure in figures.items() if figure.source.startswith("assumed")}

    own_ipc, source = _value(table, "ipc", DEFAULT_IPC)
    chosen = own_ipc if ipc is None else ipc
    if chosen <= 0:
        table.refuse("ipc", f"{chosen} instructions per cycle", "write a positive number")
    if source.startswith("assumed") and ipc is None:
        assumed["ipc"] = f"{source}: {float(own_ipc):g}"
    if counts:
        instructions = counts["instructions"]
    else:
        table.require("instructions", "1_000_000_000")
        instructions = table.integer("instructions", 1, 1, 2**63)
    level = table.integer("el", 0, 0, 2)
    phases = [_phase(level, figures, counts, Fraction(instructions), chosen)]
    per_cycle = dict(phases[0].rates)
    for key in own.data:
        with own.blamed(key):
            check(events.number(key), per_cycle[events.number(key)])
    if "kernel_instructions" in table:
        kernel, source = _value(table, "kernel_instructions", Fraction(0))
        if source.startswith("assumed"):
            assumed["kernel_instructions"] = source
        if kernel:
            kernel_rates = load(KERNEL).phases[0]
            phases.append(Phase(1, _whole(kernel), kernel_rates.ipc, kernel_rates.rates))
    return Workload(name, table.text("title", name), tuple(phases), assumed)


def _counts(table: Table) -> dict[str, int]:
    """The measured counts of the workload's program; none if its rates are declared."""
    if "program" not in table:
        return {}
    if "instructions" in table:
        table.refuse("instructions", "instructions are measured with the program", "leave them out")
    program = table.text("program")
    if program not in _programs():
        table.refuse("program", f"no measured program {program!r}", near(program, _programs()))
    return _programs()[program]


def _value(table: Table, key: str, default: Fraction) -> tuple[Fraction, str]:
    """The value and the source of a figure; `default`, assumed, if it is not given."""
    if key not in table:
        return default, "assumed"
    given = table.table(key, ("value", "source"))
    given.require("value", "1")
    given.require("source", '"assumed"')
    return Fraction(given.number("value", 1, 0, 2**63)), given.text("source")


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
