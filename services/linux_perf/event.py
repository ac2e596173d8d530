"""One perf event, `struct perf_event` with its `hw_perf_event`, and the events of a CPU or of a task.

`struct perf_event_context` is here too, with the one PMU's part of it: the two know each other, and stand in one header
in Linux as well.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field

from services._pmu import Burst
from services.linux_perf.attr import EventAttr, State
from services.linux_perf.ring_buffer import RingBuffer
from services.registers import MASK64, S64_MIN
from services.state import derived, link

THROTTLED = -1  # value of `interrupts` (MAX_INTERRUPTS): stands still until the next tick or sched_in

# enum perf_event_state as plain integers, for the loops.
ACTIVE, INACTIVE, OFF, ERROR = (int(state) for state in (State.ACTIVE, State.INACTIVE, State.OFF, State.ERROR))

# enum event_type_t
FLEXIBLE = 1
PINNED = 2
TIME = 4
CPU = 8
ALL = FLEXIBLE | PINNED

SWEVENT = -1  # value of `pmu`: the event is on none that has counters (perf_swevent)

# Which groups of a context: those on the CPU's arm_pmu, those on none.
HARDWARE = 1
SOFTWARE = 2
EVERY_PMU = HARDWARE | SOFTWARE


def signed64(value: int) -> int:
    """The kernel keeps periods in s64."""
    value &= MASK64
    return value - (1 << 64) if value >> 63 else value


@dataclass(slots=True, eq=False)
class HwEvent:
    """What the driver makes of an event's attributes: the part of `hw_perf_event` that does not change.

    Events with the same attributes share it, and with it the sequences that start them on a counter.
    """

    attr: EventAttr
    config: int  # PMUv3 event number
    evtype: int  # what PMEVTYPER gets
    pmu: int  # the arm_pmu that it is on, or SWEVENT
    scope: int  # whose occurrences are the event's truth (TruthScope); 0 for KVM's, whose truth is the guest's
    mask: int  # arm_pmu_event_max_period
    chained: bool  # takes a pair of counters unless it gets the cycle or the instruction counter
    on_pmccntr: bool  # may have PMCCNTR_EL0
    on_pmicntr: bool  # may have PMICNTR_EL0
    pmccntr_alone: bool  # may have no other counter
    user_read: bool  # PERF_EVENT_FLAG_USER_READ_CNT
    guest_only: int  # all ones if KVM flips its EL0 filter and it counts in the guest, else 0
    host_only: int  # likewise in the host
    still: bool  # does not count while this kernel runs
    software: bool  # takes no counter
    exclusive: bool  # no other hardware event of its context's is on the PMU with it, nor any that comes later
    alone: bool  # KVM's, and takes one counter: the cycle counter or an event counter
    reported: bool  # to a user, with times and truth: KVM reads counts alone
    starts: list[Burst]  # by counter: what puts it on after the counter is written, its cost included
    restarts: list[Burst]  # the same without cost: for an event that keeps its counter
    keeps_out: bool = field(init=False)  # of the guests' range (`Driver.guests`), if it can: pinned, and not KVM's
    half: int = field(init=False)  # what a counter starts from at most
    uncommon: bool = field(init=False)  # to place it takes more than to find a free counter
    noted: int = field(init=False, default=-1)  # what `notes.opened` tells of it, once it has been asked for

    def __post_init__(self) -> None:
        self.half = self.mask >> 1
        self.keeps_out = self.reported and self.attr.pinned
        self.uncommon = (
            self.chained
            or self.on_pmicntr
            or self.pmccntr_alone
            or self.exclusive
            or self.software
            or (self.keeps_out and self.on_pmccntr)
        )


@dataclass(slots=True, eq=False)
class PerfEvent:
    """An event from its opening to its release. Times are ns of its context's clock, counts are occurrences.

    The clock of a context stands still while the context is not on a CPU. Sums over intervals (`enabled`,
    `running`, `truth`) are kept as the difference of their ends: a start subtracts, an end adds.
    """

    id: int
    attr: EventAttr
    hw: HwEvent = derived()
    pmu: int = field(init=False)  # the arm_pmu that its group is on (pmu_ctx->pmu), or SWEVENT
    handle: int = -1  # KVM's name of the guest's counter that the event backs
    long_overflow: bool = field(default=False, init=False)  # which overflows at 64 bits
    period: InitVar[int] = 0  # occurrences from one overflow to the next; 0: counting alone
    ctx: Context | None = link(default=None)
    leader: PerfEvent = link(init=False)
    siblings: list[PerfEvent] = link(default_factory=list)
    parent: PerfEvent | None = link(default=None)  # of an inherited event
    children: list[PerfEvent] = link(default_factory=list)  # inherited from this one and still open
    rb: RingBuffer | None = link(default=None)  # that its samples and its children's go to
    on_exec: bool = field(init=False)
    state: int = field(init=False)
    idx: int = -1
    bits: int = 0  # of the counters that it occupies, or did when it last had any
    placed: int = -1  # entry in which it last went in, if it is `still`
    out: Burst = derived(init=False)  # what takes it off its counter, its cost included
    slot: int = derived(default=0)  # of its counter's value in the burst that is being posted
    rank: int = derived(default=0)  # its place in its context's list, while that is looked at
    # hw_perf_event
    prev: int = 0
    sampling: bool = field(init=False)
    sample_period: int = field(init=False)
    last_period: int = field(init=False)
    period_left: int = field(init=False)  # counts down, that of a software event that is no clock up; ns of a clock
    expires: int = 0  # of a clock that samples: when its hrtimer does, ns of the CPU's clock
    stopped: bool = False  # PERF_HES_STOPPED: with its group, throttled
    interrupts: int = 0
    restarted: bool = False  # throttled, but its counter runs again, since CPU_PM_EXIT
    interrupts_seq: int = 0
    freq_time_stamp: int = 0
    freq_count_stamp: int = 0
    # What is reported.
    count: int = 0
    samples: int = 0
    sampled: int = 0  # its count, as the last sample with PERF_SAMPLE_READ has it
    missed: int = 0  # overflows that no handler saw: it went out while their interrupt was pending or under way
    lost: int = 0  # records, its children's among them, for which the ring buffer had no room
    lost_count: int = 0  # occurrences that they stood for
    throttles: int = 0
    enabled: int = 0
    running: int = 0
    timed: bool = False  # between the start and the end of an interval of `enabled`
    tstamp: int = 0  # when its times were last brought up to date while `enabled` stood still
    wanted: bool = field(init=False)  # reported, and enabled as its user sees it, also when in ERROR
    truth: int = 0
    held: int = 0  # of the truth, what happened while it had a counter
    truth_open: bool = False  # between the start and the end of an interval of `truth`
    withheld: int = 0  # of what it held, what happened while it was throttled
    withheld_open: bool = False
    child_count: int = 0
    child_enabled: int = 0
    child_running: int = 0
    child_samples: int = 0
    child_sampled: int = 0
    child_truth: int = 0
    child_held: int = 0
    child_missed: int = 0
    child_throttles: int = 0
    child_withheld: int = 0

    def __post_init__(self, period: int) -> None:
        attr = self.attr
        self.leader = self
        self.pmu = self.hw.pmu
        self.on_exec = attr.enable_on_exec
        self.wanted = self.hw.reported and not attr.disabled
        self.state = OFF if attr.disabled else INACTIVE
        if attr.frequency:
            self.sampling = True
            self.sample_period = self.last_period = self.period_left = 1
        else:
            self.sampling = period != 0
            self.sample_period = self.last_period = self.period_left = signed64(period) or self.hw.half

    def made_anew(self, hw: HwEvent, period: int) -> None:
        """A counter of KVM's that nobody has read or enabled becomes another one in the same object."""
        self.attr, self.hw = hw.attr, hw
        self.state = OFF
        self.idx = self.placed = -1
        self.bits = self.prev = self.interrupts = self.interrupts_seq = self.count = 0
        self.sampling = period != 0
        if period >> 63:
            period = signed64(period)
        self.sample_period = self.last_period = self.period_left = period or hw.half

    @property
    def throttled(self) -> bool:
        return self.interrupts == THROTTLED

    @property
    def overflows_missed(self) -> int:
        """Overflows without a sample so far, the one that it has gone out with among them."""
        if self.hw.software:
            return 0
        return self.missed + (self.sampling and self.period_left <= 0 and self.state != ACTIVE)

    @property
    def is_kvm(self) -> bool:
        """Its overflow handler is kvm_pmu_perf_overflow: the event backs a counter of a guest."""
        return self.handle >= 0

    def renew_period(self) -> bool:
        """The first half of armpmu_event_set_period: begin a new period if the last one is over; whether it was.

        In s64: a period of 2^63 and more is negative, is over at once each time, and leaves a negative rest.
        """
        period = self.sample_period
        left = self.period_left
        if left < S64_MIN:
            left = signed64(left)
        renewed = False
        if left <= -period:
            left = period
            renewed = True
        if left <= 0:
            left += period
            if left < S64_MIN:
                left = signed64(left)
            renewed = True
        self.period_left = left
        if renewed:
            self.last_period = period
        return renewed

    def times(self) -> tuple[int, int]:
        """(time_enabled, time_running) in ns up to the context's last update, inherited events included."""
        enabled, running = self.own_times()
        enabled += self.child_enabled
        running += self.child_running
        for child in self.children:
            child_enabled, child_running = child.times()
            enabled += child_enabled
            running += child_running
        return enabled, running

    def own_times(self) -> tuple[int, int]:
        """The same of this event alone."""
        now = self.ctx.time_of(self) if self.ctx is not None else 0
        return self.enabled + (now if self.timed else 0), self.running + (now if self.state == ACTIVE else 0)

    def group_type(self) -> int:
        """get_event_type."""
        kind = PINNED if self.leader.attr.pinned else FLEXIBLE
        return kind if self.ctx is not None and self.ctx.task is not None else kind | CPU


