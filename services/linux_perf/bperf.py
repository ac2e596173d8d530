"""`perf stat` with the modifier `b`: one event of each CPU for all sessions, which BPF programs read (bperf).

tools/perf/util/bpf_counter.c, and bperf_leader.bpf.c and bperf_follower.bpf.c beside it (Linux 6.12). Sessions with the
same perf_event_attr find each other in a map of attributes. The first has the leader's event opened on every CPU, the
last that goes has them closed. The leader's program is on sched_switch: it reads the event there, and of each session
the follower's program behind it adds what the event has grown by if that is of its task or its CPU.

What other CPUs have to do, they do by an IPI (smp_call_function_single), which nobody waits for here. Functions over a
`CpuContext`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import replace

from services.cpu import ContextLock, Cpu
from services.experiment import ANY_PMU
from services.linux_perf import software
from services.linux_perf.attr import EventAttr
from services.linux_perf.bpf_maps import ATTR_MAP_SIZE, NO_CPU, NOTHING, Follower, Leader, Value
from services.linux_perf.cpu_context import CpuContext
from services.linux_perf.driver import read_of
from services.linux_perf.event import ACTIVE, PerfEvent
from services.linux_perf.lifecycle import install, open_event, release, update
from services.linux_perf.pmu import OpenError, admit
from services.linux_perf.reading import Reading
from services.linux_perf.schedule import ctx_lock, update_time, wait

OPEN, CLOSE, READ = range(3)  # what a CPU is called for: of a leader, of an event, of a leader, by its id


# A session's part.


async def follow(
    cc: CpuContext, cpu: Cpu, attr: EventAttr, pmu: int, tasks: Sequence[int] | None, *, triggers: bool
) -> Follower:
    """bperf__load: the leader of these attributes, made if nobody follows it, and a follower, yet to be enabled.

    `pmu`: that the event names, or ANY_PMU. `tasks`: those to follow; None: this CPU. `triggers`: of the session's
    process this is the CPU that has the leader read once on CPU 0. Raises OpenError.
    """
    shared = cc.shared
    attr = replace(attr, name="", frequency=0, period=0, disabled=False, enable_on_exec=False, inherit=False)
    leader = next((one for one in shared.leaders if (one.attr, one.pmu) == (attr, pmu)), None)
    if leader is None:
        if len(shared.leaders) == ATTR_MAP_SIZE:
            raise OpenError(errno.E2BIG, f"bperf's map has no room for more than {ATTR_MAP_SIZE} attributes")
        leader = Leader(len(shared.leaders), attr, pmu)
        shared.leaders.append(leader)
    if not leader.links:
        await _reload(cc, cpu, leader)
    leader.links += 1
    if triggers:
        await _on_each(cc, cpu, [leader], [min(shared.online)])
    follower = Follower(shared.followed, cc.config.cpu, tasks is not None, [*(tasks or ())])
    follower.leader = leader
    shared.followed += 1
    shared.followers.append(follower)
    return follower


async def enable(cc: CpuContext, cpu: Cpu, follower: Follower) -> None:
    """bperf__enable. The next reading brings all that has happened since the last, before this, too."""
    follower.enabled = True
    if follower.follows(cc.config.cpu, cc.current):
        follower.since = await _happened(cc, cpu, follower.leader)


async def disable(cc: CpuContext, cpu: Cpu, follower: Follower) -> None:
    """bperf__disable. What has happened since the last reading will never be added."""
    follower.enabled = False
    if follower.since >= 0:
        follower.truth += await _happened(cc, cpu, follower.leader) - follower.since
        follower.since = -1


async def sync(cc: CpuContext, cpu: Cpu, followers: Iterable[Follower], others: Iterable[int]) -> None:
    """bperf_sync_counters: the leaders are read here and on the `others` (BPF_PROG_TEST_RUN)."""
    leaders = list(dict.fromkeys(follower.leader for follower in followers))
    await _on_each(cc, cpu, leaders, [cc.config.cpu, *others])


async def read(cc: CpuContext, cpu: Cpu, follower: Follower) -> Reading:
    """bperf__read of what the follower has, without a reading of the leader."""
    found, truth = follower.sum, follower.truth
    if follower.since >= 0:
        truth += await _happened(cc, cpu, follower.leader) - follower.since
    return Reading(found.counter, truth, found.held, 0, found.enabled, found.running)


async def leave(cc: CpuContext, cpu: Cpu, follower: Follower) -> None:
    """bperf__destroy: without a link the leader's program and maps are gone, and with them its events."""
    leader, here = follower.leader, cc.config.cpu
    cc.shared.followers.remove(follower)
    leader.links -= 1
    if leader.links:
        return
    events, leader.events = leader.events, {}
    for number, event in events.items():
        if number == here:
            await release(cc, cpu, event)
        elif number in cc.shared.online:
            _call(cc, cpu, number, CLOSE, event.id)
        else:
            del cc.shared.events[event.id]  # perf_event_exit_cpu has taken it off


