"""A result as text: the designs of a scenario side by side."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from pmulab import comparison, intervals, steps, violations
from pmulab.columns import align, wrap
from services.result import CountError, CpuTime, Design, Event, Guest, Host, Latency, Parts, RefusedEvent, Result, Run

_CAUSES = ("multiplexing", "stopped", "surplus", "overflow")
_LOSSES = ("throttled", "lost")  # likewise, of sampling: shown where there are any
_TRAPS_SHOWN = 6  # registers, those that trap most
_NOT_COUNTED, _NOT_SUPPORTED = "<not counted>", "<not supported>"  # as perf prints them
_FAR = 0.05  # from its truth: what a host event's scaled count is named for
_MODES: tuple[tuple[str, Callable[[CpuTime], float]], ...] = (
    ("guest", lambda time: time.guest),
    ("host kernel", lambda time: time.host_kernel),
    ("host user", lambda time: time.host_user),
    ("idle", lambda time: time.idle),
)

# A row of a table of events: the session, the event, and which of that name it is within the session.
_Key = tuple[str, str, int]


def render(result: Result, *, why: bool = False) -> str:
    """The tables of a result. `why` adds the bill, kernel time by cause, the errors of counts by cause, and of each
    violation what led to it."""
    runs = result.runs
    blocks = [
        f"{result.scenario}: seed {result.seed}, {result.topology}, pmulab {result.version}",
        *_published(runs),
        _summary(result),
    ]
    if runs:
        blocks += [steps.table(columns(runs), runs), _times(runs), _traffic(runs)]
        if why:
            blocks += _bill(runs)
        for index, guest in enumerate(runs[0].guests):
            guests = [run.guests[index] for run in runs]
            blocks += [_guest(runs, index), _events(guest.name, runs, guests)]
            blocks += intervals.tables(guest.name, columns(runs), guests)
            if why:
                blocks.append(_causes(guest.name, runs, guests))
        hosts = [run.host for run in runs]
        blocks += [_events("host", runs, hosts), _far_off(runs), *intervals.tables("host", columns(runs), hosts)]
        if why:
            blocks.append(_causes("host", runs, hosts))
        blocks += [_interrupts(runs), _residency(runs)]
        blocks += violations.blocks(columns(runs), runs, every=why)
        blocks.append(_digests(runs))
    blocks += [
        assumed_costs(runs),
        _notes("Assumed", result.assumed),
        _notes("Fitted", result.fitted),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _published(runs: Sequence[Run]) -> list[str]:
    compared = comparison.rows(runs)
    return [_side_by_side("Published numbers", runs, compared), comparison.changed(runs)] if compared else []


def head(design: Design, result: Result) -> str:
    """The head of a design's column: its name, with those axes in which designs of that name differ."""
    return _head(design, _designs(result))


def _designs(result: Result) -> list[Design]:
    """All that were asked for, in that order."""
    designs = [run.design for run in result.runs]
    for failure in result.failures:
        designs.insert(failure.index, failure.design)
    return designs


def _head(design: Design, designs: Iterable[Design]) -> str:
    others = [other.axes for other in designs if other.name == design.name]
    differing = [axis for axis in design.axes if any(other.get(axis) != design.axes[axis] for other in others)]
    name = ",".join([design.name, *(f"{axis}={design.axes[axis]}" for axis in differing)])
    return f"{name} (unverified)" if design.unverified else name


def columns(runs: Sequence[Run]) -> list[str]:
    """The heads of the columns of designs that have run."""
    designs = [run.design for run in runs]
    return [_head(design, designs) for design in designs]


