"""The life of an event: what perf_event_open, ioctl, read and close do, and KVM's kernel counters likewise."""

from __future__ import annotations

from services._pmu import Burst
from services.costs import Cost
from services.cpu import Cpu
from services.linux_perf.attr import EventAttr
from services.linux_perf.context import CPU, FLEXIBLE, PINNED, Context
from services.linux_perf.driver import paired
from services.linux_perf.event import PerfEvent
from services.linux_perf.inherit import unclone
from services.linux_perf.interrupts import Interrupts
from services.linux_perf.schedule import ACTIVE, INACTIVE, OFF


class Events(Interrupts):
    """Events from `open` to `release`. `task` is a task's id, None: the CPU's own context."""

    def open(self, cpu: Cpu, attr: EventAttr, leader: PerfEvent | None = None) -> PerfEvent:
        """perf_event_alloc: the event exists; `install` makes it known to a context."""
        perf = self.perf
        event = self.make(perf.opened, attr)
        perf.events[event.id] = event
        perf.opened += 1
        if leader is not None:
            event.leader = leader
        if event.is_kvm:
            cost = self.costs[Cost.PERF_RELEASE_CREATE]
            cpu.burst.charge(Cost.PERF_RELEASE_CREATE, cost - cost // 2)
        return event

    def make(self, number: int, attr: EventAttr) -> PerfEvent:
        """An event as this CPU's driver sees it, not yet open."""
        config = self.config
        event = PerfEvent(number, attr, hyp=config.hyp, long_counters=self.pmu.long_counters, icntr=config.icntr)
        self.pmu.adopt(event)
        return event

    async def install(self, cpu: Cpu, event: PerfEvent, task: int | None) -> None:
        """perf_install_in_context: reschedules unless the event is disabled and not the context's first."""
        ctx = self.ctx if task is None else self.perf.tasks.setdefault(task, Context(task))
        here = task is None or task == self.current
        off = event.state <= OFF or event.leader.state <= OFF
        first = not ctx.events
        if here:
            self._update_time(cpu, ctx)
        self._add(event, ctx)
        if here:
            self._truth_begins(cpu.burst, event)
            if first or not off:
                await self._resched(cpu, self.task_ctx if task is None else ctx, event_type(event))

    def _add(self, event: PerfEvent, ctx: Context) -> None:
        """add_event_to_ctx."""
        event.ctx = ctx
        ctx.events.append(event)
        unclone(ctx)
        leader = event.leader
        if leader is event:
            _lists_of(ctx, event)[0].append(event)
        else:
            leader.siblings.append(event)
        if event.state >= INACTIVE:
            self._enter_enabled(event, ctx.time)

    def _here(self, ctx: Context) -> bool:
        return ctx is self.ctx or ctx is self.task_ctx

    async def enable(self, cpu: Cpu, event: PerfEvent) -> None:
        """perf_event_enable: reschedules the context; an event in ERROR gets another chance."""
        cpu.burst.charge(Cost.PERF_CALL, self.costs[Cost.PERF_CALL])
        ctx = event.ctx
        if ctx is None or event.state >= INACTIVE:
            return
        event.wanted = True
        here = self._here(ctx)
        if here:
            self._truth_begins(cpu.burst, event)
            self._update_time(cpu, ctx)
        self._enter_enabled(event, ctx.time)
        if here and (event.leader is event or event.leader.state == ACTIVE):
            await self._resched(cpu, self.task_ctx, event_type(event))

    async def disable(self, cpu: Cpu, event: PerfEvent) -> None:
        """perf_event_disable: the event's or group's bracket, no reschedule. The count is there after `settle`."""
        burst = cpu.burst
        burst.charge(Cost.PERF_CALL, self.costs[Cost.PERF_CALL])
        ctx = event.ctx
        if ctx is None:
            return
        if event.state >= INACTIVE:
            here = self._here(ctx)
            if here:
                self._off(burst)
                self._update_time(cpu, ctx)
                self._group_out(burst, ctx, event)
            self._leave_enabled(event, ctx.time)
            event.state = OFF
            if here:
                self._on(burst)
        event.wanted = False
        self._truth_ends(burst, event)

    def _group_out(self, burst: Burst, ctx: Context, event: PerfEvent) -> None:
        """group_sched_out of a leader, event_sched_out of a sibling."""
        if event.state != ACTIVE:
            return
        self._post_out(burst, ctx, event)
        if event.leader is event:
            _lists_of(ctx, event)[1].remove(event)
            for sibling in event.siblings:
                self._post_out(burst, ctx, sibling)

    async def read(self, cpu: Cpu, event: PerfEvent) -> int:
        """perf_event_read_value: the count since the event was opened, inherited events included.

        `event.times()` is up to date afterwards.
        """
        cpu.burst.charge(Cost.PERF_READ, self.costs[Cost.PERF_READ])
        await self._refresh(cpu, event)
        for child in event.children:
            await self._refresh(cpu, child)
        return event.count + event.child_count + sum(child.count for child in event.children)

    async def _refresh(self, cpu: Cpu, event: PerfEvent) -> None:
        """__perf_event_read: one counter read if the event is on this CPU's PMU."""
        if event.ctx is not None and self._here(event.ctx):
            self._update_time(cpu, event.ctx)
            if event.state == ACTIVE:
                slot = self.pmu.read(cpu.burst, event.idx, paired(event, event.idx))
                self._update(event, slot, await self.wait(cpu))
        await self._collect(cpu)

    async def truth(self, cpu: Cpu, event: PerfEvent) -> int:
        """What really happened up to now, where the event's filters admit it, while it was open and enabled."""
        total = event.child_truth
        for one in (event, *event.children):
            if one.truth_open:
                slot = cpu.burst.truth(one.config, one.scope)
                total += (await self.wait(cpu))[slot]
            else:
                await self._collect(cpu)
            total += one.truth
        return total

    async def held(self, cpu: Cpu, event: PerfEvent) -> int:
        """Of the truth, what happened while the event had a counter, whether that was running or not."""
        total = event.child_held
        for one in (event, *event.children):
            if one.state == ACTIVE and one.ctx is not None and self._here(one.ctx) and one.scope:
                slot = cpu.burst.truth(one.config, one.scope)
                total += (await self.wait(cpu))[slot]
            else:
                await self.settle(cpu)
            total += one.held
        return total

    async def release(self, cpu: Cpu, event: PerfEvent) -> None:
        """perf_event_release_kernel, inherited events included; the siblings of a leader become events of their own."""
        if event.is_kvm:
            cpu.burst.charge(Cost.PERF_RELEASE_CREATE, self.costs[Cost.PERF_RELEASE_CREATE] // 2)
        for one in (event, *event.children):
            self._detach(cpu, one)
            del self.perf.events[one.id]
        event.children = []
        await self._collect(cpu)

    def _detach(self, cpu: Cpu, event: PerfEvent) -> None:
        """perf_remove_from_context: a bracket of its own for an event that is on the PMU."""
        burst, ctx = cpu.burst, event.ctx
        if ctx is None:
            return
        if self._here(ctx):
            self._update_time(cpu, ctx)
        if event.state == ACTIVE:
            self._off(burst)
            self._post_out(burst, ctx, event)
            self._on(burst)
        self._leave_enabled(event, ctx.time)
        event.state = OFF
        event.wanted = False
        self._truth_ends(burst, event)
        self._remove(event, ctx)

    def _remove(self, event: PerfEvent, ctx: Context) -> None:
        """perf_group_detach and list_del_event."""
        leader = event.leader
        if leader is not event:
            leader.siblings.remove(event)
        else:
            groups, active = _lists_of(ctx, event)
            groups.remove(event)
            if event in active:
                active.remove(event)
            for sibling in event.siblings:
                sibling.leader = sibling
                groups, active = _lists_of(ctx, sibling)  # by its own attributes, not its late leader's
                groups.append(sibling)
                if sibling.state == ACTIVE:
                    active.append(sibling)
                if sibling.state >= INACTIVE:
                    self._start_enabled(sibling, ctx.time)
            event.siblings = []
        ctx.events.remove(event)
        unclone(ctx)
        event.ctx = None
        if not ctx.events:
            ctx.rotate_necessary = False
            ctx.is_active = 0
            if ctx is self.task_ctx:
                self.task_ctx = None


def _lists_of(ctx: Context, leader: PerfEvent) -> tuple[list[PerfEvent], list[PerfEvent]]:
    """The groups that `leader` is among, and those of them that are on the PMU."""
    if leader.attr.pinned:
        return ctx.pinned, ctx.pinned_active
    return ctx.flexible, ctx.flexible_active


def event_type(event: PerfEvent) -> int:
    """get_event_type: of the event's group."""
    kind = PINNED if event.leader.attr.pinned else FLEXIBLE
    assert event.ctx is not None
    return kind if event.ctx.task is not None else kind | CPU
