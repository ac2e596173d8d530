"""The cost model: what an action costs, in cycles, by name. The numbers are TOML beside this file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import IntEnum, auto
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Final

from services import durations
from services.errors import UserError
from services.experiment import ExitSpec
from services.tables import Document, Table, entry, is_path, near

SHIPPED: Final = Path(__file__).with_suffix(".toml")
DEFAULT: Final = "altra-n1-vhe"
EXIT_IRQS_OFF: Final = "exit_irqs_off"
GIVEN: Final = "given by the user"  # the source of what a scenario overrides
_MOST: Final = 10**9  # ns or cycles that one action may take; more would be a slip of the unit


class Cost(IntEnum):
    """What a cycle can be billed to. Order is the wire's and the core's cause number."""

    UNBILLED = 0  # ordinary execution
    MRS = auto()  # billed by the core
    MSR = auto()
    ISB = auto()
    EXIT_FULL_NULL = auto()  # exit to the host kernel's C code and back, no emulation
    EXIT_FULL_SYSREG = auto()  # the same with a trapped system register access
    EXIT_FAST = auto()  # handled without leaving the hypervisor's own code
    EXIT_USER = auto()  # exit to the VMM
    VIRQ_INJECT = auto()  # making a virtual interrupt pending and delivering it at the next entry
    SGI = auto()  # emulating a trapped ICC_SGI1R_EL1 write
    WFI_BLOCK = auto()  # blocking a vCPU: kvm_vcpu_halt, schedule
    CONTEXT_SWITCH = auto()  # a scheduler switch between two threads
    TICK = auto()  # the timer tick's own work, host or guest
    IRQ_ENTRY = auto()  # taking and finishing an interrupt within one kernel (vectors, GIC ack, EOI)
    PERF_RELEASE_CREATE = auto()  # software time of perf_event_release_kernel plus create
    PERF_CALL = auto()  # software time of one perf_event_enable/disable (function call, context lock)
    EVENT_OUT = auto()  # software time of event_sched_out
    EVENT_IN = auto()  # software time of event_sched_in
    PERF_READ = auto()  # software time of perf_event_read_value
    PERF_RESCHED = auto()  # software time of perf_pmu_resched_update, or loading and putting a guest's, without events'
    HOST_PMI = auto()  # software time of the PMU interrupt handler, no sample
    SAMPLE = auto()  # writing one sample record
    PERF_READER = auto()  # perf record's process looks at its ring buffers: poll, the mmaps, what write does once
    PERF_READER_PAGE = auto()  # it writes a page (4 KiB) of records to its file


NAMES: Final = tuple(cost.name.lower() for cost in Cost if cost is not Cost.UNBILLED)

# Software time of perf's core and driver: what `perf_factor` multiplies.
PERF_SOFTWARE: Final = frozenset(
    {
        Cost.PERF_RELEASE_CREATE,
        Cost.PERF_CALL,
        Cost.EVENT_OUT,
        Cost.EVENT_IN,
        Cost.PERF_READ,
        Cost.PERF_RESCHED,
        Cost.HOST_PMI,
        Cost.SAMPLE,
    }
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a cost table: `value` in `unit` ("ns" or "cycles"), and where it is from.

    `contains` names costs that are part of the value and are charged on their own.
    """

    value: Fraction
    unit: str
    source: str
    contains: tuple[str, ...] = ()

    @property
    def assumed(self) -> bool:
        """True if nobody has measured it."""
        return self.source.startswith("assumed")


@dataclass(frozen=True, slots=True)
class IrqsOff:
    """How much of `exit_full_null` has the host's interrupts masked: `out`, from the guest to where KVM unmasks them
    (guest_timing_exit_irqoff), and `into`, from where it masks them again to the guest; shares."""

    out: Fraction
    into: Fraction
    source: str


