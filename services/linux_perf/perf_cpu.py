"""What a kernel asks of perf on one CPU beside its events: boot, the scheduler's hooks, KVM's calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.cpu import Cpu
from services.linux_perf.context import ALL, CPU, FLEXIBLE, Context
from services.linux_perf.driver import (
    CYCLE_BIT,
    INSTRUCTION_BIT,
    PMCR_C,
    PMCR_LC,
    PMCR_LP,
    PMCR_N_MASK,
    PMCR_N_SHIFT,
    PMCR_P,
    PMUVER_P4,
)
from services.linux_perf.event import PerfEvent
from services.linux_perf.events import Events, event_type
from services.linux_perf.inherit import clone, equivalent, exit_child, inherited, swap, unclone
from services.linux_perf.schedule import INACTIVE, OFF
from services.registers import (
    PMCEID0_EL0,
    PMCEID1_EL0,
    PMCNTENCLR_EL0,
    PMCR_EL0,
    PMINTENCLR_EL1,
    PMMIR_EL1,
    PMOVSCLR_EL0,
)

if TYPE_CHECKING:
    from services.linux_perf.perf import Perf, PerfConfig


class PerfCpu(Events):
    """One CPU's `perf_cpu_context` and its PMU driver's state.

    Every method posts to `cpu.burst` and waits only for values that it must look at. Counter values that are read
    for the record (of an event that goes out at the end of an entry, truth) are *pending* until `settle`; every
    method settles by itself before it needs them. A handler calls `settle` last, and waits by `wait` of this class,
    not of `cpu`.

    Charged here are perf_event_enable and disable (PERF_CALL), creation and release of KVM's counters
    (PERF_RELEASE_CREATE, one half each), read (PERF_READ), perf_pmu_resched_update (PERF_RESCHED), event_sched_out
    and in (EVENT_OUT, EVENT_IN), the interrupt handler (HOST_PMI) and a sample's record (SAMPLE). IRQ_ENTRY, TICK and
    CONTEXT_SWITCH are the kernel's around it.

    Public attributes: `pmu` (the driver: `cntr_mask`, `used`, `events` by counter), `ctx`, `task_ctx`, `current`, and,
    for a host, `pmuserenr_on_cpu`, `range_only`, `guest_mask`, `split_irq`.
    """

    def __init__(self, perf: Perf, config: PerfConfig) -> None:
        super().__init__(perf, config)
        self.counters = 0  # event counters, PMCR_EL0.N as probed

    async def probe(self, cpu: Cpu) -> None:
        """__armv8pmu_probe_pmu (PMCR.N, PMCEID0/1, PMMIR) and reset: what a kernel does at boot."""
        burst = cpu.burst
        pmcr = burst.mrs(PMCR_EL0)
        burst.mrs(PMCEID0_EL0)
        burst.mrs(PMCEID1_EL0)
        if self.config.pmuver >= PMUVER_P4:
            burst.mrs(PMMIR_EL1)
        values = await self.wait(cpu)
        self.counters = values[pmcr] >> PMCR_N_SHIFT & PMCR_N_MASK
        self.pmu.cntr_mask = (1 << self.counters) - 1 | CYCLE_BIT
        if self.config.icntr:
            self.pmu.cntr_mask |= INSTRUCTION_BIT
        self.reset(cpu)

    def reset(self, cpu: Cpu) -> None:
        """armv8pmu_reset: boot, hotplug, idle exit."""
        burst, mask = cpu.burst, self.pmu.cntr_mask
        for register in (PMCNTENCLR_EL0, PMINTENCLR_EL1, PMOVSCLR_EL0):
            burst.msr(register, mask)
            burst.isb()
        burst.isb()
        burst.msr(PMCR_EL0, PMCR_P | PMCR_C | PMCR_LC | (PMCR_LP if self.pmu.long_counters else 0))

    # The scheduler's hooks.

    async def task_in(self, cpu: Cpu, task: int) -> None:
        """perf_event_task_sched_in."""
        self.current = task
        ctx = self.perf.tasks.get(task)
        if ctx is None:
            return
        burst = cpu.burst
        if self.task_ctx is ctx:  # swapped in by task_out
            self._off(burst)
            self._on(burst)
            return
        if not ctx.events:
            return
        await self._collect(cpu)  # what is pending may be this context's
        burst = cpu.burst
        for event in ctx.events:
            self._truth_begins(burst, event)
        self._off(burst)
        if ctx.pinned and self.ctx.events:
            self._ctx_out(cpu, self.ctx, FLEXIBLE)
            if self._outs:
                await self.wait(cpu)
        self._sched_in(cpu, ctx)
        self._on(cpu.burst)

    async def task_out(self, cpu: Cpu, task: int, following: int | None = None) -> None:
        """perf_event_task_sched_out, with the task that runs next. Counts are there after `settle`."""
        self.current = None
        ctx = self.task_ctx
        if ctx is None or ctx.task != task:
            return
        burst = cpu.burst
        self._off(burst)
        next_ctx = self.perf.tasks.get(following) if following is not None else None
        if next_ctx is not None and equivalent(ctx, next_ctx):
            swap(self.perf.tasks, ctx, next_ctx)
        else:
            self._ctx_out(cpu, ctx, ALL)
        self._on(burst)
        if self.task_ctx is None:
            for event in ctx.events:
                self._truth_ends(burst, event)

    async def task_exit(self, cpu: Cpu, task: int) -> None:
        """perf_event_exit_task: the task's events are off for good; their counts remain until they are released."""
        ctx = self.perf.tasks.pop(task, None)
        if ctx is None:
            return
        if ctx is self.task_ctx:
            self._off(cpu.burst)
            self._ctx_out(cpu, ctx, ALL)
            self._on(cpu.burst)
        for event in ctx.events:
            self._leave_enabled(event, ctx.time)
            event.state = OFF
            event.wanted = False
            self._truth_ends(cpu.burst, event)
        await self._collect(cpu)
        for event in list(ctx.events):
            if event.parent is not None:
                exit_child(self.perf.events, event)
                self._remove(event, ctx)

    async def enable_on_exec(self, cpu: Cpu) -> None:
        """perf_event_enable_on_exec of the current task: all its events that ask for it, in one reschedule."""
        ctx = self.task_ctx
        if ctx is None or ctx.task != self.current:
            return
        which = 0
        self._update_time(cpu, ctx)
        enabled = False
        for event in ctx.events:
            which |= event_type(event)
            if event.on_exec:
                event.on_exec = False
                if event.state < INACTIVE:
                    enabled = True
                    event.wanted = True
                    self._truth_begins(cpu.burst, event)
                    self._enter_enabled(event, ctx.time)
        if enabled:
            unclone(ctx)
            await self._resched(cpu, ctx, which)

    def fork(self, cpu: Cpu, parent: int, child: int) -> None:
        """perf_event_init_task: the child inherits those of its parent's events that say so."""
        ctx = self.perf.tasks.get(parent)
        if ctx is None:
            return
        child_ctx = Context(child)
        everything = True
        for leader in (*ctx.pinned, *ctx.flexible):
            if not leader.attr.inherit:
                everything = False
                continue
            new_leader = self._inherit(cpu, leader, None, child_ctx)
            for sibling in leader.siblings:
                self._inherit(cpu, sibling, new_leader, child_ctx)
        if child_ctx.events:
            self.perf.tasks[child] = child_ctx
            if everything:
                clone(ctx, child_ctx)

    def _inherit(self, cpu: Cpu, parent: PerfEvent, leader: PerfEvent | None, ctx: Context) -> PerfEvent:
        event = self.open(cpu, parent.attr, leader)
        inherited(event, parent)
        self._add(event, ctx)
        return event

    # KVM on the host.

    async def el0_filter(self, cpu: Cpu, guest: bool) -> None:
        """kvm_vcpu_pmu_restore_guest (True) or _host (False).

        VHE hardware cannot tell host EL0 from guest EL0: events that want only one of them have their EL0 filter
        flipped, first those that count from now on, then those that stop.
        """
        of_guest, of_host = self.pmu.el0_switched()
        cpu.burst.extend(self.pmu.el0_flips(of_guest, of_host) if guest else self.pmu.el0_flips(of_host, of_guest))

    async def set_counters(self, cpu: Cpu, mask: int, reschedule: bool) -> None:
        """Change cntr_mask; with `reschedule` as perf_pmu_resched_update does, between all out and all in."""
        if reschedule:
            await self._resched(cpu, self.task_ctx, ALL | CPU, counters=mask)
        else:
            self.pmu.cntr_mask = mask
