"""Scheduling events onto the PMU: contexts in and out, the reschedule, rotation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services._pmu import Burst
from services.costs import Cost
from services.cpu import Cpu, Timer
from services.linux_perf.attr import State
from services.linux_perf.context import ALL, CPU, FLEXIBLE, PINNED, TIME, Context
from services.linux_perf.driver import CYCLE_BIT, GENERAL, Driver
from services.linux_perf.event import THROTTLED, PerfEvent

if TYPE_CHECKING:
    from services.linux_perf.perf import Perf, PerfConfig

ACTIVE, INACTIVE, OFF, ERROR = 1, 0, -1, -2  # attr.State as plain integers, for the loops below
assert (ACTIVE, INACTIVE, OFF, ERROR) == (State.ACTIVE, State.INACTIVE, State.OFF, State.ERROR)


class Scheduler:
    """Which events are on the PMU: `perf_cpu_context` and `perf_cpu_pmu_context` of one CPU.

    Within one reschedule all that goes out is posted, then one wait brings the counters' values, then all
    that goes in is posted. `_outs` are the events whose values are still to come. An event that does not count
    at EL2 stands still while a host's handler runs: if it goes out in the entry in which it went in, the counter has
    the value that was written, and nothing waits for it.
    """

    def __init__(self, perf: Perf, config: PerfConfig) -> None:
        self.perf = perf
        self.config = config
        self.costs = perf.costs
        self.hz = perf.frequency_hz
        self.pmu = Driver(config.pmuver, config.high_to_low, perf.costs)
        self.ctx = Context(None)
        self.task_ctx: Context | None = None  # of the current task, while it has events on this CPU
        self.current: int | None = None  # id of the task that runs
        self.pmuserenr_on_cpu = False  # a vCPU is loaded: PMUSERENR_EL0 is the guest's, KVM keeps the host's
        self.range_only = False  # PMCR_EL0.E is a guest's: the host's range stops and starts by MDCR_EL2.HPME
        self.mux_interval = config.mux_interval or max(1, 1000 // perf.hz) * perf.frequency_hz // 1000
        self.mux_active = False
        self.mux_expires = 0
        self._entry = 0  # counts entries, by their `settle`
        self._outs: list[PerfEvent] = []
        self._truths: list[tuple[PerfEvent, int, int]] = []  # event, slot, sign
        self._held: list[tuple[PerfEvent, int, int]] = []  # likewise, for what happens while it has a counter

    # Values and time.

    def now(self, cpu: Cpu) -> int:
        """perf_clock in ns, as of the entry or the last wait."""
        return cpu.now * 1_000_000_000 // self.hz

    def _update_time(self, cpu: Cpu, ctx: Context) -> None:
        """update_context_time of a context whose time runs."""
        if ctx.is_active & TIME:
            now = cpu.now * 1_000_000_000 // self.hz
            ctx.time += now - ctx.stamp
            ctx.stamp = now

    async def wait(self, cpu: Cpu) -> list[int]:
        """Have all that is posted executed, and account what was pending."""
        values = await cpu.wait()
        outs = self._outs
        if outs:
            for event in outs:
                raw = values[event.slot]
                if event.chained and event.idx < 31:
                    raw = raw << 32 | values[event.slot + 1]
                raw = (raw - event.prev) & event.mask
                event.count += raw
                event.period_left -= raw
            outs.clear()
        if self._truths:
            for event, slot, sign in self._truths:
                event.truth += sign * values[slot]
            self._truths.clear()
        if self._held:
            for event, slot, sign in self._held:
                event.held += sign * values[slot]
            self._held.clear()
        return values

    async def settle(self, cpu: Cpu) -> None:
        """The end of a handler: wait for and account the values that are pending, if any."""
        await self._collect(cpu)
        self._entry += 1

    async def _collect(self, cpu: Cpu) -> None:
        if self._outs or self._truths or self._held:
            await self.wait(cpu)

    def _truth_begins(self, burst: Burst, event: PerfEvent) -> None:
        if event.scope and event.wanted and not event.truth_open:
            event.truth_open = True
            self._truths.append((event, burst.truth(event.config, event.scope), -1))

    def _truth_ends(self, burst: Burst, event: PerfEvent) -> None:
        if event.truth_open:
            event.truth_open = False
            self._truths.append((event, burst.truth(event.config, event.scope), 1))

    # The PMU as a whole.

    def _off(self, burst: Burst) -> None:
        """perf_pmu_disable: the outermost one; callers do not nest."""
        burst.extend(self.pmu.off_range if self.range_only else self.pmu.off)

    def _on(self, burst: Burst) -> None:
        """perf_pmu_enable: nothing is switched on for no event."""
        if self.pmu.used:
            self._pmu_start(burst)

    def _pmu_start(self, burst: Burst) -> None:
        if self.range_only:
            burst.extend(self.pmu.on_range)
        else:
            burst.extend(self.pmu.on_vcpu if self.pmuserenr_on_cpu else self.pmu.on)

    # Events out and in.

    def _post_outs(self, burst: Burst, ctx: Context, active: list[PerfEvent]) -> None:
        """group_sched_out of every group in `active`."""
        time, entry = ctx.time, self._entry
        pmu = self.pmu
        used, events, extend, outs = pmu.used, pmu.events, burst.extend, self._outs
        for leader in active:
            leader.state = INACTIVE
            leader.running += time
            leader.slot = extend(leader.out)
            if leader.scope:
                self._held.append((leader, burst.truth(leader.config, leader.scope), 1))
            used ^= leader.bits
            events[leader.idx] = None
            if leader.placed != entry:
                outs.append(leader)
            if leader.siblings:
                pmu.used = used
                for event in leader.siblings:
                    self._post_out(burst, ctx, event)
                used = pmu.used
        active.clear()
        pmu.used = used

    def _post_out(self, burst: Burst, ctx: Context, event: PerfEvent) -> None:
        """event_sched_out of one event; its group's place in the active list is the caller's."""
        if event.state == ACTIVE:
            event.state = INACTIVE
            event.running += ctx.time
            event.slot = burst.extend(event.out)
            if event.scope:
                self._held.append((event, burst.truth(event.config, event.scope), 1))
            self.pmu.used ^= event.bits
            self.pmu.events[event.idx] = None
            if event.placed != self._entry:
                self._outs.append(event)

    def _post_in(self, burst: Burst, ctx: Context, event: PerfEvent) -> bool:
        """event_sched_in of one event; False if there is no counter for it."""
        if event.state <= OFF:
            return True
        if not self.pmu.allocate(event):
            return False
        if event.interrupts == THROTTLED:
            event.interrupts = 0
        if event.period_left <= 0:
            event.renew_period()
        left = min(event.period_left, event.half)
        event.prev = -left
        if event.scope:
            self._held.append((event, burst.truth(event.config, event.scope), -1))
        self.pmu.write(burst, event, left)
        idx = event.idx
        start = event.starts[idx]
        if start is None:
            start = event.starts[idx] = self.pmu.enable(event, idx, self.costs[Cost.EVENT_IN])
        burst.extend(start)
        event.out = self.pmu.out_of(event)
        if event.still:
            event.placed = self._entry
        event.state = ACTIVE
        event.running -= ctx.time
        return True

    def _post_group_in(self, burst: Burst, ctx: Context, leader: PerfEvent) -> bool:
        """group_sched_in: all of the group or, after those that fitted went out again, nothing."""
        if not self._post_in(burst, ctx, leader):
            return False
        for index, event in enumerate(leader.siblings):
            if not self._post_in(burst, ctx, event):
                for placed in leader.siblings[:index]:
                    self._post_out(burst, ctx, placed)
                self._post_out(burst, ctx, leader)
                return False
        return True

    def _post_ins(self, cpu: Cpu, ctx: Context, leaders: list[PerfEvent], active: list[PerfEvent]) -> None:
        """pmu_groups_sched_in with merge_sched_in: place the groups in order until one does not fit."""
        burst = cpu.burst
        time = ctx.time
        pmu = self.pmu
        mask, used, events = pmu.cntr_mask, pmu.used, pmu.events
        registers, write_masks, outs, high_to_low = pmu.registers, pmu.write_masks, pmu.outs, pmu.high_to_low
        msr, extend, entry = burst.msr, burst.extend, self._entry
        for event in leaders:
            if event.state < INACTIVE:
                continue
            if event.siblings or event.chained or event.on_pmicntr:
                pmu.used = used
                placed = self._post_group_in(burst, ctx, event)
                used = pmu.used
                if not placed:
                    break
                active.append(event)
                continue
            # What follows is _post_in of a lone event, open-coded: it runs millions of times.
            if event.on_pmccntr and mask & ~used & CYCLE_BIT:
                idx, bit = 31, CYCLE_BIT
            else:
                free = mask & ~used & GENERAL
                if not free:
                    break
                if high_to_low:
                    idx = free.bit_length() - 1
                    bit = 1 << idx
                else:
                    bit = free & -free
                    idx = bit.bit_length() - 1
            used |= bit
            event.idx = idx
            event.bits = bit
            events[idx] = event
            if event.interrupts == THROTTLED:
                event.interrupts = 0
            left = event.period_left
            if left <= 0:
                event.renew_period()
                left = event.period_left
            if left > event.half:
                left = event.half
            event.prev = -left
            if event.scope:
                self._held.append((event, burst.truth(event.config, event.scope), -1))
            msr(registers[idx], -left & write_masks[idx])
            start = event.starts[idx]
            if start is None:
                start = event.starts[idx] = pmu.enable(event, idx, self.costs[Cost.EVENT_IN])
            extend(start)
            event.out = outs[idx]
            if event.still:
                event.placed = entry
            event.state = ACTIVE
            event.running -= time
            active.append(event)
        else:
            pmu.used = used
            return
        pmu.used = used
        if active is ctx.flexible_active:
            ctx.rotate_necessary = True
            self._restart_mux(cpu)
        else:
            for event in leaders:  # none after the one that did not fit is tried
                if event.state == INACTIVE:
                    self._leave_enabled(event, ctx.time)
                    event.state = ERROR

    # Contexts.

    def _ctx_out(self, cpu: Cpu, ctx: Context, which: int) -> None:
        """ctx_sched_out of a context with events, with `which` of PINNED and FLEXIBLE."""
        self._update_time(cpu, ctx)
        before = ctx.is_active
        after = before & ~which
        if not after & ALL:
            after = 0
            if ctx.task is not None:
                self.task_ctx = None
        ctx.is_active = after
        changed = before ^ after
        if changed & PINNED and ctx.pinned_active:
            self._post_outs(cpu.burst, ctx, ctx.pinned_active)
        if changed & FLEXIBLE:
            if ctx.flexible_active:
                self._post_outs(cpu.burst, ctx, ctx.flexible_active)
            ctx.rotate_necessary = False

    def _ctx_in(self, cpu: Cpu, ctx: Context, which: int) -> None:
        """ctx_sched_in of a context with events."""
        before = ctx.is_active
        if not before & TIME:
            ctx.stamp = self.now(cpu)
        ctx.is_active = after = before | which | TIME
        if ctx.task is not None and not before & ALL:
            self.task_ctx = ctx
        changed = before ^ after
        if changed & PINNED and ctx.pinned:
            self._post_ins(cpu, ctx, ctx.pinned, ctx.pinned_active)
        if changed & FLEXIBLE and ctx.flexible:
            self._post_ins(cpu, ctx, ctx.flexible, ctx.flexible_active)

    def _sched_in(self, cpu: Cpu, task_ctx: Context | None) -> None:
        """perf_event_sched_in: CPU-pinned, task-pinned, CPU-flexible, task-flexible."""
        ctx = self.ctx if self.ctx.events else None
        if ctx is not None:
            self._ctx_in(cpu, ctx, PINNED)
        if task_ctx is not None:
            self._ctx_in(cpu, task_ctx, PINNED)
        if ctx is not None:
            self._ctx_in(cpu, ctx, FLEXIBLE)
        if task_ctx is not None:
            self._ctx_in(cpu, task_ctx, FLEXIBLE)

    async def _resched(self, cpu: Cpu, task_ctx: Context | None, which: int, counters: int | None = None) -> None:
        """ctx_resched with `which` of FLEXIBLE, PINNED and CPU.

        The contexts' time is frozen meanwhile (ctx_time_freeze): what goes out and in again has run on. With
        `counters`, cntr_mask becomes that between out and in.
        """
        if which & PINNED:
            which |= FLEXIBLE
        if counters is not None:
            cpu.burst.charge(Cost.PERF_RESCHED, self.costs[Cost.PERF_RESCHED])
        ctx = self.ctx
        self._off(cpu.burst)
        if task_ctx is not None and self.task_ctx is task_ctx:
            frozen = task_ctx.is_active & TIME
            self._ctx_out(cpu, task_ctx, which & ALL)
            task_ctx.is_active |= frozen
        if ctx.events and which & (CPU | PINNED):
            frozen = ctx.is_active & TIME
            self._ctx_out(cpu, ctx, which & ALL if which & CPU else FLEXIBLE)
            ctx.is_active |= frozen
        if self._outs:
            await self.wait(cpu)
        if counters is not None:
            self.pmu.cntr_mask = counters
        self._sched_in(cpu, task_ctx)
        self._on(cpu.burst)

    # Enabled times and states.

    def _enter_enabled(self, event: PerfEvent, time: int) -> None:
        """The event becomes INACTIVE: time_enabled runs, for siblings only with their leader."""
        event.state = INACTIVE
        self._start_enabled(event, time)

    def _start_enabled(self, event: PerfEvent, time: int) -> None:
        if event.leader.state >= INACTIVE and not event.timed:
            event.timed = True
            event.enabled -= time
        for sibling in event.siblings:
            if sibling.state >= INACTIVE and not sibling.timed:
                sibling.timed = True
                sibling.enabled -= time

    def _leave_enabled(self, event: PerfEvent, time: int) -> None:
        """The event falls below INACTIVE, and with a leader its siblings' time_enabled stops."""
        if event.timed:
            event.timed = False
            event.enabled += time
        for sibling in event.siblings:
            if sibling.timed:
                sibling.timed = False
                sibling.enabled += time

    # Rotation.

    def _restart_mux(self, cpu: Cpu) -> None:
        """perf_mux_hrtimer_restart."""
        if not self.mux_active:
            self.mux_active = True
            self._forward_mux(cpu)

    def _forward_mux(self, cpu: Cpu) -> None:
        """hrtimer_forward_now: whole intervals from the last expiry, which began at 0."""
        if self.mux_expires <= cpu.now:
            missed = (cpu.now - self.mux_expires) // self.mux_interval
            self.mux_expires += (missed + 1) * self.mux_interval
        cpu.burst.timer(Timer.MUX, self.mux_expires)

    async def mux_timer(self, cpu: Cpu) -> None:
        """perf_mux_hrtimer_handler: rotate, and re-arm Timer.MUX if there was something to rotate."""
        if await self._rotate(cpu):
            self._forward_mux(cpu)
        else:
            self.mux_active = False

    async def _rotate(self, cpu: Cpu) -> bool:
        """perf_rotate_context: the first flexible group goes last, and all flexible groups out and in."""
        ctx, task = self.ctx, self.task_ctx
        cpu_rotates = ctx.rotate_necessary
        task_rotates = task is not None and task.rotate_necessary
        if not cpu_rotates and not task_rotates:
            return False
        self._off(cpu.burst)
        cpu_event = _event_to_rotate(ctx) if cpu_rotates else None
        task_event = _event_to_rotate(task) if task is not None and task_rotates else None
        now = self.now(cpu)
        if task is not None and (task_event or cpu_event):
            task.update(now)
            self._post_outs(cpu.burst, task, task.flexible_active)
            task.rotate_necessary = False
        if cpu_event:
            ctx.update(now)
            self._post_outs(cpu.burst, ctx, ctx.flexible_active)
            ctx.rotate_necessary = False
        if self._outs:
            await self.wait(cpu)
        if cpu_event:
            ctx.flexible.remove(cpu_event)
            ctx.flexible.append(cpu_event)
            self._post_ins(cpu, ctx, ctx.flexible, ctx.flexible_active)
        if task is not None:
            if task_event:
                task.flexible.remove(task_event)
                task.flexible.append(task_event)
            if task_event or cpu_event:
                self._post_ins(cpu, task, task.flexible, task.flexible_active)
        self._on(cpu.burst)
        return True


def _event_to_rotate(ctx: Context) -> PerfEvent | None:
    """ctx_event_to_rotate: the first group on the PMU, or the first of all."""
    ctx.rotate_necessary = False
    if ctx.flexible_active:
        return ctx.flexible_active[0]
    return ctx.flexible[0] if ctx.flexible else None