def _summary(result: Result) -> str:
    """Every design that was asked for has a column; one without a run says why there."""
    runs = result.runs
    mark = " (fitted)" if comparison.fitted(runs, "elapsed_seconds") else ""
    rows = [
        [f"virtual time{mark}", *(_seconds(run.virtual_seconds) for run in runs)],
        ["overhead", *(f"{100 * run.overhead:.1f} %" for run in runs)],
        ["wall time", *(f"{run.wall_seconds:.1f} s" for run in runs)],
    ]
    if any(run.host.refused for run in runs):
        events = _rows([run.host for run in runs])
        names = ([name for name, of in events if isinstance(of[n], RefusedEvent)] for n in range(len(runs)))
        rows.append(["refuses the host", *map(_listed, names)])
    if any(run.design.fallbacks for run in runs):
        rows.append(["falls back", *(wrap("; ".join(run.design.fallbacks) or "no") for run in runs)])
    if any(run.design.parts for run in runs):
        rows.append(["event counters", *(wrap("; ".join(map(_whose, run.design.parts))) for run in runs)])
    if any(run.choices for run in runs):
        rows.append(["left open by the Arm ARM", *(_counts(run.choices) for run in runs)])
    if any(run.stopped or run.hung for run in runs):
        rows.append(["cut short", *(wrap(run.hung or ("at a violation" if run.stopped else "")) for run in runs)])
    for failure in result.failures:
        for row in rows:
            row.insert(1 + failure.index, "")
    for refused, name in ((True, "not available"), (False, "failed")):
        why = {one.index: wrap(str(one)) for one in result.failures if one.refused is refused}
        if why:
            rows.append([name, *(why.get(index, "") for index in range(len(_designs(result))))])
    designs = _designs(result)
    return align([["", *(_head(design, designs) for design in designs)], *rows], left=1)


def _whose(of: Parts) -> str:
    """Whose they are while a guest is loaded, and Arm's base architectures that are not met so."""
    missed = [name for name, met in (("BSA", of.bsa), ("VBSA", of.vbsa)) if not met]
    text = f"{of.guest} {of.guest_counters}, host {of.host_counters}"
    return f"{text}: short of {' and '.join(missed)}" if missed else text


def _listed(names: Iterable[str]) -> str:
    return wrap(", ".join(names) or "nothing")


def _counts(counts: dict[str, int]) -> str:
    return wrap(", ".join(f"{name} {count:,}" for name, count in counts.items()) or "nothing")


def _times(runs: Sequence[Run]) -> str:
    rows = []
    for name, seconds in _MODES:
        rows.append([name, *(_seconds(seconds(run.time)) for run in runs)])
        rows.append(["  as the host prints it", *(_seconds(seconds(run.cputime)) for run in runs)])
    irqs = [run.host.irq for run in runs]
    if any(irq is not None for irq in irqs):
        rows.append(["irq, as the host prints it", *("" if irq is None else _seconds(irq) for irq in irqs)])
    return _side_by_side("CPU time", runs, rows)


def _traffic(runs: Sequence[Run]) -> str:
    traps = [run.kvm.traps.by_register for run in runs]
    swaps = [run.kvm.swaps for run in runs]
    registers = {register for of_run in traps for register in of_run}
    most = sorted(registers, key=lambda register: (-sum(t.get(register, 0) for t in traps), register))[:_TRAPS_SHOWN]
    rows = [["traps", *(f"{run.kvm.traps.total:,}" for run in runs)]]
    rows += [[f"  {register}", *(f"{of_run.get(register, 0):,}" for of_run in traps)] for register in most]
    if len(registers) > len(most):
        others = (sum(of_run.values()) - sum(of_run.get(register, 0) for register in most) for of_run in traps)
        rows.append(["  others", *(f"{count:,}" for count in others)])
    rows.append(["swaps (loads + puts)", *(f"{one.loads:,} + {one.puts:,}" for one in swaps)])
    rows.append(["  writes + reads", *(f"{one.register_writes:,} + {one.register_reads:,}" for one in swaps)])
    rows.append(["interrupts injected", *(f"{run.kvm.interrupts_injected:,}" for run in runs)])
    rows.append(["round trips", *(f"{run.round_trips.total:,}" for run in runs)])
    return _side_by_side("KVM", runs, rows)


