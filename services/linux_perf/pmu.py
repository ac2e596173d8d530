"""What perf_event_open asks of the PMU: does it have the event, and does its group fit?

drivers/perf/arm_pmu.c and arm_pmuv3.c.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace

from services import events
from services.linux_perf.attr import EventAttr, State
from services.linux_perf.driver import Driver, counter_bits, paired_on
from services.linux_perf.event import HwEvent
from services.linux_perf.software import event_init
from services.registers import (
    BR_RETIRED,
    CHAIN,
    CPU_CYCLES,
    CYCLE_BIT,
    PC_WRITE_RETIRED,
    PMUVER_NONE,
    counter_mask,
)

Member = tuple[HwEvent, int, EventAttr]  # of the group that an event is to join, the leader first

STALL_SLOTS = range(0x3D, 0x40)  # STALL_SLOT_BACKEND, STALL_SLOT_FRONTEND, STALL_SLOT

_NAMES = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP"}  # which has two names here, and one in the kernel


class OpenError(Exception):
    """perf_event_open fails, with this errno and for this reason."""

    def __init__(self, number: int, reason: str, event: str = "") -> None:
        """`event`: whose it was, with a colon, where that is not clear."""
        super().__init__(f"{event}{_NAMES[number]}: {reason}")
        self.number = number
        self.reason = reason


def admit(pmu: Driver, attr: EventAttr, group: Sequence[Member], *, of_task: bool) -> EventAttr:
    """armpmu_event_init, perf_swevent_init: what the PMU that is asked for makes of an event's attributes, and
    perf_event_open of their place in the group.

    It may be another CPU's: an event of a task is not of a CPU, and stands still where its PMU is not. Raises
    OpenError.
    """
    attr = event_init(attr) if attr.software else _event_init(pmu, attr, group, of_task)
    if group and (attr.pinned or attr.exclusive):
        raise OpenError(errno.EINVAL, "only the leader of a group can be pinned (D) or exclusive (e)")
    return attr


def _event_init(pmu: Driver, attr: EventAttr, group: Sequence[Member], of_task: bool) -> EventAttr:
    if pmu.pmuver in PMUVER_NONE:
        raise OpenError(errno.ENOENT, "the kernel finds no PMU")
    number = map_event(pmu, attr, of_task)
    if number != attr.event:
        attr = replace(attr, event=number)
    check_filter(attr)
    validate_group(pmu, attr, pmu.hw_event(attr), group)
    return attr


def map_event(pmu: Driver, attr: EventAttr, task: bool = True) -> int:
    """armv8_pmuv3_map_event: the event number. A generic event has to be among those of PMCEID, a raw one does not.

    Raises OpenError.
    """
    event = attr.event
    if event == CHAIN:
        raise OpenError(errno.EINVAL, "CHAIN counts nothing without the counter below it")
    if attr.rdpmc:
        _check_user_access(pmu, attr, task)
    if event == events.UNMAPPED:
        raise OpenError(errno.ENOENT, f"Arm's driver maps {attr.name} to no event of the PMU")
    if not attr.generic or pmu.implements(event):
        return event
    if event != BR_RETIRED:
        raise OpenError(errno.ENOENT, _lacks(pmu, event))
    if not pmu.implements(PC_WRITE_RETIRED):
        raise OpenError(errno.ENOENT, f"{_lacks(pmu, event)}; {_lacks(pmu, PC_WRITE_RETIRED)}")
    return PC_WRITE_RETIRED


def hidden(pmu: Driver, event: int) -> str:
    """armv8pmu_event_attr_is_visible: why sysfs does not have an event of the architecture; empty if it does."""
    if pmu.pmuver in PMUVER_NONE:
        return "the kernel finds no PMU"
    return "" if pmu.implements(event) else _lacks(pmu, event)


def _lacks(pmu: Driver, event: int) -> str:
    """A guest's kernel finds in PMCEID what KVM and the VM's filter leave of the core's (kvm_pmu_get_pmceid)."""
    why = ""
    if event in pmu.denied:
        why = ": the VM's filter denies it"
    elif not pmu.hyp:
        why = ": KVM hides it, or the core lacks it" if event in STALL_SLOTS else ": the core lacks it"
    return f"the PMU has no {events.architectural_name(event)} (PMCEID{event >> 5}_EL0){why}"


def _check_user_access(pmu: Driver, attr: EventAttr, task: bool) -> None:
    """armv8pmu_event_want_user_access: of a task's events, those that one counter can hold. Raises OpenError."""
    if not task:
        raise OpenError(errno.EINVAL, "rdpmc=1 is for an event of a task, not of a CPU")
    if attr.long and attr.event != CPU_CYCLES and not pmu.long_counters:
        raise OpenError(errno.EOPNOTSUPP, "rdpmc=1 with long=1 takes two counters chained on a PMU before PMUv3p5")


def check_filter(attr: EventAttr) -> None:
    """armv8pmu_set_event_filter. Raises OpenError."""
    if attr.exclude_idle:
        raise OpenError(errno.EOPNOTSUPP, "an Arm PMU cannot leave idle time out")


def validate_group(pmu: Driver, attr: EventAttr, hw: HwEvent, group: Sequence[Member]) -> None:
    """validate_group: can the event be placed with the rest of its group on an empty PMU?

    Members that are OFF without enable_on_exec are not counted, though they will need a counter: with the leader that
    `perf stat -a` opens, one event too many is let in, and the group never runs. Raises OpenError.
    """
    used = 0
    for of, state, its in (*group, (hw, state_of(attr), attr)):
        if of.software:
            continue
        if of.pmu != pmu.arm_pmu:
            raise OpenError(errno.EINVAL, "the group's leader is on another PMU")
        if state < State.OFF or (state == State.OFF and not its.enable_on_exec):
            continue
        idx = pmu.index(of, pmu.cntr_mask & ~used)
        if idx < 0:
            raise OpenError(errno.EINVAL, _does_not_fit(pmu, 1 + len(group)))
        used |= counter_bits(idx, paired_on(of, idx))


def state_of(attr: EventAttr) -> State:
    """Of an event that has just been opened."""
    return State.OFF if attr.disabled else State.INACTIVE


def _does_not_fit(pmu: Driver, events: int) -> str:
    counters = f"{(pmu.cntr_mask & (CYCLE_BIT - 1)).bit_count()} event counters"
    if pmu.cntr_mask & CYCLE_BIT:
        counters += " and the cycle counter"
    every = counter_mask(pmu.counters)
    withheld = every & ~pmu.cntr_mask
    theirs = f": {withheld.bit_count()} of {every.bit_count()} are the guests' range" if withheld else ""
    return f"{f'a group of {events}' if events > 1 else 'it'} does not fit the PMU's {counters}{theirs}"
