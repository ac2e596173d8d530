"""A result as typed data, and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from services import typed_json
from services.judge.types import Window
from services.result.judged import Violation

SCHEMA = "pmulab.result/2"


@dataclass(frozen=True, slots=True)
class Parts:
    """The event counters of a CPU while a guest is loaded there, under a design that divides them."""

    guest: str  # its name
    cpu: str  # the core's
    guest_counters: int
    host_counters: int
    bsa: bool  # Arm's Base System Architecture: at least 4 for an operating system, 2 for the hypervisor
    vbsa: bool  # its Virtual BSA: at least 2 for a virtual PE


@dataclass(frozen=True, slots=True)
class Design:
    """A vPMU design as it was asked for, or as it ran."""

    name: str
    axes: dict[str, str]  # every axis with its value
    fallbacks: tuple[str, ...] = ()  # what it fell back on for want of a feature of the CPU, in words
    unverified: bool = False  # much of it is inferred
    parts: tuple[Parts, ...] = ()  # of each guest with a PMU and each kind of CPU that it may run on


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
    """`scaled - truth` of an event by cause, in occurrences; the parts add up, if none is below -2^63, an s64's least.

    What `lost` records stood for was counted: the parts with it add up to the error of what perf.data has.
    """

    multiplexing: int  # the price of taking a part of the time for the whole
    stopped: int  # not counted although it had a counter; not positive
    surplus: int  # counted although it did not happen where the filters admit it; not negative
    overflow: int  # whole overflows, 2^32 each, that nobody saw
    lost: int = 0  # counted, but the ring buffer had no room for the sample (perf_output_begin); not positive
    throttled: int = 0  # not counted while it was throttled (__perf_event_account_interrupt); not positive


@dataclass(frozen=True, slots=True)
class Event:
    """A perf event: what was counted beside what happened. Counts are occurrences, summed over the session's CPUs."""

    session: str  # where the scenario has the session: "guest.0.task.0.perf"; "" for one of a client
    event: str  # as the scenario has it, modifiers included; or the clock that the tool falls back to
    count: int | None  # raw; None if it ended in ERROR: perf's read of it returns end of file
    scaled: int | None  # count * enabled / running, as perf scales it; None if it has no count or never ran
    truth: int  # that happened in the contexts that its filters admit while it was open and enabled
    enabled_ns: int  # time_enabled
    running_ns: int  # time_running: on a counter
    samples: int  # records written for it
    in_error: int  # CPUs on which it ended in the ERROR state
    error: CountError | None  # None where `scaled` is
    lost: int = 0  # samples for which the ring buffer had no room: PERF_RECORD_LOST
    throttles: int = 0  # times that it was throttled up to the next tick or switch: PERF_RECORD_THROTTLE
    missed: int = 0  # overflows without a sample: the event was scheduled out before their interrupt came (armpmu_del)
    unsupported: str = ""  # why perf_event_open failed, errno first; "" if it did not
    sampled: int | None = None  # of its count, what samples of its group carry (`:S`); None if there are none such
    starved: str = ""  # of an event of the host that never got a counter: who has them

    @property
    def running(self) -> float:
        """The share of its enabled time that it was on a counter, 0 to 1."""
        return self.running_ns / self.enabled_ns if self.enabled_ns else 0.0

    @property
    def deviation(self) -> float | None:
        """`scaled`, less what lost samples stood for, against `truth`: 0.01 is 1 % too many.

        None where `scaled` is; without a truth 0.0 or infinite.
        """
        if self.scaled is None:
            return None
        if not self.truth:
            return float("inf") if self.scaled else 0.0
        lost = 0 if self.error is None else self.error.lost
        return (self.scaled + lost - self.truth) / self.truth


