"""What one kernel's perf has for all of its CPUs: costs, limits on sampling, tasks' contexts, open events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.costs import Cost
from services.durations import NS_PER_S
from services.experiment import DEFAULT_SYSCTLS, PerfSysctls
from services.linux_perf.bpf_maps import Follower, Leader
from services.linux_perf.driver import Driver
from services.linux_perf.event import Context, HwEvent, PerfEvent
from services.linux_perf.ring_buffer import NOBODY, RingBuffer
from services.state import derived, link


@dataclass(frozen=True, slots=True)
class PerfConfig:
    """What one CPU's driver knows before it probes."""

    pmuver: int  # ID_AA64DFR0_EL1.PMUVer as this kernel reads it
    hyp: bool = False  # is_kernel_in_hyp_mode(): a VHE host
    cpu: int = 0  # this CPU's number, where its irq_work IPI goes
    icntr: bool = False  # FEAT_PMUv3_ICNTR
    avoid_pmccntr: bool = False  # its PMCCNTR_EL0 counts what CPU_CYCLES does not, as this kernel knows
    arm_pmu: int = 0  # which of the kernel's PMUs covers this CPU
    heterogeneous: bool = False  # it has several
    high_to_low: bool = False  # allocate event counters from the highest index (partitioned v8 hosts)
    hpme: bool = False  # MDCR_EL2.HPME starts and stops with PMCR_EL0.E (hosts of partitioned v3 to v6)
    none: bool = False  # it has none: the hypervisor keeps all of the PMU to itself and guests (gunyah hosts)
    resync_in_process: bool = False  # it asks KVM to switch EL0 filters out of interrupt context, too (partitioned v9)
    group_throttle: bool = False  # it throttles groups, not events (Linux 6.16)
    observed: bool = False  # somebody is told of its events (services.linux_perf.notes)
    denied: tuple[int, ...] = ()  # by the VM's filter: what reports of a guest's kernel go by, which cannot tell
    mux_interval: int = 0  # cycles; 0: perf_event_mux_interval_ms' default, 1000/HZ ms
    record_bytes: int = 48  # of one sample's record: header, ip, tid, time, id, period
    watermark_bytes: int = 256 * 1024  # at which a reader is woken, of the ring buffer of an event without a session


@dataclass(frozen=True, slots=True)
class Probed:
    """What one of a PMU's CPUs says of all of them."""

    counters: int  # PMCR_EL0.N
    pmceid0: int  # PMCEID0_EL0 and PMCEID1_EL0
    pmceid1: int


@dataclass(slots=True)
class SampleLimits:
    """max_samples_per_tick, and how perf_sample_event_took lowers it for all CPUs of a kernel."""

    hz: int
    max_samples_per_tick: int
    allowed_ns: int  # of a sample, on average; 0: any time
    max_sample_rate: int  # what perf_event_max_sample_rate says now
    sysctls: PerfSysctls = derived()

    @classmethod
    def at(cls, hz: int, sysctls: PerfSysctls = DEFAULT_SYSCTLS) -> SampleLimits:
        """Of a kernel with a tick of `hz`, after its sysctls were written.

        perf_event_max_sample_rate_handler, then perf_cpu_time_max_percent_handler.
        """
        rate, percent = sysctls.max_sample_rate, sysctls.cpu_time_max_percent
        allowed = 0 if percent in (0, 100) else max(1, NS_PER_S // rate * percent // 100)
        return cls(hz, -(-rate // hz), allowed, rate, sysctls)

    def lower(self, average_ns: int) -> None:
        """A CPU's average handler took longer than allowed: allow a quarter more than that, and fewer samples."""
        average_ns += average_ns // 4
        budget = tick_ns(self.hz) // 100 * self.sysctls.cpu_time_max_percent
        self.max_samples_per_tick = budget // average_ns if average_ns < budget else 1
        self.allowed_ns = average_ns
        self.max_sample_rate = self.max_samples_per_tick * self.hz


def tick_ns(hz: int) -> int:
    """TICK_NSEC."""
    return (NS_PER_S + hz // 2) // hz


@dataclass(slots=True, eq=False)
class Shared:
    """One kernel's perf, its CPUs aside."""

    limits: SampleLimits
    frequency_hz: int = derived()
    hz: int = derived()
    costs: dict[Cost, int] = derived()
    events: dict[int, PerfEvent] = link(default_factory=dict)  # open ones, by id
    tasks: dict[int, Context] = link(default_factory=dict)  # contexts, by the task's id
    probed: dict[int, Probed] = field(default_factory=dict)  # by `arm_pmu`
    last_cpu: dict[int, int] = field(default_factory=dict)  # on which each task has run last
    opened: int = 0
    contexts: int = 0  # that have been made
    buffers: int = 0  # likewise
    online: list[int] = field(default_factory=list)  # CPUs, as they have come
    # bperf
    leaders: list[Leader] = link(default_factory=list)  # the map of attributes, in the order of their ids
    followers: list[Follower] = link(default_factory=list)
    followed: int = 0  # followers that have been made
    calls: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # by the CPU that an IPI is on its way to
    pmus: dict[int, Driver] = derived(default_factory=dict)  # one of each `arm_pmu`, for what concerns no CPU
    covers: dict[int, int] = derived(default_factory=dict)  # which of them covers a CPU
    drivers: dict[int, Driver] = derived(default_factory=dict)  # of each CPU that has booted, its own
    tick_ns: int = derived(init=False)
    user_access: bool = derived(init=False)  # kernel.perf_user_access

    def __post_init__(self) -> None:
        self.tick_ns = tick_ns(self.hz)
        self.user_access = self.limits.sysctls.user_access

    @classmethod
    def of(
        cls, *, frequency_hz: int, hz: int, costs: Mapping[str, int], sysctls: PerfSysctls = DEFAULT_SYSCTLS
    ) -> Shared:
        """`costs`: cycles by lower-case name of `services.costs.Cost`, as an actor gets them when it is booted."""
        by_cost = {cost: costs.get(cost.name.lower(), 0) for cost in Cost}
        return cls(SampleLimits.at(hz, sysctls), frequency_hz, hz, by_cost)

    def new_event(self, hw: HwEvent, period: int, leader: PerfEvent | None = None, handle: int = -1) -> PerfEvent:
        """perf_event_alloc. A `handle` makes it KVM's."""
        number = self.opened
        self.opened = number + 1
        event = self.events[number] = PerfEvent(number, hw.attr, hw, handle, period)
        if leader is not None:
            event.leader = leader
        return event

    def new_buffer(self, size: int, reader: int = NOBODY) -> RingBuffer:
        """rb_alloc and ring_buffer_init: perf record asks for no watermark, which then is at the half."""
        self.buffers += 1
        return RingBuffer(self.buffers - 1, reader, size, size // 2)

    def new_context(self, task: int | None) -> Context:
        self.contexts += 1
        return Context(self.contexts - 1, task)
