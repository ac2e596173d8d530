"""A curve: a scenario run over values of its keys, one line per point and design.

    python -m pmulab.curve SCENARIO KEY=VALUE,VALUE… [KEY=…]… [--design D]… [--set KEY=VALUE]… [--show MEASURE,…]
        [--no-judge]

Keys and values are those of `pmulab run --set`; several keys make a grid, `KEY+KEY=VALUE,…` gives two the same values.
Exit statuses are those of `pmulab run`; below the table stands which line broke an invariant that counts, or hung.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from pmulab import scenario, violations
from pmulab.batch import run_designs
from pmulab.command import Parser, carry_out
from pmulab.designs import heading
from pmulab.exit_status import FAILED, OK, VIOLATED
from pmulab.report import assumed_costs
from services.errors import UserError
from services.experiment import DesignSpec
from services.kvm.bill import LINES
from services.result import CpuTime, Event, Latency, Run
from services.tables import near

_Longest = Callable[[Latency], int | None]


def _share(time: CpuTime, seconds: float) -> str:
    """Of all CPU time, idle time included, in per cent."""
    return f"{100 * seconds / time.total:.2f} %"


def _printed(run: Run, seconds: float) -> str:
    """Likewise, of all that the host's kernel prints."""
    return f"{100 * seconds / run.printed:.2f} %" if run.printed else ""


def _worst(latencies: Iterable[Latency], of: _Longest) -> str:
    """The worst CPU's, in microseconds."""
    found = [ns for latency in latencies if (ns := of(latency)) is not None]
    return f"{max(found) / 1000:.2f}" if found else ""


def _interrupt_latency(run: Run) -> list[Latency]:
    return [latency for guest in run.guests for latency in guest.interrupt_latency]


def _vcpu_load(run: Run) -> list[Latency]:
    return [latency for guest in run.guests for latency in guest.vcpu_load]


def _vcpu_put(run: Run) -> list[Latency]:
    return [latency for guest in run.guests for latency in guest.vcpu_put]


def _guest_events(run: Run) -> list[Event]:
    return [event for guest in run.guests for event in guest.events]


def _least(events: Iterable[Event]) -> str:
    """The share of the wanted time on a counter that the worst served event got, in per cent."""
    shares = [event.running for event in events if event.enabled_ns]
    return f"{100 * min(shares):.1f} %" if shares else ""


def _furthest(events: Iterable[Event]) -> str:
    """The error of the scaled count that is furthest off its truth, in per cent."""
    errors = [event.deviation for event in events if event.deviation is not None and event.truth]
    return f"{100 * max(errors, key=abs):+.2f} %" if errors else ""


MEASURES: dict[str, tuple[str, Callable[[Run], str]]] = {
    "elapsed": ("first guest's seconds", lambda run: "".join(f"{one.elapsed_seconds:.3f}" for one in run.guests[:1])),
    "overhead": ("busy time outside user code", lambda run: f"{100 * run.overhead:.2f} %"),
    "guest": ("share of CPU time at EL1 and EL0 of guests, true", lambda run: _share(run.time, run.time.guest)),
    "host-kernel": ("share of CPU time at EL2, true", lambda run: _share(run.time, run.time.host_kernel)),
    "guest-cputime": ("the same, as the host prints it", lambda run: _printed(run, run.cputime.guest)),
    "host-kernel-cputime": (
        "the same, as the host prints it",
        lambda run: _printed(run, run.cputime.host_kernel),
    ),
    "host-irq": (
        'share of interrupt handlers, as a host with accounting = "...+irq" prints it',
        lambda run: "" if run.host.irq is None else _printed(run, run.host.irq),
    ),
    "traps": ("trapped register accesses", lambda run: f"{run.kvm.traps.total:,}"),
    "swaps": ("PMU contexts loaded", lambda run: f"{run.kvm.swaps.loads:,}"),
    "interrupts": ("injected", lambda run: f"{run.kvm.interrupts_injected:,}"),
    "latency-p50": ("overflow to handler, µs", lambda run: _worst(_interrupt_latency(run), lambda one: one.p50_ns)),
    "latency-p99": ("overflow to handler, µs", lambda run: _worst(_interrupt_latency(run), lambda one: one.p99_ns)),
    "latency-max": ("overflow to handler, µs", lambda run: _worst(_interrupt_latency(run), lambda one: one.max_ns)),
    "load-p50": ("the PMU's part of vcpu_load, µs", lambda run: _worst(_vcpu_load(run), lambda one: one.p50_ns)),
    "load-max": ("the PMU's part of vcpu_load, µs", lambda run: _worst(_vcpu_load(run), lambda one: one.max_ns)),
    "put-p50": ("the PMU's part of vcpu_put, µs", lambda run: _worst(_vcpu_put(run), lambda one: one.p50_ns)),
    "put-max": ("the PMU's part of vcpu_put, µs", lambda run: _worst(_vcpu_put(run), lambda one: one.max_ns)),
    "guest-got": ("counting time of the worst served event", lambda run: _least(_guest_events(run))),
    "host-got": ("counting time of the worst served event", lambda run: _least(run.host.events)),
    "guest-error": ("of the worst scaled count", lambda run: _furthest(_guest_events(run))),
    "host-error": ("of the worst scaled count", lambda run: _furthest(run.host.events)),
    "host-lost": (
        "host's events in ERROR, summed over pCPUs",
        lambda run: str(sum(event.in_error for event in run.host.events)),
    ),
}
BILL = {f"bill:{line.replace(' ', '-')}": line for line in (*LINES.values(), "perf re-create", "injection", "barrier")}
DEFAULT = ("elapsed", "overhead", "host-kernel", "traps", "swaps")


