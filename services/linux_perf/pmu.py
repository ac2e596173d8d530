"""What perf_event_open asks of the PMU: does it have the event, and does its group fit?

drivers/perf/arm_pmu.c and arm_pmuv3.c.
"""

from __future__ import annotations

import errno

from services import events
from services.linux_perf.attr import EventAttr, State
from services.linux_perf.driver import Driver, counter_bits, paired_on
from services.linux_perf.event import HwEvent, PerfEvent
from services.registers import BR_RETIRED, CHAIN, CPU_CYCLES, CYCLE_BIT, PC_WRITE_RETIRED

_NAMES = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP"}  # which has two names here, and one in the kernel


class OpenError(Exception):
    """perf_event_open fails, with this errno and for this reason."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"{_NAMES[number]}: {reason}")
        self.number = number


def map_event(pmu: Driver, attr: EventAttr, task: bool = True) -> int:
    """armv8_pmuv3_map_event: the event number. A generic event has to be among those of PMCEID, a raw one does not.

    Raises OpenError.
    """
    event = attr.event
    if event == CHAIN:
        raise OpenError(errno.EINVAL, "CHAIN counts nothing without the counter below it")
    if attr.rdpmc:
        _check_user_access(pmu, attr, task)
    if not attr.generic or pmu.implements(event):
        return event
    name = events.architectural_name(event)
    if event != BR_RETIRED:
        raise OpenError(errno.ENOENT, f"the PMU has no {name} (PMCEID{event >> 5}_EL0)")
    if not pmu.implements(PC_WRITE_RETIRED):
        raise OpenError(errno.ENOENT, f"the PMU has neither {name} nor PC_WRITE_RETIRED (PMCEID0_EL0, PMCEID1_EL0)")
    return PC_WRITE_RETIRED


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


def validate_group(pmu: Driver, attr: EventAttr, hw: HwEvent, leader: PerfEvent | None) -> None:
    """validate_group: can the event be placed with the rest of its group on an empty PMU?

    Members that are OFF without enable_on_exec are not counted, though they will need a counter: with the leader that
    `perf stat -a` opens, one event too many is let in, and the group never runs. Raises OpenError.
    """
    members = [] if leader is None else [leader, *leader.siblings]
    placed = [(one.hw, one.state, one.attr) for one in members]
    used = 0
    for of, state, its in (*placed, (hw, State.OFF if attr.disabled else State.INACTIVE, attr)):
        if of.software or state < State.OFF or (state == State.OFF and not its.enable_on_exec):
            continue
        idx = pmu.index(of, pmu.cntr_mask & ~used)
        if idx < 0:
            raise OpenError(errno.EINVAL, _does_not_fit(pmu, 1 + len(members)))
        used |= counter_bits(idx, paired_on(of, idx))


def _does_not_fit(pmu: Driver, events: int) -> str:
    counters = f"{(pmu.cntr_mask & (CYCLE_BIT - 1)).bit_count()} event counters"
    if pmu.cntr_mask & CYCLE_BIT:
        counters += " and the cycle counter"
    return f"{f'a group of {events}' if events > 1 else 'it'} does not fit the PMU's {counters}"
