"""The perf core on one CPU (API skeleton; bodies follow)."""

from __future__ import annotations

from services.cpu import Cpu
from services.linux_perf.attr import EventAttr
from services.linux_perf.event import PerfEvent
from services.linux_perf.perf import Perf, PerfConfig


class PerfCpu:
    """One CPU's `perf_cpu_context` and its PMU driver's state.

    Every method posts to `cpu.burst` and waits only for values that it must look at. Counter values that
    are read for the record (an event that goes out at the end of an entry, truth) are *pending* until `settle`;
    every method settles by itself before it needs them. A handler calls `settle` last, and does not call
    `cpu.wait()` itself while values are pending. Costs named in `services.costs` are charged here for perf_event_enable/
    disable (PERF_CALL), open and release (PERF_RELEASE_CREATE, one half each), read (PERF_READ), ctx_resched and
    rotation (PERF_RESCHED), event_sched_out/in (EVENT_OUT, EVENT_IN), the interrupt handler (HOST_PMI) and a sample's record
    (SAMPLE); IRQ_ENTRY, TICK and CONTEXT_SWITCH are the kernel's around it.
    """

    def __init__(self, perf: Perf, config: PerfConfig) -> None: ...

    # Probe and reset.
    async def probe(self, cpu: Cpu) -> None:
        """__armv8pmu_probe_pmu (PMCR.N, PMCEID0/1, PMMIR) and reset: what a kernel does at boot."""

    async def reset(self, cpu: Cpu) -> None:
        """armv8pmu_reset: hotplug, idle exit."""

    # Events. `task` is a task id, None: the CPU's own context.
    def open(self, cpu: Cpu, attr: EventAttr, leader: PerfEvent | None = None) -> PerfEvent:
        """perf_event_alloc (charges half of PERF_RELEASE_CREATE for KVM's counters); nothing is on the PMU."""
        raise NotImplementedError

    async def install(self, cpu: Cpu, event: PerfEvent, task: int | None) -> None:
        """perf_install_in_context: reschedules unless the event is disabled and not the context's first."""

    async def enable(self, cpu: Cpu, event: PerfEvent) -> None:
        """perf_event_enable; an event in ERROR gets another chance."""

    async def disable(self, cpu: Cpu, event: PerfEvent) -> None:
        """perf_event_disable: the event's (group's) bracket, no reschedule."""

    async def read(self, cpu: Cpu, event: PerfEvent) -> int:
        """perf_event_read_value: the count since the event was opened; times are in the event afterwards."""
        raise NotImplementedError

    async def release(self, cpu: Cpu, event: PerfEvent) -> None:
        """perf_event_release_kernel; the siblings of a leader become events of their own."""

    async def enable_on_exec(self, cpu: Cpu, task: int) -> None:
        """perf_event_enable_on_exec of the current task: all its events, in one reschedule."""

    # The scheduler.
    async def task_in(self, cpu: Cpu, task: int) -> None:
        """perf_event_task_sched_in."""

    async def task_out(self, cpu: Cpu, task: int) -> None:
        """perf_event_task_sched_out."""

    async def task_exit(self, cpu: Cpu, task: int) -> None:
        """perf_event_exit_task: its events are off for good, their counts remain."""

    # Interrupts.
    async def handle_irq(self, cpu: Cpu) -> bool:
        """armpmu_dispatch_irq; False if no overflow flag was set (IRQ_NONE).

        Flags in `guest_mask` are not the host's: they are posted as Notice.GUEST_OVERFLOW. KVM's counters
        that overflow are posted as Notice.COUNTER_OVERFLOW. A crossed ring-buffer watermark posts one IPI to
        this CPU after the handler (irq_work); `irq_work()` is what the SGI's handler calls.
        """
        raise NotImplementedError

    async def tick(self, cpu: Cpu) -> None:
        """perf_event_task_tick: frequency adjustment and unthrottling, CPU context, then the current task's."""

    async def mux_timer(self, cpu: Cpu) -> None:
        """perf_mux_hrtimer_handler: rotate, and re-arm Timer.MUX if there was something to rotate."""

    def handler_took(self, start: int, end: int) -> None:
        """perf_sample_event_took, with the times in cycles between which handle_irq ran (Entry.previous_done)."""

    def irq_work(self) -> bool:
        """perf_pending_irq: whether a reader of a ring buffer is to be woken."""
        raise NotImplementedError

    async def settle(self, cpu: Cpu) -> None:
        """Wait for and account the values that are pending, if any."""

    # KVM on the host.
    async def el0_filter(self, cpu: Cpu, guest: bool) -> None:
        """kvm_vcpu_pmu_restore_guest (True) or _host (False): flip the EL0 filters of the events concerned."""

    async def set_counters(self, cpu: Cpu, mask: int, reschedule: bool) -> None:
        """Change cntr_mask; with `reschedule` as perf_pmu_resched_update does, between all out and all in."""
