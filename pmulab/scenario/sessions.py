"""perf sessions of a scenario: `perf = { verb, events, frequency | period }`."""

from __future__ import annotations

from pmulab.scenario.perf_events import TOOLS, EventSyntaxError, parse_events
from services.experiment import SessionSpec
from services.tables import Table

_DEFAULT_FREQUENCY = 4000  # perf record's own, Hz
MAX_SAMPLE_RATE = 2**31 - 1  # what perf_event_max_sample_rate can be: an int; above NSEC_PER_SEC its period is 0
_MAX_PERIOD = 2**63 - 1  # attr.sample_period; the kernel refuses the top bit


def read_session(table: Table, *, cpu_wide: bool, tool: str = TOOLS[0]) -> SessionSpec:
    table.require("verb", '"record"')
    table.require("events", '"cycles,instructions"')
    verb = table.choice("verb", ("stat", "record"), "")
    frequency, period = _sampling(table, verb)
    try:
        events = parse_events(table.strings("events"), frequency=frequency, period=period, tool=tool)
    except EventSyntaxError as error:
        table.refuse("events", error.problem, error.remedy, index=error.argument)
    return SessionSpec(verb, events, cpu_wide, ".".join(str(key) for key in table.path))


def _sampling(table: Table, verb: str) -> tuple[int, int]:
    for key in ("frequency", "period"):
        if verb == "stat" and key in table:
            table.refuse(key, f"perf stat takes no {key}", 'leave it out, or write verb = "record"')
    if verb == "stat":
        return 0, 0
    if "period" in table:
        if "frequency" in table:
            table.refuse("frequency", "both frequency (-F) and period (-c) are given", "give one of them")
        return 0, table.integer("period", 1_000_000, 1, _MAX_PERIOD)
    return table.integer("frequency", _DEFAULT_FREQUENCY, 1, MAX_SAMPLE_RATE), 0