# The leader's.


async def _reload(cc: CpuContext, cpu: Cpu, leader: Leader) -> None:
    """bperf_reload_leader_program. That evsel__open_per_cpu may fail it does not look at: where it has not got, there
    is nothing to read."""
    for of_cpu in (leader.prev, leader.diff, leader.happened):
        of_cpu.clear()
    leader.fails_on, leader.why = _fails_on(cc, leader)
    for number in sorted(cc.shared.online):
        if number >= leader.fails_on:
            break
        if number == cc.config.cpu:
            await _open_here(cc, cpu, leader)
        else:
            _call(cc, cpu, number, OPEN, leader.id)


def _fails_on(cc: CpuContext, leader: Leader) -> tuple[int, str]:
    """The first CPU for which perf_event_open fails, and why; NO_CPU and nothing if it does for none."""
    for number, pmu in sorted(cc.shared.covers.items()):
        try:
            if leader.pmu not in (ANY_PMU, pmu):
                raise OpenError(errno.ENOENT, f"the event's PMU does not cover CPU {number}")
            admit(cc.shared.drivers.get(number, cc.shared.pmus[pmu]), leader.attr, (), of_task=False)
        except OpenError as error:
            return number, str(error)
    return NO_CPU, ""


async def _open_here(cc: CpuContext, cpu: Cpu, leader: Leader) -> None:
    """perf_event_open of the leader's event on this CPU, enabled, and bpf_map_update_elem of it (bperf__install_pe).

    It may fail where it did not when all were looked at: a CPU that has booted since, or a guest that has been loaded,
    has left the host no counter.
    """
    try:
        event = open_event(cc, leader.attr, of_task=False)
    except OpenError as error:
        leader.fails_on, leader.why = cc.config.cpu, str(error)
        return
    leader.events[cc.config.cpu] = event
    await install(cc, cpu, event, None)


async def booted(cc: CpuContext, cpu: Cpu) -> None:
    """This CPU has the leaders, too, that sessions on those before it have brought."""
    cc.shared.online.append(cc.config.cpu)
    for leader in cc.shared.leaders:
        if leader.links and cc.config.cpu < leader.fails_on:
            await _open_here(cc, cpu, leader)


def cpu_online(cc: CpuContext, *, online: bool) -> None:
    """A CPU that comes back is in the map of those online, but nobody opens the leaders there again."""
    if online:
        cc.shared.online.append(cc.config.cpu)
    else:
        cc.shared.online.remove(cc.config.cpu)


async def on_switch(cc: CpuContext, cpu: Cpu, task: int | None) -> None:
    """The programs on sched_switch. `task` is still current, None: the idle task."""
    await _run(cc, cpu, [leader for leader in cc.shared.leaders if leader.links], task, leaves=True)


def switched_in(cc: CpuContext, task: int) -> None:
    """What happens from the last reading on is this task's."""
    here = cc.config.cpu
    for follower in cc.shared.followers:
        if follower.of_tasks and follower.enabled and follower.follows(here, task):
            follower.since = follower.leader.happened.get(here, -1)


async def _on_each(cc: CpuContext, cpu: Cpu, leaders: Sequence[Leader], cpus: Iterable[int]) -> None:
    for number in cpus:
        if number == cc.config.cpu:
            await _run(cc, cpu, leaders, cc.current, leaves=False)
        else:
            for leader in leaders:
                _call(cc, cpu, number, READ, leader.id)


