"""What came of a scenario's runs: `Result` and all that is in it, and the one place that makes them.

The simulation reports in cycles; here they become seconds. What is in the digest comes from the simulation alone;
wall time, round trips and published numbers stand beside it. As JSON a result is `pmulab.result/2`, whose fields are
those of the classes here; docs/result.md describes each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import orjson

from services import typed_json
from services.experiment import Experiment, SessionSpec
from services.linux_perf.attr import State

SCHEMA = "pmulab.result/2"

_ERROR = int(State.ERROR)
_SUMMED = ("count", "truth", "held", "enabled", "running", "samples")
_WRAP = 1 << 32  # what a counter loses with an overflow that nobody sees


@dataclass(frozen=True, slots=True)
class Design:
    """A vPMU design as it was asked for, or as it ran."""

    name: str
    axes: dict[str, str]  # every axis with its value
    fallbacks: tuple[str, ...] = ()  # what it fell back on for want of a feature of the CPU, in words


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds, summed over pCPUs, by what the CPU was doing."""

    guest: float  # EL1 and EL0 of guests
    host_kernel: float  # EL2: the host's kernel, KVM and the host's perf
    host_user: float  # EL0 of the host
    idle: float

    @property
    def busy(self) -> float:
        """Seconds that were not idle."""
        return self.guest + self.host_kernel + self.host_user

    @property
    def total(self) -> float:
        """Seconds, idle ones included."""
        return self.busy + self.idle


@dataclass(frozen=True, slots=True)
class Bill:
    """Seconds of kernel time, by what they were spent on."""

    host: dict[str, float]  # by line; the lines add up to `time.host_kernel`
    host_by_cost: dict[str, float]  # the same time by the names of the cost table
    guests_by_cost: dict[str, float]  # of guests' kernels; only what the cost table names


@dataclass(frozen=True, slots=True)
class Traps:
    """System register accesses of guests that trapped to EL2."""

    total: int
    by_register: dict[str, int]  # "PMCR_EL0:w" is a write


@dataclass(frozen=True, slots=True)
class Swaps:
    """How often guests' PMU registers were put onto a CPU and saved from it, and the accesses that these took."""

    loads: int
    puts: int
    register_writes: int
    register_reads: int


@dataclass(frozen=True, slots=True)
class Kvm:
    """What KVM did."""

    traps: Traps
    swaps: Swaps
    interrupts_injected: int  # times that the virtual PMU interrupt of a guest rose


@dataclass(frozen=True, slots=True)
class CountError:
    """`scaled - truth` of an event by cause, in occurrences; the parts add up."""

    multiplexing: int  # the price of taking a part of the time for the whole
    stopped: int  # not counted although it had a counter; not positive
    surplus: int  # counted although it did not happen where the filters admit it; not negative
    overflow: int  # whole overflows, 2^32 each, that nobody saw
    frozen: int  # what happened after a pinned event had gone to ERROR


@dataclass(frozen=True, slots=True)
class Event:
    """A perf event: what was counted beside what happened. Counts are occurrences, summed over the session's CPUs."""

    session: str  # where the scenario has the session: "guest.0.task.0.perf"; "" for one of a client
    event: str  # as the scenario has it, modifiers included
    count: int  # raw
    scaled: int | None  # count * enabled / running, as perf scales it; None if it never ran
    truth: int  # that happened in the contexts that its filters admit while it was open and enabled
    enabled_ns: int  # time_enabled
    running_ns: int  # time_running: on a counter
    samples: int  # records written for it
    in_error: int  # CPUs on which it ended in the ERROR state
    error: CountError | None  # None if it never ran

    @property
    def running(self) -> float:
        """The share of its enabled time that it was on a counter, 0 to 1."""
        return self.running_ns / self.enabled_ns if self.enabled_ns else 0.0

    @property
    def deviation(self) -> float | None:
        """`scaled` against `truth`: 0.01 is 1 % too many. None if it never ran; without a truth 0.0 or infinite."""
        if self.scaled is None:
            return None
        if not self.truth:
            return float("inf") if self.scaled else 0.0
        return (self.scaled - self.truth) / self.truth


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """An event of the host that the design does not let perf_event_open have."""

    session: str
    event: str
    reason: str