@dataclass(frozen=True, slots=True)
class CostTable:
    """What actions cost on one CPU model. `clock_hz` is the clock that figures in cycles were measured at."""

    name: str
    title: str
    clock_hz: int
    perf_factor: Fraction
    perf_factor_source: str
    figures: Mapping[str, Figure]
    exit_irqs_off: IrqsOff

    def exit_spec(self, frequency_hz: int) -> ExitSpec:
        """How many cycles of an exit have interrupts masked."""
        whole = self.cycles(frequency_hz)["exit_full_null"]
        out, into = (int(share * whole + Fraction(1, 2)) for share in (self.exit_irqs_off.out, self.exit_irqs_off.into))
        return ExitSpec(out, into)

    def cycles(self, frequency_hz: int) -> dict[str, int]:
        """Each cost but UNBILLED, by its lower-case name, in cycles of a clock of `frequency_hz`, rounded half up,
        but 1 where that is 0: on a slow clock, too, nothing is done in no time that costs any.

        Figures in ns take as many cycles as the clock makes of them; figures in cycles stay what they are.
        """
        exact = {name: _to_cycles(figure, frequency_hz) for name, figure in self.figures.items()}
        for name in _outermost_last(self.figures):
            exact[name] = max(Fraction(0), exact[name] - sum(exact[part] for part in self.figures[name].contains))
        for cost in PERF_SOFTWARE:
            exact[cost.name.lower()] *= self.perf_factor
        return {name: max(int(exact[name] + Fraction(1, 2)), int(exact[name] > 0)) for name in NAMES}

    def assumed(self) -> dict[str, str]:
        """The costs that nobody has measured: what was taken instead, and why."""
        software = {cost.name.lower() for cost in PERF_SOFTWARE}
        factor = " times perf_factor" + (" (fitted)" if self.perf_factor_source.startswith("fitted") else "")
        assumed = {
            name: f"{float(figure.value):g} {figure.unit}{factor if name in software else ''}"
            f"{figure.source.removeprefix('assumed')}"
            for name, figure in self.figures.items()
            if figure.assumed
        }
        off = self.exit_irqs_off
        if off.source.startswith("assumed"):
            shares = f"{float(100 * off.out):g} and {float(100 * off.into):g} % of a full exit"
            assumed[EXIT_IRQS_OFF] = f"{shares}{off.source.removeprefix('assumed')}"
        return assumed


def names() -> list[str]:
    """The tables that are shipped, the default first."""
    return list(_shipped().data)


def table(name: str = DEFAULT) -> CostTable:
    """A shipped table by its name, or a user's own by its path (one table, its keys at the top level).

    Raises UserError for one that there is not, or that cannot be used.
    """
    return _parse(entry(_shipped(), (), name, "cost table", _KEYS), Path(name).stem if is_path(name) else name)


def load(
    name: str,
    overrides: Mapping[str, str] | None = None,
    perf_factor: Fraction | Decimal | int | None = None,
    irqs_off: IrqsOff | None = None,
) -> CostTable:
    """A table as `table` finds it, with a user's changes. Raises UserError.

    `overrides` are quantities by cost name, as in {"isb": "20 ns", "exit_fast": "400 cycles"}: what is charged, with
    nothing taken off. `perf_factor` and `irqs_off` replace the table's own.
    """
    chosen = table(name)
    if irqs_off is not None:
        chosen = replace(chosen, exit_irqs_off=irqs_off)
    changed = {key: quantity(key, text) for key, text in (overrides or {}).items()}
    chosen = replace(chosen, figures={**chosen.figures, **changed})
    if perf_factor is None:
        return chosen
    return replace(chosen, perf_factor=Fraction(perf_factor), perf_factor_source=GIVEN)


def quantity(name: str, text: str) -> Figure:
    """The figure that a user gives for the cost `name`, as "13.2 ns", "2 us" or "40 cycles". Raises UserError."""
    if name not in NAMES:
        raise UserError("", f"no cost {name!r}", near(name, NAMES))
    number, unit = durations.measure(text) or (Decimal(-1), "")
    if number < 0 or unit not in ("cycles", *durations.NANOSECONDS):
        remedy = f"write it like '13.2 ns' or '40 cycles'; units of time are {durations.UNITS}"
        raise UserError(f"cost {name}", f"{text!r} is not a cost", remedy)
    if unit in durations.NANOSECONDS:
        number, unit = number * durations.NANOSECONDS[unit], "ns"
    if number > _MOST:
        raise UserError(f"cost {name}", f"{text!r} is too much", f"a cost is at most {_MOST} ns or cycles")
    return Figure(Fraction(number), unit, GIVEN)