def measure(run: Run, name: str) -> str:
    """A measure of one run as text."""
    if name in BILL:
        return f"{100 * run.bill.host[BILL[name]] / run.time.busy:.2f} %"
    return MEASURES[name][1](run)


def values(text: str) -> list[str]:
    """The values of a comma-separated list; commas within brackets, braces and quotes do not separate."""
    found, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        else:
            depth += (character in "[{") - (character in "]}")
        if character == "," and not depth and not quote:
            found.append("")
        else:
            found[-1] += character
    return found


def points(keys: Sequence[str]) -> list[dict[str, str]]:
    """Every combination of values, by key. Raises UserError."""
    axes: dict[str, list[str]] = {}
    for text in keys:
        key, separator, listed = text.partition("=")
        if not separator or not listed:
            raise UserError(text, "not of the form KEY=VALUE,VALUE", "write for example guest.hz=100,250,1000")
        axes[key] = values(listed)
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]


def overrides(point: dict[str, str]) -> list[str]:
    """A point as `--set` texts."""
    return [f"{key}={value}" for keys, value in point.items() for key in keys.split("+")]


class Row(NamedTuple):
    """A line of the table."""

    cells: list[str]
    run: Run | None = None  # None: the head, or the line says why there is nothing to measure


def rows(
    name: str,
    keys: Sequence[str],
    designs: Sequence[str],
    fixed: Sequence[str],
    shown: Sequence[str],
    *,
    judge: bool = True,
) -> Iterator[Row]:
    """The lines of the table, its head first, each as soon as its run has ended. Raises UserError."""
    grid = points(keys)
    loaded = [
        scenario.load(name, designs=designs, overrides=[*fixed, *overrides(point)], judge=judge) for point in grid
    ]
    longest = max(len(heading(experiment.design)) for at in loaded for experiment in at.experiments)
    yield Row([*grid[0], "design".ljust(longest), *shown])
    for point, at in zip(grid, loaded, strict=True):
        result = run_designs(at, jobs=1)
        for run in result.runs:
            design = heading(DesignSpec(run.design.name, run.design.axes))
            yield Row([*point.values(), design, *(measure(run, name) for name in shown)], run)
        for failure in result.failures:
            design = heading(DesignSpec(failure.design.name, failure.design.axes))
            yield Row([*point.values(), design, str(failure), *([""] * (len(shown) - 1))])


def parser() -> Parser:
    listed = "\n".join(f"  {name:<22} {what}" for name, (what, _) in MEASURES.items())
    made = Parser(
        prog="python -m pmulab.curve",
        description=(__doc__ or "").split("\n", 1)[0],
        epilog=f"measures:\n{listed}\n  {'bill:LINE':<22} share of busy time: {', '.join(BILL)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("scenario", metavar="SCENARIO")
    made.add_argument("keys", nargs="+", metavar="KEY=VALUE,VALUE…")
    made.add_argument("--design", action="append", default=[], metavar="NAME[,axis=value…]")
    made.add_argument("--set", action="append", default=[], dest="fixed", metavar="KEY=VALUE")
    made.add_argument("--no-judge", action="store_false", dest="judge", help="do not judge the runs by the invariants")
    made.add_argument("--show", default=",".join(DEFAULT), metavar="MEASURE,…")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    return carry_out("pmulab.curve", lambda: draw(parser().parse_args(arguments)))


def draw(given: argparse.Namespace) -> int:
    """Print the table; the exit status. Raises UserError."""
    shown = given.show.split(",")
    for name in shown:
        if name not in MEASURES and name not in BILL:
            raise UserError("--show", f"no measure {name!r}", near(name, [*MEASURES, *BILL]))
    status, runs, said = OK, [], []
    table = rows(given.scenario, given.keys, given.design, given.fixed, shown, judge=given.judge)
    head = next(table)
    widths = [max(len(cell), 10) for cell in head.cells]
    for row in itertools.chain([head], table):
        cells = [
            cell.ljust(width) if index <= len(given.keys) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row.cells, widths, strict=True))
        ]
        print("  ".join(cells).rstrip(), flush=True)
        if row.run is not None:
            runs.append(row.run)
            where = " ".join(row.cells[: -len(shown)])
            if found := violations.counting(row.run):
                status = VIOLATED
                said.append(f"{where}: broken: {violations.named(found)}")
            if row.run.hung:
                said.append(f"{where}: hung: {row.run.hung}")
        elif row is not head and status == OK:
            status = FAILED
    if named := assumed_costs(runs):
        print(f"\n{named}")
    for line in said:
        sys.stderr.write(f"pmulab.curve: {line}\n")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