@dataclass(frozen=True, slots=True)
class Latency:
    """How long something took each time, in ns of virtual time; None where it never happened."""

    times: int
    p50_ns: int | None  # nearest rank, as the next
    p99_ns: int | None
    max_ns: int | None


@dataclass(frozen=True, slots=True)
class Guest:
    """A VM. Seconds are summed over its vCPUs, except those that elapse."""

    name: str
    elapsed_seconds: float  # until its last task ended: `real` of `time`
    user_seconds: float  # `user` as `time` prints it, sampled by the guest's own tick
    system_seconds: float  # `sys`, likewise
    true_user_seconds: float  # EL0, exactly
    true_system_seconds: float  # EL1, exactly
    events: tuple[Event, ...]
    interrupt_latency: tuple[Latency, ...]  # of each vCPU: from an overflow to the first instruction of the handler
    vcpu_load: tuple[Latency, ...]  # of each vCPU: what the PMU adds to vcpu_load
    vcpu_put: tuple[Latency, ...]


@dataclass(frozen=True, slots=True)
class Host:
    """The host's perf."""

    events: tuple[Event, ...]
    refused: tuple[RefusedEvent, ...]
    interrupt_latency: tuple[Latency, ...]  # of each pCPU, for the host's own overflows


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """Messages from the host's perf and the guests in answer to kvm's; embedded they are direct calls, as many."""

    total: int
    per_trap: float | None  # on average; None without any trap
    per_interrupt: float | None  # on average; None without any injected interrupt


@dataclass(frozen=True, slots=True)
class Published:
    """What somebody else measured for a design, in seconds of the first guest's run; None where they did not say."""

    source: str
    elapsed_seconds: float | None = None
    user_seconds: float | None = None
    system_seconds: float | None = None
    fitted: tuple[str, ...] = ()  # those that the scenario's fitted numbers were fitted to


@dataclass(frozen=True, slots=True)
class Run:
    """One design's run."""

    design: Design
    choices: dict[str, int]  # times that a CPU did what the architecture leaves open, by the choice's name
    digest: str  # SHA-256 over the results and the ordered event log
    virtual_seconds: float  # from boot until no work is left
    wall_seconds: float  # that it took here; not in the digest
    time: CpuTime
    cputime: CpuTime  # the same as the host's kernel would print it
    bill: Bill
    kvm: Kvm
    guests: tuple[Guest, ...]
    host: Host
    round_trips: RoundTrips  # not in the digest
    assumed_costs: dict[str, str]  # costs that were charged and that nobody has measured, and what was taken instead
    published: Published | None = None

    @property
    def overhead(self) -> float:
        """The share of busy CPU time that is not user code of a guest or the host, 0 to 1."""
        user = self.time.host_user + sum(guest.true_user_seconds for guest in self.guests)
        return (self.time.busy - user) / self.time.busy if self.time.busy else 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """A design that has no run: it cannot be had with these settings, or its run did not come to its end."""

    index: int  # among the designs asked for, from 0
    design: Design
    refused: bool  # it cannot be had; otherwise its run failed
    problem: str
    remedy: str  # "" if none is known

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}" if self.remedy else self.problem


@dataclass(frozen=True, slots=True)
class Result:
    """The runs of a scenario, one for each design, in the order asked for; `failures` are the designs without one."""

    schema: str
    version: str  # of pmulab
    scenario: str
    seed: int
    topology: str  # "embedded" or "processes"
    runs: tuple[Run, ...]
    failures: tuple[Failure, ...]
    assumed: dict[str, str]  # what of the scenario nobody stated, in words
    fitted: dict[str, str]  # what of the scenario was fitted, and to what, in words

    def json(self) -> dict[str, Any]:
        """The result as plain data: `pmulab.result/2`."""
        plain: dict[str, Any] = orjson.loads(orjson.dumps(self))
        return plain