async def _run(cc: CpuContext, cpu: Cpu, leaders: Sequence[Leader], task: int | None, *, leaves: bool) -> None:
    """The leaders' programs one after the other, and each one's followers. `leaves`: the task is about to.

    A program that cannot read its event leaves diff_readings as they are, and the followers add them once more.
    """
    here, burst = cc.config.cpu, cpu.burst
    update_time(cc, cpu, cc.ctx)
    slots = []
    for leader in leaders:
        burst.extend(cc.pmu.read)
        event = leader.events.get(here)
        slots.append((_counter_slot(cpu, event), _truth_slot(cpu, event)))
    values = await wait(cc, cpu)
    update_time(cc, cpu, cc.ctx)
    for leader, (counter, truth) in zip(leaders, slots, strict=True):
        event = leader.events.get(here)
        if event is not None:
            _read_local(cc, cpu, leader, event, counter, values, 0 if truth is None else values[truth])
        for follower in cc.shared.followers:
            if follower.leader is leader and follower.enabled and follower.follows(here, task):
                _accumulate(follower, leader.diff.get(here, NOTHING), leader.happened.get(here, -1), leaves=leaves)


def _counter_slot(cpu: Cpu, event: PerfEvent | None) -> int | None:
    return None if event is None or event.hw.software or event.state != ACTIVE else read_of(cpu.burst, event)


def _truth_slot(cpu: Cpu, event: PerfEvent | None) -> int | None:
    return None if event is None or not event.hw.scope else cpu.burst.truth(event.hw.config, event.hw.scope)


def _read_local(
    cc: CpuContext, cpu: Cpu, leader: Leader, event: PerfEvent, counter: int | None, values: list[int], truth: int
) -> None:
    """perf_event_read_local, as bpf_perf_event_read_value has it. A pinned event that has no counter is EBUSY."""
    here = cc.config.cpu
    if event.hw.software and event.state == ACTIVE:
        software.read(cc, cpu, event)
    if counter is not None:
        update(event, counter, values)
    happened = software.truth(event) if event.hw.software else truth
    leader.happened[here] = happened
    if event.attr.pinned and event.state != ACTIVE:
        return
    held = event.count if event.hw.software else event.held + (happened if event.state == ACTIVE else 0)
    now = Value(event.count, *event.times(), held)
    leader.diff[here] = now - leader.prev.get(here, NOTHING)
    leader.prev[here] = now


def _accumulate(follower: Follower, diff: Value, happened: int, *, leaves: bool) -> None:
    follower.sum += diff
    if follower.since >= 0:
        follower.truth += happened - follower.since
    follower.since = -1 if leaves and follower.of_tasks else happened


async def _happened(cc: CpuContext, cpu: Cpu, leader: Leader) -> int:
    """What has happened so far of what the leader's event counts here; -1 where there is none."""
    event = leader.events.get(cc.config.cpu)
    if event is None:
        return -1
    slot = _truth_slot(cpu, event)
    values = await wait(cc, cpu)
    if event.hw.software:
        update_time(cc, cpu, cc.ctx)
        return software.truth(event)
    return 0 if slot is None else values[slot]


# Calls between CPUs.


def _call(cc: CpuContext, cpu: Cpu, other: int, what: int, number: int) -> None:
    cc.shared.calls.setdefault(other, []).append((what, number))
    cpu.burst.ipi(other)


async def called(cc: CpuContext, cpu: Cpu) -> None:
    """generic_smp_call_function_interrupt: what other CPUs have called this one for."""
    shared = cc.shared
    for what, number in shared.calls.pop(cc.config.cpu, ()):
        if what != READ:
            await ctx_lock(cc, cpu, ContextLock.IPI)
        if what == CLOSE:
            await release(cc, cpu, shared.events[number])
            continue
        leader = shared.leaders[number]
        if not leader.links:  # since it was called
            continue
        if what == OPEN:
            if cc.config.cpu not in leader.events and cc.config.cpu < leader.fails_on:  # not by an earlier call
                await _open_here(cc, cpu, leader)
        else:
            await _run(cc, cpu, [leader], cc.current, leaves=False)