def _bill(runs: Sequence[Run]) -> list[str]:
    """The host kernel's time by what it was spent on, then by cost; the guests' kernels' by cost."""
    return [
        _bill_part("Bill: host kernel (share of busy time)", runs, [run.bill.host for run in runs]),
        _bill_part("Bill: host kernel by cost", runs, [run.bill.host_by_cost for run in runs]),
        _bill_part("Bill: guest kernels by cost", runs, [run.bill.guests_by_cost for run in runs]),
    ]


def _bill_part(title: str, runs: Sequence[Run], bills: Sequence[dict[str, float]]) -> str:
    lines = {line for bill in bills for line, seconds in bill.items() if seconds}
    dear = sorted(lines, key=lambda line: (-sum(bill[line] for bill in bills), line))
    rows = [[line, *(_charged(run, bill[line]) for run, bill in zip(runs, bills, strict=True))] for line in dear]
    rows.append(["total", *(_charged(run, sum(bill.values())) for run, bill in zip(runs, bills, strict=True))])
    return _side_by_side(title, runs, rows)


def _charged(run: Run, seconds: float) -> str:
    return f"{_seconds(seconds)} {100 * seconds / run.time.busy if run.time.busy else 0:5.1f} %"


def _guest(runs: Sequence[Run], index: int) -> str:
    guests = [run.guests[index] for run in runs]
    mark = " (fitted)" if index == 0 and comparison.fitted(runs, "elapsed_seconds") else ""
    rows = [
        [f"real{mark}", *(_seconds(guest.elapsed_seconds) for guest in guests)],
        ["user", *(_seconds(guest.user_seconds) for guest in guests)],
        ["  true", *(_seconds(guest.true_user_seconds) for guest in guests)],
        ["sys", *(_seconds(guest.system_seconds) for guest in guests)],
        ["  true", *(_seconds(guest.true_system_seconds) for guest in guests)],
    ]
    return _side_by_side(f"{guests[0].name} (as `time` prints it)", runs, rows)


def _keyed(actor: Guest | Host) -> dict[_Key, Event | RefusedEvent]:
    """An actor's events by a key that is the same in every design: those that are open are the ones not refused."""
    refused = actor.refused if isinstance(actor, Host) else ()
    keyed: dict[_Key, Event | RefusedEvent] = {(one.session, one.event, one.nth): one for one in refused}
    for event in actor.events:
        keys = ((event.session, event.event, nth) for nth in itertools.count())
        keyed[next(key for key in keys if key not in keyed)] = event
    return keyed


def _rows(actors: Sequence[Guest | Host]) -> list[tuple[str, list[Event | RefusedEvent | None]]]:
    """Each event, and what became of it in each design: None if nobody opened it there. They stand in the scenario's
    order, those that every design refuses last.

    It is named by its session, too, if several have one of that name, and numbered if the session has.
    """
    keyed = [_keyed(actor) for actor in actors]
    order: list[_Key] = []
    for of_actor in keyed:
        at = 0
        for key, event in of_actor.items():
            if isinstance(event, RefusedEvent):
                continue
            if key in order:
                at = order.index(key) + 1
            else:
                order.insert(at, key)
                at += 1
    order += dict.fromkeys(key for of_actor in keyed for key in of_actor if key not in order)
    sessions = Counter(event for _, event in {(session, event) for session, event, _ in order})
    return [(_name(key, alone=sessions[key[1]] == 1), [of_actor.get(key) for of_actor in keyed]) for key in order]


def _name(key: _Key, *, alone: bool) -> str:
    session, event, before = key
    name = event if alone or not session else f"{event} ({session})"
    return f"{name} #{before + 1}" if before else name