def read(plain: Any) -> Result:
    """A result from what `Result.json` gave. Raises ValueError naming the field that does not fit."""
    if isinstance(plain, dict) and plain.get("schema") != SCHEMA:
        raise ValueError(f"schema: {SCHEMA} is wanted, not {plain.get('schema')!r}")
    return typed_json.read(Result, plain, "result")


def of(experiment: Experiment, plain: Mapping[str, Any], topology: str) -> Result:
    """The result of one run, from what `services.embedded.run` returns."""
    return join(experiment, topology, [_run(experiment, plain)])


def join(
    experiment: Experiment,
    topology: str,
    runs: Iterable[Run],
    failures: Iterable[Failure] = (),
    *,
    assumed: Mapping[str, str] | None = None,
    fitted: Mapping[str, str] | None = None,
) -> Result:
    """The result of several designs' runs of one scenario, of which `experiment` is one."""
    return Result(
        schema=SCHEMA,
        version=version("pmulab"),
        scenario=experiment.scenario,
        seed=experiment.seed,
        topology=topology,
        runs=tuple(runs),
        failures=tuple(failures),
        assumed=dict(assumed or {}),
        fitted=dict(fitted or {}),
    )


def _run(experiment: Experiment, plain: Mapping[str, Any]) -> Run:
    hz = experiment.frequency_hz
    traps = plain["traps"]
    bill = {part: {what: cycles / hz for what, cycles in lines.items()} for part, lines in plain["bill"].items()}
    host_events = events(plain["hosts"])
    return Run(
        design=Design(experiment.design.name, dict(experiment.design.axes), tuple(plain["fallbacks"])),
        choices=plain["choices"],
        digest=plain["digest"],
        virtual_seconds=plain["virtual_cycles"] / hz,
        wall_seconds=plain["wall_seconds"],
        time=_cpu_time(plain["time"], hz),
        cputime=_cpu_time(plain["cputime"], hz),
        bill=Bill(**bill),
        kvm=Kvm(
            traps=Traps(sum(traps.values()), dict(traps)),
            swaps=Swaps(**plain["swaps"]),
            interrupts_injected=plain["interrupts_injected"],
        ),
        guests=tuple(_guest(guest, hz) for guest in plain["guests"]),
        host=Host(
            events=host_events,
            refused=_refused(experiment, plain["hosts"], host_events),
            interrupt_latency=_latencies(plain["hosts"], "interrupt_latency", hz),
        ),
        round_trips=_round_trips(plain),
        assumed_costs={
            cost: source
            for cost, source in experiment.assumed_costs.items()
            if bill["host_by_cost"].get(cost) or bill["guests_by_cost"].get(cost)
        },
    )


def _cpu_time(cycles: Mapping[str, int], hz: int) -> CpuTime:
    return CpuTime(**{mode: count / hz for mode, count in cycles.items()})


def _guest(guest: Mapping[str, Any], hz: int) -> Guest:
    """A VM: times summed over its vCPUs, except that what elapses elapses on all at once."""
    vcpus = guest["vcpus"]
    return Guest(
        name=guest["name"],
        elapsed_seconds=max(vcpu["elapsed"] for vcpu in vcpus) / hz,
        user_seconds=sum(vcpu["user"] for vcpu in vcpus) / hz,
        system_seconds=sum(vcpu["system"] for vcpu in vcpus) / hz,
        true_user_seconds=sum(vcpu["true_el0_cycles"] for vcpu in vcpus) / hz,
        true_system_seconds=sum(vcpu["true_el1_cycles"] for vcpu in vcpus) / hz,
        events=events(vcpus),
        interrupt_latency=_latencies(vcpus, "interrupt_latency", hz),
        vcpu_load=_latencies(vcpus, "vcpu_load", hz),
        vcpu_put=_latencies(vcpus, "vcpu_put", hz),
    )


