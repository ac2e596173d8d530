"""perf sessions of a scenario: `perf = { verb, events, frequency | period | interval_ms }`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pmulab.scenario.cpu_maps import CpuMaps
from pmulab.scenario.perf_events import (
    GUEST_PMUS,
    MAX_FREQUENCY,
    MAX_PERIOD,
    TOOLS,
    EventSyntaxError,
    Pmus,
    parse_events,
)
from services.core_pmus import core_pmus
from services.experiment import ANY_PMU, MMAP_PAGES, CpuSpec, SessionSpec
from services.tables import Table

_MAX_INTERVAL = 3_600_000  # ms
_DEFAULT_FREQUENCY = 4000  # perf record's own, Hz
_MAX_PAGES = 2**18  # a GiB


def host_pmus(cpus: Sequence[CpuSpec], *, of_task: bool) -> Pmus:
    """What events of the host can be bound to, in a session on a task or on CPUs.

    A raw number goes to the first PMU that takes it (perf_init_event): on a CPU the one that covers it, on a task under
    perf stat the one that was registered last.
    """
    pmus = core_pmus(cpus)
    names, cores = tuple(pmu.name for pmu in pmus), tuple(cpus[pmu.cpus[0]] for pmu in pmus)
    return Pmus(names, len(names) - 1 if of_task and len(names) > 1 else ANY_PMU, cores)


def read_session(
    table: Table,
    *,
    cpu_wide: bool,
    frequency_hz: int,
    pmus: Pmus = GUEST_PMUS,
    maps: CpuMaps | None = None,
    tool: str = TOOLS[0],
) -> SessionSpec:
    """A session of a guest, or of the host with its `pmus`, on CPUs with a clock of `frequency_hz`.

    `maps`: the host's CPUs that it is on, if it is not on a task.
    """
    table.require("verb", '"record"')
    table.require("events", '"cycles,instructions"')
    verb = table.choice("verb", ("stat", "record"), "")
    if verb == "record":  # it opens its events on CPUs, those of a task too, where the PMU that covers each takes them
        pmus = replace(pmus, raw=ANY_PMU)
    frequency, period = _sampling(table, verb)
    try:
        events = parse_events(table.strings("events"), frequency=frequency, period=period, pmus=pmus, tool=tool)
    except EventSyntaxError as error:
        table.refuse("events", error.problem, error.remedy, index=error.argument)
    name = ".".join(str(key) for key in table.path)
    interval = _interval(table, verb) * frequency_hz // 1000
    events, warned = (events, ()) if maps is None else maps.propagate(events, verb)
    if not events:
        table.refuse("events", f"none is of a CPU that is asked for: {warned[0]}", "take CPUs that its PMU covers")
    return SessionSpec(verb, events, cpu_wide, interval, name, _pages(table, verb), warned)


def _pages(table: Table, verb: str) -> int:
    """As perf__parse_mmap_pages has it: rounded up to a power of two."""
    if verb == "stat" and "mmap_pages" in table:
        table.refuse("mmap_pages", "perf stat has no ring buffer", 'leave it out, or write verb = "record"')
    pages = table.integer("mmap_pages", MMAP_PAGES, 1, _MAX_PAGES)
    return 1 << (pages - 1).bit_length()


def _interval(table: Table, verb: str) -> int:
    """What perf stat's -I was given, in ms; 0: nothing."""
    if "interval_ms" not in table:
        return 0
    if verb == "record":
        table.refuse("interval_ms", "perf record prints nothing at intervals", 'leave it out, or write verb = "stat"')
    return table.whole("interval_ms", "ms", 1000, 1, _MAX_INTERVAL)


def _sampling(table: Table, verb: str) -> tuple[int, int]:
    for key in ("frequency", "period"):
        if verb == "stat" and key in table:
            table.refuse(key, f"perf stat takes no {key}", 'leave it out, or write verb = "record"')
    if verb == "stat":
        return 0, 0
    if "period" in table:
        if "frequency" in table:
            table.refuse("frequency", "both frequency (-F) and period (-c) are given", "give one of them")
        return 0, table.integer("period", 1_000_000, 1, MAX_PERIOD)
    return table.integer("frequency", _DEFAULT_FREQUENCY, 1, MAX_FREQUENCY), 0
