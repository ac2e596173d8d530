"""One perf event: `struct perf_event` with its `hw_perf_event`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services._pmu import Burst
from services.linux_perf.attr import INCLUDE_EL2, EventAttr, Overflow, State

if TYPE_CHECKING:
    from services.linux_perf.context import Context

MASK32 = (1 << 32) - 1
MASK64 = (1 << 64) - 1
CPU_CYCLES = 0x11
INST_RETIRED = 0x08
COUNTER_INDICES = 33  # event counters 0 to 30, the cycle counter 31, the instruction counter 32
THROTTLED = -1  # value of `interrupts` (MAX_INTERRUPTS): stands still until the next tick or sched_in


def signed64(value: int) -> int:
    """The kernel keeps periods in s64."""
    value &= MASK64
    return value - (1 << 64) if value >> 63 else value


class PerfEvent:
    """An event from its opening to its release. Times are ns of its context's clock, counts are occurrences.

    The clock of a context stands still while the context is not on a CPU. Sums over intervals (`enabled`,
    `running`, `truth`) are kept as the difference of their ends: a start subtracts, an end adds.
    """

    __slots__ = (
        "attr",
        "bits",
        "chained",
        "child_count",
        "child_enabled",
        "child_running",
        "child_samples",
        "child_held",
        "child_truth",
        "children",
        "config",
        "count",
        "ctx",
        "el0_switched",
        "enabled",
        "evtype",
        "frequency",
        "freq_count_stamp",
        "freq_time_stamp",
        "half",
        "id",
        "idx",
        "interrupts",
        "interrupts_seq",
        "last_period",
        "leader",
        "mask",
        "on_exec",
        "on_pmccntr",
        "on_pmicntr",
        "out",
        "parent",
        "period_left",
        "placed",
        "prev",
        "restarts",
        "running",
        "sample_period",
        "samples",
        "sampling",
        "scope",
        "siblings",
        "slot",
        "starts",
        "state",
        "still",
        "timed",
        "held",
        "truth",
        "truth_open",
        "wanted",
    )

    out: Burst  # what takes the event off its counter, its cost included
    starts: list[Burst | None]  # by counter: what puts it on after the counter is written, cost included
    restarts: list[Burst | None]  # the same without cost: for an event that keeps its counter
    # Both are shared by all events with the same PMEVTYPER: the driver has them.

    def __init__(self, number: int, attr: EventAttr, *, hyp: bool, long_counters: bool, icntr: bool) -> None:
        self.id = number
        self.attr = attr
        self.config = attr.event
        self.evtype = attr.event | attr.filter_bits(hyp)
        self.scope = int(attr.truth_scope(hyp))
        self.frequency = attr.frequency
        self.sampling = bool(attr.period or attr.frequency)
        self.mask = MASK64 if attr.long else MASK32  # arm_pmu_event_max_period
        self.half = self.mask >> 1
        self.chained = attr.long and not long_counters  # unless it gets the cycle or instruction counter
        self.on_pmccntr = attr.event == CPU_CYCLES
        self.on_pmicntr = icntr and attr.event == INST_RETIRED
        self.leader: PerfEvent = self
        self.siblings: list[PerfEvent] = []
        self.parent: PerfEvent | None = None  # of an inherited event
        self.children: list[PerfEvent] = []  # inherited from this one and still open
        self.on_exec = attr.enable_on_exec
        self.el0_switched = attr.el0_switched()
        self.still = hyp and not self.evtype & INCLUDE_EL2  # does not count while this kernel runs
        self.placed = -1  # entry in which it last went in, if `still`
        self.ctx: Context | None = None
        self.state: int = State.OFF if attr.disabled else State.INACTIVE
        self.idx = -1
        self.bits = 0  # of the counters that it occupies
        self.slot = 0  # of its counter's value in the burst that is being posted
        # hw_perf_event
        self.prev = 0
        if attr.frequency:
            self.sample_period = 1
        else:
            self.sample_period = signed64(attr.period) or self.half
        self.last_period = self.sample_period
        self.period_left = self.sample_period
        self.interrupts = 0
        self.interrupts_seq = 0
        self.freq_time_stamp = 0
        self.freq_count_stamp = 0
        # What is reported.
        self.count = 0
        self.samples = 0
        self.enabled = 0
        self.running = 0
        self.timed = False  # between the start and the end of an interval of `enabled`
        self.wanted = not attr.disabled  # enabled as its user sees it, also when in ERROR
        self.truth = 0
        self.held = 0  # of the truth, what happened while it had a counter
        self.truth_open = False  # between the start and the end of an interval of `truth`
        self.child_count = self.child_enabled = self.child_running = self.child_samples = self.child_truth = 0
        self.child_held = 0

    @property
    def throttled(self) -> bool:
        return self.interrupts == THROTTLED

    @property
    def is_kvm(self) -> bool:
        return self.attr.overflow is Overflow.KVM

    def renew_period(self) -> bool:
        """The first half of armpmu_event_set_period: begin a new period if the last one is over; whether it was."""
        period = self.sample_period
        left = self.period_left
        renewed = False
        if left <= -period:
            left = period
            renewed = True
        if left <= 0:
            left += period
            renewed = True
        if renewed:
            self.period_left = left
            self.last_period = period
        return renewed

    def account(self, raw: int) -> None:
        """armpmu_event_update with the counter's value."""
        delta = (raw - self.prev) & self.mask
        self.count += delta
        self.period_left -= delta
        self.prev = raw

    def times(self) -> tuple[int, int]:
        """(time_enabled, time_running) in ns up to the context's last update."""
        now = self.ctx.time if self.ctx is not None else 0
        enabled = self.enabled + (now if self.timed else 0) + self.child_enabled
        running = self.running + (now if self.state == State.ACTIVE else 0) + self.child_running
        for child in self.children:
            child_enabled, child_running = child.times()
            enabled += child_enabled
            running += child_running
        return enabled, running

    STATE = (
        "prev",
        "sample_period",
        "last_period",
        "period_left",
        "placed",
        "interrupts",
        "interrupts_seq",
        "freq_time_stamp",
        "freq_count_stamp",
        "count",
        "samples",
        "enabled",
        "running",
        "timed",
        "wanted",
        "held",
        "truth",
        "truth_open",
        "child_count",
        "child_enabled",
        "child_running",
        "child_samples",
        "child_held",
        "child_truth",
        "on_exec",
        "idx",
        "bits",
        "state",
    )

    def values(self) -> dict[str, Any]:
        """All that changes and is not a link to something else, JSON-able."""
        return {name: getattr(self, name) for name in self.STATE}

    def load_values(self, values: dict[str, Any]) -> None:
        for name in self.STATE:
            setattr(self, name, values[name])
