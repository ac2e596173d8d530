"""A workload from what a user's own `perf stat` counted, as `-j` or `-x,` print it.

Count user and kernel mode apart (`-e cycles:u,instructions:u,…,cycles:k,instructions:k,…`) for a workload with a phase
of each; events without a modifier are taken as user mode. Intervals (`-I`) and CPUs (`-A`) are added up.
Source: Linux 6.12 tools/perf/Documentation/perf-stat.txt, CSV FORMAT and JSON FORMAT.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path

import orjson

from pmulab.scenario.perf_events import parse_events
from services import events, workload
from services.errors import UserError
from services.tables import read_text

SUFFIXES = (".json", ".csv", ".txt")

_NOT_COUNTED = ("<not counted>", "<not supported>")
# Events of the kernel's own, which no PMU counts.
_SOFTWARE = frozenset(
    {
        "alignment-faults",
        "bpf-output",
        "context-switches",
        "cpu-clock",
        "cpu-migrations",
        "cs",
        "dummy",
        "duration_time",
        "emulation-faults",
        "faults",
        "major-faults",
        "migrations",
        "minor-faults",
        "page-faults",
        "system_time",
        "task-clock",
        "user_time",
    }
)


_REMEDY = "give what perf stat -j or perf stat -x, printed"


def is_perf_stat(name: str) -> bool:
    """Whether a workload's name means a file that perf stat wrote."""
    return name.endswith(SUFFIXES)


def load(file: str) -> workload.Workload:
    """The workload that perf stat counted. Raises UserError."""
    return parse(Path(file).stem, read_text(file, "give the path of what perf stat wrote"), file)


def parse(name: str, text: str, file: str) -> workload.Workload:
    """The workload in the output `text` of `perf stat -j` or `perf stat -x,`, from `file`. Raises UserError."""
    counts: dict[int, dict[int, Fraction]] = {}
    number = 0
    lines = text.splitlines()
    try:
        while number < len(lines):
            number += 1
            for event, value in _row(lines[number - 1].strip()):
                if value in _NOT_COUNTED or event.partition(":")[0] in _SOFTWARE:
                    continue
                el, event_number = _event(event)
                counted = counts.setdefault(el, {})
                counted[event_number] = counted.get(event_number, Fraction(0)) + _count(value)
        if not counts:
            raise UserError("", "no event was counted", "run perf stat -j -e cycles,instructions,… -o FILE")
        return workload.from_counts(name, f"as perf stat counted {name}", counts)
    except UserError as error:
        raise error.within(f"{file}:{max(number, 1)}") from None


def _row(line: str) -> Iterator[tuple[str, str]]:
    """The event and the value of a line; nothing for comments and lines with a metric alone."""
    if not line or line.startswith("#"):
        return
    if line.startswith("{"):
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise UserError("", f"not JSON: {error}", _REMEDY) from None
        if "event" in row and "counter-value" in row:
            yield str(row["event"]), str(row["counter-value"])
        return
    fields = [field.strip() for field in line.split(",")]
    # With -I the time comes first, with -A the CPU; the unit, often empty, stands between value and event.
    value = next(
        (n for n, field in enumerate(fields) if _is_value(field) and not _is_value("".join(fields[n + 1 : n + 2]))), -1
    )
    if value < 0 or len(fields) < value + 3:
        raise UserError("", f"{line!r} is not a line that perf stat -x, prints", _REMEDY)
    if fields[value + 2]:
        yield _joined(fields[value + 2 :]), fields[value]


def _joined(fields: list[str]) -> str:
    """The event, whose own commas (`armv8_pmuv3_0/event=0x11,long=1/`) split it."""
    event = fields[0]
    for field in fields[1:]:
        if event.count("/") % 2 == 0:
            break
        event += f",{field}"
    return event


def _is_value(field: str) -> bool:
    if field in _NOT_COUNTED:
        return True
    try:
        return Decimal(field).is_finite()
    except InvalidOperation:
        return False


def _event(text: str) -> tuple[int, int]:
    """Exception level and event number."""
    (spec,) = parse_events([text])
    if spec.exclude_user and spec.exclude_kernel:
        raise UserError("", f"{text!r} counts neither user nor kernel mode", "count with :u or :k")
    if spec.event == events.UNMAPPED:
        raise UserError("", f"PMUv3 has no event for {text!r}", "count on a core with a PMUv3, or leave the line out")
    return (1 if spec.exclude_user else 0), spec.event


def _count(text: str) -> Fraction:
    if not _is_value(text) or Decimal(text) < 0:
        raise UserError("", f"{text!r} is not a count", _REMEDY)
    return Fraction(Decimal(text))
