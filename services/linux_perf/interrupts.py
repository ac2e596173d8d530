"""The PMU interrupt and the tick: overflows, adaptation of frequency events, throttling."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.costs import Cost
from services.cpu import Cpu, Notice
from services.linux_perf.context import Context
from services.linux_perf.driver import paired
from services.linux_perf.event import MASK32, MASK64, THROTTLED, PerfEvent, signed64
from services.linux_perf.sampling import ACCUMULATED_SAMPLES, adapted_period
from services.linux_perf.schedule import ACTIVE, Scheduler
from services.registers import PMINTENSET_EL1, PMOVSCLR_EL0

if TYPE_CHECKING:
    from services.linux_perf.perf import Perf, PerfConfig

NS_PER_S = 1_000_000_000


class Interrupts(Scheduler):
    """What happens to events between two reschedules."""

    def __init__(self, perf: Perf, config: PerfConfig) -> None:
        super().__init__(perf, config)
        self.guest_mask = 0  # counters whose overflow flags are a guest's, not the host's
        self.split_irq = False  # partitioned v6 and later: KVM clears the guest's flags, after the host's events
        self.throttled_seq = 0  # perf_throttled_seq, one per tick
        self.throttled_count = 0  # perf_throttled_count, since the last tick
        self.running_sample_length = 0
        self.buffered = 0  # bytes written to the ring buffer since its reader was last woken
        self.wakeup_pending = False
        self.wakeup_raised = False  # its IPI is on the way

    # Starting and stopping an event that keeps its counter.

    async def _stop(self, cpu: Cpu, event: PerfEvent) -> None:
        """pmu.stop(PERF_EF_UPDATE)."""
        slot = cpu.burst.extend(self.pmu.stop_of(event))
        self._update(event, slot, await self.wait(cpu))

    def _update(self, event: PerfEvent, slot: int, values: list[int]) -> None:
        raw = values[slot]
        if paired(event, event.idx):
            raw = raw << 32 | values[slot + 1]
        event.account(raw)

    def _set_period(self, cpu: Cpu, event: PerfEvent) -> bool:
        """armpmu_event_set_period; whether a new period has begun."""
        renewed = event.renew_period()
        left = min(event.period_left, event.half)
        event.prev = -left
        self.pmu.write(cpu.burst, event, left)
        return renewed

    def _start(self, cpu: Cpu, event: PerfEvent) -> None:
        """pmu.start."""
        self._set_period(cpu, event)
        restart = event.restarts[event.idx]
        if restart is None:
            restart = event.restarts[event.idx] = self.pmu.enable(event, event.idx, None)
        cpu.burst.extend(restart)

    # The PMU interrupt.

    async def handle_irq(self, cpu: Cpu) -> bool:
        """armv8pmu_handle_irq; False if no overflow flag was set (IRQ_NONE).

        Flags in `guest_mask` are not the host's: they are posted as Notice.GUEST_OVERFLOW. KVM's counters that
        overflow are posted as Notice.COUNTER_OVERFLOW. A crossed ring-buffer watermark posts one IPI to this CPU
        after the handler (irq_work); `irq_work()` is what the SGI's handler calls.
        """
        pmu = self.pmu
        cpu.burst.charge(Cost.HOST_PMI, self.costs[Cost.HOST_PMI])
        if self.split_irq:
            flags = await self._own_flags(cpu)
        else:
            slot = cpu.burst.extend(pmu.clear_flags)
            flags = (await self.wait(cpu))[slot]
        if not flags:
            return False
        self._off(cpu.burst)
        pending = flags & pmu.cntr_mask & ~self.guest_mask
        while pending:
            idx = (pending & -pending).bit_length() - 1
            pending &= pending - 1
            event = pmu.events[idx]
            if event is None:
                continue
            slot = pmu.read(cpu.burst, idx, paired(event, idx))
            self._update(event, slot, await self.wait(cpu))
            if not self._set_period(cpu, event):
                continue
            if event.sampling and await self._overflow(cpu, event):
                cpu.burst.extend(pmu.disable_of(event))
        guest = flags & self.guest_mask
        if guest:
            if self.split_irq:
                cpu.burst.msr(PMOVSCLR_EL0, guest)
            cpu.burst.notify(Notice.GUEST_OVERFLOW, guest)
        self._pmu_start(cpu.burst)
        if self.wakeup_pending and not self.wakeup_raised:
            self.wakeup_raised = True
            cpu.burst.ipi(self.config.cpu)
        return True

    async def _own_flags(self, cpu: Cpu) -> int:
        """The flags that have their interrupt enabled, of which the host's are cleared (partitioned v6 to v8)."""
        flags_slot, enabled_slot = cpu.burst.mrs(PMOVSCLR_EL0), cpu.burst.mrs(PMINTENSET_EL1)
        cpu.burst.write_back(PMOVSCLR_EL0, flags_slot, MASK64 & ~self.guest_mask, 0)
        values = await self.wait(cpu)
        return values[flags_slot] & values[enabled_slot]

    async def _overflow(self, cpu: Cpu, event: PerfEvent) -> bool:
        """__perf_event_overflow; whether the event is to be throttled."""
        throttle = False
        if event.interrupts_seq != self.throttled_seq:
            event.interrupts_seq = self.throttled_seq
            event.interrupts = 1
        else:
            event.interrupts += 1
        if event.interrupts >= self.perf.limits.max_samples_per_tick:
            self.throttled_count += 1
            event.interrupts = THROTTLED
            throttle = True
        if event.frequency:
            now = self.now(cpu)
            elapsed = now - event.freq_time_stamp
            event.freq_time_stamp = now
            if 0 < elapsed < 2 * self.perf.tick_ns:
                await self._adjust_period(cpu, event, elapsed, event.last_period, stop=True)
        if event.is_kvm:
            await self._kvm_overflow(cpu, event)
        else:
            self._sample(cpu, event)
        return throttle

    def _sample(self, cpu: Cpu, event: PerfEvent) -> None:
        """perf_event_output: one record; the reader of the buffer is woken each time the watermark is crossed."""
        event.samples += 1
        cpu.burst.charge(Cost.SAMPLE, self.costs[Cost.SAMPLE])
        self.buffered += self.config.record_bytes
        if self.buffered >= self.config.watermark_bytes:
            self.buffered -= self.config.watermark_bytes
            self.wakeup_pending = True

    async def _kvm_overflow(self, cpu: Cpu, event: PerfEvent) -> None:
        """kvm_pmu_perf_overflow.

        As in the kernel the next period is taken from the *event's* count, not the guest's counter: right for
        a Linux guest, which rewrites its counter in the handler and so has the event made anew.
        """
        await self._stop(cpu, event)
        event.sample_period = signed64(-event.count & (MASK64 if event.attr.long else MASK32))
        event.sampling = event.sample_period != 0
        event.period_left = 0
        cpu.burst.notify(Notice.COUNTER_OVERFLOW, event.attr.handle)
        self._start(cpu, event)

    async def _adjust_period(self, cpu: Cpu, event: PerfEvent, ns: int, count: int, *, stop: bool) -> None:
        """perf_adjust_period: `count` occurrences took `ns`. With `stop` the event is running."""
        event.sample_period = adapted_period(event.sample_period, event.frequency, ns, count)
        if event.period_left > 8 * event.sample_period:
            if stop:
                await self._stop(cpu, event)
            event.period_left = 0
            if stop:
                self._start(cpu, event)

    def irq_work(self) -> bool:
        """perf_pending_irq: whether a reader of a ring buffer is to be woken."""
        woken = self.wakeup_pending
        self.wakeup_pending = self.wakeup_raised = False
        return woken

    def handler_took(self, start: int, end: int) -> None:
        """perf_sample_event_took, with the times in cycles between which handle_irq ran (Entry.previous_done)."""
        length = (end - start) * NS_PER_S // self.hz
        running = self.running_sample_length
        self.running_sample_length = running - running // ACCUMULATED_SAMPLES + length
        average = self.running_sample_length // ACCUMULATED_SAMPLES
        if average > self.perf.limits.allowed_ns:
            self.perf.limits.lower(average)

    # The tick.

    async def tick(self, cpu: Cpu) -> None:
        """perf_event_task_tick: frequency adjustment and unthrottling, CPU context, then the current task's."""
        self.throttled_seq += 1
        unthrottle, self.throttled_count = self.throttled_count > 0, 0
        await self._adjust_context(cpu, self.ctx, unthrottle)
        if self.task_ctx is not None:
            await self._adjust_context(cpu, self.task_ctx, unthrottle)

    async def _adjust_context(self, cpu: Cpu, ctx: Context, unthrottle: bool) -> None:
        """perf_adjust_freq_unthr_context."""
        leaders = ctx.pinned_active + ctx.flexible_active
        if not leaders:
            return
        if not unthrottle and not any(_has_frequency(leader) for leader in leaders):
            return
        self._off(cpu.burst)
        for event in leaders:  # only leaders: perf_adjust_freq_unthr_events walks the active groups
            await self._adjust_event(cpu, event)
        self._on(cpu.burst)

    async def _adjust_event(self, cpu: Cpu, event: PerfEvent) -> None:
        if event.interrupts == THROTTLED:
            event.interrupts = 0
            if not event.frequency:
                self._start(cpu, event)
        if not event.frequency:
            return
        await self._stop(cpu, event)
        delta = event.count - event.freq_count_stamp
        event.freq_count_stamp = event.count
        if delta > 0:
            await self._adjust_period(cpu, event, self.perf.tick_ns, delta, stop=False)
        self._start(cpu, event)


def _has_frequency(leader: PerfEvent) -> bool:
    return bool(leader.frequency) or any(event.frequency and event.state == ACTIVE for event in leader.siblings)