def _latencies(cpus: Iterable[Mapping[str, Any]], key: str, hz: int) -> tuple[Latency, ...]:
    """One for each CPU, in order."""
    return tuple(
        Latency(
            cpu[key]["times"],
            *(cpu[key][name] * 10**9 // hz if name in cpu[key] else None for name in ("p50", "p99", "max")),
        )
        for cpu in cpus
    )


def events(cpus: Iterable[Mapping[str, Any]]) -> tuple[Event, ...]:
    """The events of all sessions. The same event on several CPUs is one, summed, as `perf stat -a` prints it."""
    summed: dict[tuple[Any, int, str], dict[str, Any]] = {}
    names: dict[tuple[Any, int, str], str] = {}
    for number, cpu in enumerate(cpus):
        for session, of_session in enumerate(cpu.get("sessions", [])):
            one = of_session["name"] or (number, session)
            for index, event in enumerate(of_session["events"]):
                key = (one, index, event["name"])
                names[key] = of_session["name"]
                row = summed.setdefault(key, dict.fromkeys((*_SUMMED, "in_error"), 0))
                for field in _SUMMED:
                    row[field] += event[field]
                row["in_error"] += event["state"] == _ERROR
    return tuple(_event(names[key], key[2], row) for key, row in summed.items())


def _event(session: str, name: str, row: Mapping[str, int]) -> Event:
    ran = bool(row["running"])
    return Event(
        session=session,
        event=name,
        count=row["count"],
        scaled=_scaled(row["count"], row) if ran else None,
        truth=row["truth"],
        enabled_ns=row["enabled"],
        running_ns=row["running"],
        samples=row["samples"],
        in_error=row["in_error"],
        error=_error(row) if ran else None,
    )


def _scaled(count: int, row: Mapping[str, int]) -> int:
    """As perf computes it: count * enabled / running, to the nearest."""
    enabled, running = row["enabled"], row["running"]
    return (2 * count * enabled + running) // (2 * running)


def _error(row: Mapping[str, int]) -> CountError:
    """`scaled` less `truth`, split by cause."""
    count, held, truth = row["count"], row["held"], row["truth"]
    wraps = (2 * (held - count) + _WRAP) // (2 * _WRAP)  # whole overflows that are missing, to the nearest
    scaled, seen, ideal = _scaled(count, row), _scaled(count + wraps * _WRAP, row), _scaled(held, row)
    rest = ideal - truth
    return CountError(
        multiplexing=0 if row["in_error"] else rest,
        stopped=min(seen - ideal, 0),
        surplus=max(seen - ideal, 0),
        overflow=scaled - seen,
        frozen=rest if row["in_error"] else 0,
    )


def _refused(
    experiment: Experiment, hosts: Iterable[Mapping[str, Any]], opened: Iterable[Event]
) -> tuple[RefusedEvent, ...]:
    """The events of the host that were asked for and refused, in the scenario's order, then those of clients."""
    names = dict.fromkeys(name for host in hosts for name in host.get("refused", []))
    left = Counter((event.session, event.event) for event in opened)
    refused = []
    for session in {session.name: session for session in _host_sessions(experiment)}.values():
        for event in session.events:
            if left[session.name, event.name]:
                left[session.name, event.name] -= 1
            elif event.name in names:
                what = "its group's leader" if event.exclude_guest else "it"
                refused.append(RefusedEvent(session.name, event.name, f"{what} does not exclude guests (:H)"))
    asked = {one.event for one in refused}
    of_clients = (RefusedEvent("", name, "it does not exclude guests (:H)") for name in names if name not in asked)
    return (*refused, *of_clients)


def _host_sessions(experiment: Experiment) -> Iterator[SessionSpec]:
    for cpu in experiment.host.cpus:
        yield from cpu.sessions
        yield from (task.session for task in cpu.tasks if task.session is not None)
    for guest in experiment.guests:
        for vcpu in guest.vcpus:
            yield from vcpu.host_sessions


def _round_trips(plain: Mapping[str, Any]) -> RoundTrips:
    trips, traps = plain["round_trips"], sum(plain["traps"].values())
    injected = plain["interrupts_injected"]
    return RoundTrips(
        total=trips["total"],
        per_trap=trips["traps"] / traps if traps else None,
        per_interrupt=trips["interrupts"] / injected if injected else None,
    )