def _events(actor: str, runs: Sequence[Run], actors: Sequence[Guest | Host]) -> str:
    """One line per event and design: what was counted beside what happened, or why it was not."""
    rows = _rows(actors)
    heads = columns(runs)
    ended = [
        f"{name}: perf {one.verb} ({one.session or 'a client'}) does not run: {one.reason}"
        for name, of in zip(heads, actors, strict=True)
        for one in of.refused_sessions
    ]
    warned = dict.fromkeys(
        f"perf {one.verb} ({one.session}): {one.text}" for of in actors if isinstance(of, Host) for one in of.warnings
    )
    ended += [
        f"{name}: {one.task} ({one.session or 'a client'}) was killed by {one.signal}: {one.reason}"
        for name, of in zip(heads, actors, strict=True)
        for one in of.killed_tasks
    ]
    without = {of.no_vpmu for of in actors if isinstance(of, Guest) and of.no_vpmu}
    ended = [*(f"{actor} has no PMU: {why}" for why in without), *warned, *ended]
    if not rows:
        return "\n".join([f"{actor}: no event is counted", *ended]) if ended else ""
    table = [[f"{actor}: event", "design", "count", "scaled", "truth", "error", "running", "samples"]]
    notes: dict[str, None] = {}
    why: dict[str, list[str]] = {}
    for name, events in rows:
        for number, event in enumerate(events):
            table.append([name if number == 0 else "", heads[number], *_cells(event)])
            if isinstance(event, RefusedEvent):
                notes[f"{heads[number]} refuses {name}: {event.reason}"] = None
            elif event is not None and event.unsupported:
                why.setdefault(f"{name} is not supported: {event.unsupported}", []).append(heads[number])
            elif event is not None and event.starved:
                why.setdefault(f"{name} never got a counter: {event.starved}", []).append(heads[number])
    return "\n".join([align(table, left=2), *notes, *_where(why, heads), *ended])


def _where(said: Mapping[str, Sequence[str]], heads: Sequence[str]) -> Iterator[str]:
    """Each once, with the designs under which it holds, unless it does under all."""
    for text, under in said.items():
        yield text if len(under) == len(heads) else f"{', '.join(under)}: {text}"


def _cells(event: Event | RefusedEvent | None) -> list[str]:
    if event is None:
        return ["not opened", "", "", "", "", ""]
    if isinstance(event, RefusedEvent):
        return ["refused", "", "", "", "", ""]
    if event.unsupported:
        return ["", _NOT_SUPPORTED, "", "", "", ""]
    return [
        "" if event.count is None else f"{event.count:,}",
        _NOT_COUNTED if event.scaled is None else f"{event.scaled:,}",
        f"{event.truth:,}",
        "" if event.deviation is None or not event.truth else f"{100 * event.deviation:+.2f} %",
        f"({100 * event.running:.2f}%)" + (" ERROR" if event.in_error else ""),
        _samples(event),
    ]


def _samples(event: Event) -> str:
    losses = [f"{event.lost:,} lost"] if event.lost else []
    if event.throttles:
        losses.append(f"throttled {event.throttles:,} times")
    return f"{event.samples:,}" + (f" ({', '.join(losses)})" if losses else "")


def _far_off(runs: Sequence[Run]) -> str:
    """The host's events that are far from their truth, the worst first: those that were never counted."""
    heads = columns(runs)
    found = [
        (event, [f"  {name}", head])
        for name, events in _rows([run.host for run in runs])
        for head, event in zip(heads, events, strict=True)
        if isinstance(event, Event) and _badness(event) > (False, _FAR)
    ]
    if not found:
        return ""
    found.sort(key=lambda one: _badness(one[0]), reverse=True)
    table = [[*row, _off(event)] for event, row in found]
    return f"Host events more than {100 * _FAR:.0f} % from their truth\n{align(table, left=2)}"


def _badness(event: Event) -> tuple[bool, float]:
    """To sort by: whether it was never counted although it happened, then how often it happened, or how far its scaled
    count is from its truth."""
    if event.deviation is None:
        return bool(event.truth), event.truth
    return False, abs(event.deviation)


def _off(event: Event) -> str:
    if event.deviation is None:
        return _NOT_COUNTED
    return f"{100 * event.deviation:+,.2f} %" if event.truth else "truth 0"