@cache
def _shipped() -> Document:
    return Document.read(str(SHIPPED))


_UNITS: Final = ("ns", "cycles")
_KEYS: Final = ("title", "base", "clock_hz", "perf_factor", EXIT_IRQS_OFF, *NAMES)


def _parse(given: Table, name: str) -> CostTable:
    base = None
    if "base" in given:
        with given.blamed("base"):
            base = table(given.text("base"))
    figures: dict[str, Figure] = {}
    factor, factor_source = Fraction(1), "none"
    if base is not None:
        figures = {key: _inherited(figure, base.name) for key, figure in base.figures.items()}
        factor, factor_source = base.perf_factor, base.perf_factor_source
    for key in NAMES:
        if key in given:
            figures[key] = _figure(given.table(key, ("value", "unit", "source", "contains")))
        elif key not in figures:
            given.refuse(key, f"{key!r} is missing", f'add it, or base = "{DEFAULT}" to take it from there')
    given.require("clock_hz", "3_000_000_000, at which the table was measured")
    if "perf_factor" in given:
        own = given.table("perf_factor", ("value", "source"))
        own.require("value", "1")
        own.require("source", '"assumed"')
        factor, factor_source = Fraction(own.number("value", 1, 0, 1000)), own.text("source")
    _refuse_circles(given, figures)
    if EXIT_IRQS_OFF in given:
        own = given.table(EXIT_IRQS_OFF, ("out", "into", "source"))
        own.require("source", '"assumed"')
        irqs_off = read_irqs_off(own, own.text("source"))
    elif base is not None:
        irqs_off = base.exit_irqs_off
    else:
        remedy = f'add it, or base = "{DEFAULT}" to take it from there'
        given.refuse(EXIT_IRQS_OFF, f"{EXIT_IRQS_OFF!r} is missing", remedy)
    return CostTable(
        name=name,
        title=given.text("title", name),
        clock_hz=given.integer("clock_hz", 1, 1, 10**12),
        perf_factor=factor,
        perf_factor_source=factor_source,
        figures=figures,
        exit_irqs_off=irqs_off,
    )


def read_irqs_off(given: Table, source: str = GIVEN) -> IrqsOff:
    """The shares of an exit that `given` has. Raises UserError."""
    given.require("out", "0.4")
    given.require("into", "0.4")
    out, into = (Fraction(given.number(key, 0, 0, 1)) for key in ("out", "into"))
    if out + into > 1:
        shares = f"{float(out):g} and {float(into):g}"
        given.refuse("into", f"{shares} of an exit are more than all of it", "write smaller shares")
    return IrqsOff(out, into, source)


def _figure(given: Table) -> Figure:
    for key, example in (("value", "13.2"), ("unit", '"ns"'), ("source", '"assumed"')):
        given.require(key, example)
    contains = given.strings("contains")
    for index, part in enumerate(contains):
        if part not in NAMES:
            given.refuse("contains", f"no cost {part!r}", near(part, NAMES), index=index)
    return Figure(
        value=Fraction(given.number("value", 1, 0, _MOST)),
        unit=given.choice("unit", _UNITS),
        source=given.text("source"),
        contains=tuple(contains),
    )


def _inherited(figure: Figure, base: str) -> Figure:
    return figure if figure.assumed else replace(figure, source=f"assumed: as {base} ({figure.source})")


def _refuse_circles(given: Table, figures: Mapping[str, Figure]) -> None:
    """Refuse a cost that contains itself."""

    def visit(name: str, within: tuple[str, ...]) -> None:
        if name in within:
            given.refuse(name, f"{name} contains itself by way of {' and '.join(within)}", "take one out of `contains`")
        for part in figures[name].contains:
            visit(part, (*within, name))

    for name in figures:
        visit(name, ())


def _outermost_last(figures: Mapping[str, Figure]) -> list[str]:
    """The costs that contain others, each after those that it contains."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order and figures[name].contains:
            for part in figures[name].contains:
                visit(part)
            order.append(name)

    for name in figures:
        visit(name)
    return order


def _to_cycles(figure: Figure, frequency_hz: int) -> Fraction:
    return figure.value if figure.unit == "cycles" else figure.value * frequency_hz / 10**9