@dataclass(slots=True, eq=False)
class Context:
    """Events that are scheduled together. `task` is its task's id, None for a CPU's own context."""

    id: int
    task: int | None
    events: list[PerfEvent] = link(default_factory=list)  # all that are installed, in order of installation
    alone: int = 0  # how many of them are `HwEvent.alone`
    users: int = 0  # how many of them user space may read (nr_user)
    pinned: list[PerfEvent] = link(default_factory=list)  # group leaders, in the order in which they are tried
    flexible: list[PerfEvent] = link(default_factory=list)
    pinned_active: list[PerfEvent] = link(default_factory=list)  # leaders on the PMU, in the order they went on
    flexible_active: list[PerfEvent] = link(default_factory=list)
    software: list[PerfEvent] = link(default_factory=list)  # leaders of groups of software events alone, of both kinds
    software_active: list[PerfEvent] = link(default_factory=list)
    swevents: int = 0  # how many of `events` are software events
    no_switch_fast: int = 0  # how many have their tasks' counts in samples: inherited, and with PERF_SAMPLE_READ
    is_active: int = 0
    rotate_necessary: bool = False
    time: int = 0  # ns, passes only while the context is active
    guest_time: int = 0  # of `time`, what passed while a guest had the PMU (timeguest)
    stamp: int = 0  # ns of the CPU's clock at the last update of `time`
    # Inheritance: contexts that are unmodified clones of one another need no PMU access at a task switch.
    clone_of: Context | None = link(default=None)
    generation: int = 0
    parent_generation: int = 0

    def time_of(self, event: PerfEvent) -> int:
        """perf_event_time: the clock that an event's times are taken from."""
        return self.time - self.guest_time if event.attr.exclude_guest else self.time

    def add(self, event: PerfEvent) -> None:
        """list_add_event and perf_group_attach."""
        event.ctx = self
        self.events.append(event)
        self.alone += event.hw.alone
        self.users += event.hw.user_read
        self.swevents += event.hw.software
        self.no_switch_fast += event.attr.inherit and event.attr.sample_read
        self.unclone()
        leader = event.leader
        if leader is event:
            self.groups(event)[0].append(event)
            return
        if event.hw.software:
            event.pmu = leader.pmu
        elif leader.pmu == SWEVENT:
            self._move_group(leader, event.pmu)
        leader.siblings.append(event)

    def _move_group(self, leader: PerfEvent, pmu: int) -> None:
        """A group of software events gets its first hardware event, and stays on the PMU of that (move_group)."""
        groups, active = self.groups(leader)
        groups.remove(leader)
        for event in (leader, *leader.siblings):
            event.pmu = pmu
        to, to_active = self.groups(leader)
        to.append(leader)
        if leader in active:
            active.remove(leader)
            to_active.append(leader)

    def drop(self, event: PerfEvent) -> None:
        """list_del_event."""
        self.events.remove(event)
        self.alone -= event.hw.alone
        self.users -= event.hw.user_read
        self.swevents -= event.hw.software
        self.no_switch_fast -= event.attr.inherit and event.attr.sample_read
        self.generation += 1  # what it was cloned from remains: others may have lost the same
        event.ctx = None

    def equivalent(self, other: Context) -> bool:
        """context_equiv: unmodified clones of each other or of the same context."""
        if self is other.clone_of:
            return self.generation == other.parent_generation
        if other is self.clone_of:
            return other.generation == self.parent_generation
        return (
            self.clone_of is not None
            and self.clone_of is other.clone_of
            and self.parent_generation == other.parent_generation
        )

    def cloned_from(self, parent: Context) -> None:
        """Record that this is an unmodified copy of `parent`; the hierarchy is flat."""
        if parent.clone_of is not None:
            self.clone_of, self.parent_generation = parent.clone_of, parent.parent_generation
        else:
            self.clone_of, self.parent_generation = parent, parent.generation

    def unclone(self) -> None:
        """unclone_ctx: the context has been changed and is nobody's copy any more."""
        self.clone_of = None
        self.generation += 1

    def groups(self, leader: PerfEvent) -> tuple[list[PerfEvent], list[PerfEvent]]:
        """The groups that `leader` is among, and those of them that are on."""
        if leader.pmu == SWEVENT:
            return self.software, self.software_active
        if leader.attr.pinned:
            return self.pinned, self.pinned_active
        return self.flexible, self.flexible_active