def _causes(actor: str, runs: Sequence[Run], actors: Sequence[Guest | Host]) -> str:
    """The error of each scaled count by cause, in per cent of the truth, and the overflows that gave no sample."""
    heads, rows = columns(runs), _rows(actors)
    found = [event for _, events in rows for event in events if isinstance(event, Event)]
    causes = (*_CAUSES, *(loss for loss in _LOSSES if any(_part(event.error, loss) for event in found)))
    missed = any(event.missed for event in found)
    table = [[f"{actor}: error by cause", "design", "got", *causes, *(["overflows missed"] if missed else [])]]
    for name, events in rows:
        for number, event in enumerate(events):
            cells = [""] * (len(table[0]) - 2)
            if isinstance(event, Event) and not event.unsupported:
                parts = _parts(event.error, event.truth, causes)
                cells = [f"{100 * event.running:.2f} %", *parts, *([f"{event.missed:,}"] if missed else [])]
            table.append([name if number == 0 else "", heads[number], *cells])
    return align(table, left=2) if len(table) > 1 else ""


def _parts(error: CountError | None, truth: int, causes: Sequence[str]) -> list[str]:
    return [f"{100 * _part(error, cause) / truth:+.2f} %" if error and truth else "" for cause in causes]


def _part(error: CountError | None, cause: str) -> int:
    return getattr(error, cause) if error else 0


def _interrupts(runs: Sequence[Run]) -> str:
    """From overflow to its owner's handler, for each CPU that had any."""
    rows = []
    for n in range(len(runs[0].host.interrupt_latency)):
        rows += _latency_rows(f"pCPU {n}", [run.host.interrupt_latency[n] for run in runs])
    for name, guests, n in _vcpus(runs):
        rows += _latency_rows(name, [guest.interrupt_latency[n] for guest in guests])
    return _side_by_side("PMU interrupts, overflow to handler", runs, rows) if rows else ""


def _residency(runs: Sequence[Run]) -> str:
    """The PMU's part of vcpu_load and vcpu_put, for each vCPU that was put more than once."""
    rows = []
    for name, guests, n in _vcpus(runs):
        if any(guest.vcpu_put[n].times > 1 for guest in guests):
            rows += _latency_rows(f"{name} vcpu_load", [guest.vcpu_load[n] for guest in guests])
            rows += _latency_rows(f"{name} vcpu_put", [guest.vcpu_put[n] for guest in guests])
    return _side_by_side("The PMU's part of vcpu_load and vcpu_put", runs, rows) if rows else ""


def _vcpus(runs: Sequence[Run]) -> list[tuple[str, list[Guest], int]]:
    """Each vCPU: its name, its guest in each run, its number."""
    return [
        (f"{guest.name}/{n}", [run.guests[index] for run in runs], n)
        for index, guest in enumerate(runs[0].guests)
        for n in range(len(guest.interrupt_latency))
    ]


def _latency_rows(name: str, latencies: Sequence[Latency]) -> list[list[str]]:
    if not any(latency.times for latency in latencies):
        return []
    return [
        [name, *(f"{latency.times:,}" for latency in latencies)],
        ["  p50 / p99 / max", *(_microseconds(latency) for latency in latencies)],
    ]


def _microseconds(latency: Latency) -> str:
    times = (latency.p50_ns, latency.p99_ns, latency.max_ns)
    return " / ".join(f"{ns / 1000:.2f}" for ns in times if ns is not None) + (" µs" if latency.times else "")


def _digests(runs: Sequence[Run]) -> str:
    return align([["digest", ""], *([name, run.digest] for name, run in zip(columns(runs), runs, strict=True))], left=2)


def assumed_costs(runs: Sequence[Run]) -> str:
    """The costs of all runs that nobody has measured."""
    found = {cost: what for run in runs for cost, what in run.assumed_costs.items()}
    return _notes("Costs charged here that nobody has measured", found)


def _notes(title: str, words: dict[str, str]) -> str:
    """One line each; empty if there are none."""
    return "\n".join([title, *(f"  {what}: {text}" for what, text in words.items())]) if words else ""


def _side_by_side(title: str, runs: Sequence[Run], rows: list[list[str]]) -> str:
    return align([[title, *columns(runs)], *rows], left=1)


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f} s"
