"""What a kernel's perf tells whoever observes the machine: which event is open, and on which counter.

`Burst.note` takes no time and is in no log, so a run is the same with it or without. Where nobody observes
(`PerfConfig.observed`) nothing is posted: callers ask, as some of them run by the million.
"""

from __future__ import annotations

from collections.abc import Iterable

from services._pmu import (
    NOTE_EVENT_CLOSED,
    NOTE_EVENT_COUNT,
    NOTE_EVENT_DISABLED,
    NOTE_EVENT_ENABLED,
    NOTE_EVENT_ERROR,
    NOTE_EVENT_GROUP,
    NOTE_EVENT_OFF,
    NOTE_EVENT_ON,
    NOTE_EVENT_OPEN,
    NOTE_EVENT_READ,
    NOTE_EVENT_TIME_ENABLED,
    NOTE_EVENT_TIME_RUNNING,
    Burst,
)
from services.linux_perf.attr import EventAttr
from services.linux_perf.event import INACTIVE, PerfEvent
from services.registers import MASK64

# Attributes in a note, above the event number.
EXCLUDE_USER, EXCLUDE_KERNEL, EXCLUDE_HOST, EXCLUDE_GUEST, PINNED, LONG, SAMPLING, OF_TASK, OF_KVM, ENABLED = (
    1 << 16 + bit for bit in range(10)
)
ID_SHIFT = 32  # of an event, where its attributes or another event are below
COUNTER_SHIFT = 8  # of an event, where its counter is below


def opened(burst: Burst, event: PerfEvent) -> None:
    """It is in a context from now on."""
    if event.hw.software:
        return
    noted = _of_hw(event)
    if event.sampling:
        noted |= SAMPLING
    if event.ctx is not None and event.ctx.task is not None:
        noted |= OF_TASK
    if event.handle >= 0:  # `is_kvm`, as KVM opens them by the million
        noted |= OF_KVM
    if event.state >= INACTIVE:
        noted |= ENABLED
    burst.note(NOTE_EVENT_OPEN, event.id << ID_SHIFT | noted)
    if event.leader is not event:
        burst.note(NOTE_EVENT_GROUP, event.id << ID_SHIFT | event.leader.id)


def recreated(burst: Burst, before: int, event: PerfEvent) -> None:
    """`closed` of the kernel counter with the id that it had `before`, and `opened` of what it is now: disabled."""
    burst.note(NOTE_EVENT_CLOSED, before)
    sampling = SAMPLING if event.sampling else 0
    burst.note(NOTE_EVENT_OPEN, event.id << ID_SHIFT | _of_hw(event) | sampling | OF_TASK | OF_KVM)


def _of_hw(event: PerfEvent) -> int:
    """What is noted of all events of its kind."""
    hw = event.hw
    if hw.noted < 0:
        hw.noted = hw.config | _attributes(event.attr)
    return hw.noted


def _attributes(attr: EventAttr) -> int:
    noted = 0
    for is_so, bit in (
        (attr.exclude_user, EXCLUDE_USER),
        (attr.exclude_kernel, EXCLUDE_KERNEL),
        (attr.exclude_host, EXCLUDE_HOST),
        (attr.exclude_guest, EXCLUDE_GUEST),
        (attr.pinned, PINNED),
        (attr.long, LONG),
    ):
        if is_so:
            noted |= bit
    return noted


def closed(burst: Burst, event: PerfEvent) -> None:
    burst.note(NOTE_EVENT_CLOSED, event.id)


def enabled(burst: Burst, event: PerfEvent) -> None:
    """Of an event of a user's: KVM's are enabled while they have a counter, or wait for their vCPU."""
    burst.note(NOTE_EVENT_ENABLED, event.id)


def disabled(burst: Burst, event: PerfEvent) -> None:
    burst.note(NOTE_EVENT_DISABLED, event.id)


def in_error(burst: Burst, event: PerfEvent) -> None:
    burst.note(NOTE_EVENT_ERROR, event.id)


def on_counter(burst: Burst, event: PerfEvent) -> None:
    """It has a counter, of a pair the upper one; before that is written."""
    burst.note(NOTE_EVENT_ON, event.id << COUNTER_SHIFT | event.idx)


def on_counters(burst: Burst, events: Iterable[PerfEvent]) -> None:
    burst.note_each(NOTE_EVENT_ON, [event.id << COUNTER_SHIFT | event.idx for event in events])


def off_counters(burst: Burst, events: Iterable[PerfEvent]) -> None:
    burst.note_each(NOTE_EVENT_OFF, [event.id << COUNTER_SHIFT | event.idx for event in events])


def off_counter(burst: Burst, event: PerfEvent) -> None:
    """After its counter has been read."""
    burst.note(NOTE_EVENT_OFF, event.id << COUNTER_SHIFT | event.idx)


def read(burst: Burst, event: PerfEvent) -> None:
    """What a read of it finds: its own count, and its own times, which KVM does not ask for."""
    burst.note(NOTE_EVENT_READ, event.id)
    if event.hw.reported:
        enabled, running = event.own_times()
        burst.note(NOTE_EVENT_TIME_ENABLED, enabled & MASK64)
        burst.note(NOTE_EVENT_TIME_RUNNING, running & MASK64)
    burst.note(NOTE_EVENT_COUNT, event.count & MASK64)