def scaled(count: int, enabled_ns: int, running_ns: int) -> int:
    """As perf computes it: count * enabled / running, to the nearest; at most what a u64 holds."""
    return min((2 * count * enabled_ns + running_ns) // (2 * running_ns), (1 << 64) - 1)


@dataclass(frozen=True, slots=True)
class Interval:
    """What an event has grown by from one read of `perf stat -I` to the next, summed over the session's CPUs."""

    session: str
    event: str
    nth: int  # which of the session's events of that name it is
    time_ns: int  # of the read, since all events were open
    count: int | None  # raw; None if it was in ERROR on one of them
    truth: int
    enabled_ns: int
    running_ns: int

    @property
    def scaled(self) -> int | None:
        """count * enabled / running, as perf scales it; None where perf prints `<not counted>`."""
        if self.count is None or not self.running_ns:
            return None
        return scaled(self.count, self.enabled_ns, self.running_ns)


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """An event of the host that the design does not let perf_event_open have."""

    session: str
    event: str
    reason: str
    nth: int = 0  # which of the session's events of that name it is


@dataclass(frozen=True, slots=True)
class RefusedSession:
    """A perf session that ended before it had begun: an event could not be opened. The program under it did not run."""

    session: str
    verb: str  # "stat" or "record"
    reason: str  # the event, and why perf_event_open failed


@dataclass(frozen=True, slots=True)
class KilledTask:
    """A program that a signal has killed, with all of its tasks. Its session has ended then, and its counts stand."""

    task: str  # its name
    session: str  # as in events; "" of a client's
    signal: str  # "SIGILL"
    reason: str


@dataclass(frozen=True, slots=True)
class SessionWarning:
    """What perf has printed before it began."""

    session: str
    verb: str  # "stat" or "record"
    text: str


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
    refused_sessions: tuple[RefusedSession, ...] = ()
    intervals: tuple[Interval, ...] = ()  # of sessions with `interval_ms`, in the order in which perf prints them
    no_vpmu: str = ""  # why it has no PMU: KVM has no vPMU at all, or `pmuver = 0`; "" if it has one
    killed_tasks: tuple[KilledTask, ...] = ()


@dataclass(frozen=True, slots=True)
class Host:
    """The host's perf."""

    events: tuple[Event, ...]
    refused: tuple[RefusedEvent, ...]
    interrupt_latency: tuple[Latency, ...]  # of each pCPU, for the host's own overflows
    refused_sessions: tuple[RefusedSession, ...] = ()
    intervals: tuple[Interval, ...] = ()  # of sessions with `interval_ms`, in the order in which perf prints them
    warnings: tuple[SessionWarning, ...] = ()  # of the scenario's sessions: CPUs on which some of their events are not
    irq: float | None = None  # seconds in its interrupt handlers; None if its kernel does not account them apart
    killed_tasks: tuple[KilledTask, ...] = ()


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """Messages from the host's perf and the guests in answer to kvm's; embedded they are direct calls, as many."""

    total: int
    per_trap: float | None  # on average; None without any trap
    per_interrupt: float | None  # on average; None without any injected interrupt


@dataclass(frozen=True, slots=True)
class StepEvent:
    """An event of a session as a step has read it, as `Event` but raw: of the CPU or thread of the session."""

    event: str
    count: int | None  # None in ERROR
    enabled_ns: int
    running_ns: int
    state: str  # as in `enum perf_event_state`: "error", "off", "inactive", "active"


@dataclass(frozen=True, slots=True)
class Step:
    """What a `[[step]]` gave; None is what its action has not."""

    step: int  # its number in the scenario, from 1
    party: str
    action: str
    register: str = ""
    virtual_ns: int | None = None  # on the CPU's clock, when the step was complete; None if it never was
    value: int | None = None  # that was read
    trapped: bool | None = None  # did it trap to EL2?
    esr: int | None = None  # ESR_EL1 of the exception that the access took
    cycles: int | None = None  # of work
    interrupted: bool | None = None  # was the work, by an interrupt of the CPU's?
    blocked: bool | None = None  # has the vCPU's thread blocked in its WFI?
    taken: bool | None = None  # was the PMU's interrupt pending for the guest?
    armed: bool | None = None  # was the mux timer?
    reached: bool | None = None  # has the step that followed had so many operations?
    operations: int | None = None  # of KVM's in that step
    error: str = ""  # why a system call failed, errno first
    events: tuple[StepEvent, ...] = ()  # of a session


@dataclass(frozen=True, slots=True)
class Published:
    """What somebody else measured for a design; None where they did not say. Seconds are of the first guest's run."""

    source: str
    elapsed_seconds: float | None = None
    user_seconds: float | None = None
    system_seconds: float | None = None
    fitted: tuple[str, ...] = ()  # those that the scenario's fitted numbers were fitted to
    host_kernel_percent: float | None = None  # of the host's CPU time, as it prints it
    guest_percent: float | None = None
    relative_to: str = ""  # a design: the run is of another length, times are to be compared with that design's
    changed: tuple[str, ...] = ()  # settings, each `key=value`, by which this run is not what the scenario has


@dataclass(frozen=True, slots=True)
class Run:
    """One design's run."""

    design: Design
    choices: dict[str, int]  # times that a CPU did what the architecture leaves open, by the choice's name
    digest: str  # SHA-256 over the results and the ordered event log
    virtual_seconds: float  # from boot until no work is left
    wall_seconds: float  # that it took here; not in the digest
    time: CpuTime
    cputime: CpuTime  # the same as the host's kernel would print it; `host.irq` is in none of it
    bill: Bill
    kvm: Kvm
    guests: tuple[Guest, ...]
    host: Host
    round_trips: RoundTrips  # not in the digest
    assumed_costs: dict[str, str]  # costs that were charged and that nobody has measured, and what was taken instead
    published: Published | None = None
    steps: tuple[Step, ...] = ()  # what each `[[step]]` gave, in their order; () of a scenario without
    judged: bool = False  # by the invariants; not in the digest, nor are the next six
    violations: tuple[Violation, ...] = ()  # in the order in which they were found
    premises: dict[str, int] = field(default_factory=dict)  # by invariant: how often there was something to judge by it
    windows: dict[str, Window] = field(default_factory=dict)  # by tolerance: how often it was made use of
    known: tuple[str, ...] = ()  # invariants that the scenario lists as known of the design
    stopped: bool = False  # by the first violation that counts
    hung: str = ""  # where and why nobody got anywhere any more, a violation of I12 or I8; "" if it went on to its end

    @property
    def not_exercised(self) -> tuple[str, ...]:
        """The invariants by which nothing was judged: they are neither held nor broken."""
        return tuple(name for name, times in self.premises.items() if not times)

    @property
    def printed(self) -> float:
        """Seconds that the host's kernel would print, all columns together."""
        return self.cputime.total + (self.host.irq or 0)

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
