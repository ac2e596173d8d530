"""One CPU's perf data: `perf_cpu_context` with its `perf_cpu_pmu_context`, and what its handlers count."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.cpu import NEVER
from services.linux_perf.driver import Driver
from services.linux_perf.event import Context, PerfEvent
from services.linux_perf.ring_buffer import RingBuffer
from services.linux_perf.shared import PerfConfig, Shared
from services.registers import MASK64
from services.state import derived, link


@dataclass(slots=True, eq=False)
class CpuContext:
    """What a kernel's perf knows of one CPU.

    Within an entry counter values and truths that have been posted to be read are *pending* until the next wait:
    `pending_outs`, `pending_truths`, `pending_held` and `pending_withheld`, which are empty between entries.
    """

    pmu: Driver
    shared: Shared = derived()
    config: PerfConfig = derived()
    ctx: Context = link()  # its own
    task_ctx: Context | None = link(default=None)  # of the current task, while it has events on this CPU
    current: int | None = None  # id of the task that runs
    counters: int = 0  # event counters, PMCR_EL0.N as probed
    entry: int = 0  # counts entries, by their `settle`
    # The host's, beside KVM.
    in_interrupt: bool = derived(default=False)  # the entry is one in interrupt context
    ctx_locked: bool = derived(default=False)  # the entry that this one interrupts has the lock of the contexts
    pmuserenr_on_cpu: bool = False  # a vCPU is loaded: PMUSERENR_EL0 is the guest's, KVM keeps the host's
    range_only: bool = False  # PMCR_EL0.E is a guest's: the host's range stops and starts by MDCR_EL2.HPME
    kept_on: bool = False  # PMCR_EL0.E is the host's, and a guest's counters need it, too: set even for no event
    guest_loaded: bool = False  # a guest has the PMU: contexts' time is the guest's, too (guest_ctx_loaded)
    guest_mask: int = 0  # counters whose overflow flags are a guest's, not the host's
    split_irq: bool = False  # KVM clears the guest's flags, after the host's events
    own_flags: int = MASK64  # then: of the others, those that the handler clears
    fixed_flags: bool = False  # then: KVM is told of each interrupt, and `guest_mask` never changes
    hpmn_flags: bool = False  # then: each interrupt finds out `guest_mask` by MDCR_EL2.HPMN
    lent: bool = False  # a guest has counters of the PMU, for which pinned events wait
    waiting: bool = False  # one does
    # Of a host's events that have never had a counter, by id, who had them when it was their turn: `range:K/N` (K of N
    # are withheld for guests), `thread:ID` (KVM, for the vCPU of that thread), `event:NAME`.
    starved: dict[int, list[str]] = field(default_factory=dict)
    # Multiplexing.
    exclusive: bool = False  # an exclusive group is on the PMU (cpc->exclusive)
    mux_active: bool = False
    mux_expires: int = 0
    # Sampling.
    hrtimers: list[PerfEvent] = link(default_factory=list)  # clocks whose hrtimer runs here
    hrtimers_due: int = NEVER  # as Timer.SWEVENT is set for them, in cycles
    throttled_seq: int = 0  # perf_throttled_seq, one per tick
    throttled_count: int = 0  # perf_throttled_count, since the last tick
    running_sample_length: int = 0
    wakeups: list[RingBuffer] = link(default_factory=list)  # whose readers are to be woken
    wakeup_raised: bool = False  # the IPI for that is on the way

    frequency_hz: int = derived(init=False)
    mux_interval: int = derived(init=False)  # cycles
    pending_outs: list[PerfEvent] = derived(default_factory=list)
    pending_truths: list[tuple[PerfEvent, int, int]] = derived(default_factory=list)  # event, slot, sign
    pending_held: list[tuple[PerfEvent, int, int]] = derived(default_factory=list)  # likewise, while it has a counter
    pending_withheld: list[tuple[PerfEvent, int]] = derived(default_factory=list)  # the end of it: event, slot

    def __post_init__(self) -> None:
        shared = self.shared
        self.frequency_hz = shared.frequency_hz
        self.mux_interval = self.config.mux_interval or max(1, 1000 // shared.hz) * shared.frequency_hz // 1000
