"""What bperf's BPF programs keep: the maps of tools/perf/util/bpf_skel's bperf_leader.bpf.c, bperf_follower.bpf.c."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.experiment import ANY_PMU
from services.linux_perf.attr import EventAttr
from services.linux_perf.event import PerfEvent
from services.state import link

ATTR_MAP_SIZE = 16  # attributes that /sys/fs/bpf/perf_attr_map has room for; none ever leaves it
NO_CPU = 1 << 31  # above every CPU's number


@dataclass(frozen=True, slots=True)
class Value:
    """`struct bpf_perf_event_value`: occurrences, and ns; of what happened, what the event held a counter for."""

    counter: int = 0
    enabled: int = 0
    running: int = 0
    held: int = 0

    def __add__(self, other: Value) -> Value:
        return Value(
            self.counter + other.counter,
            self.enabled + other.enabled,
            self.running + other.running,
            self.held + other.held,
        )

    def __sub__(self, other: Value) -> Value:
        return Value(
            self.counter - other.counter,
            self.enabled - other.enabled,
            self.running - other.running,
            self.held - other.held,
        )


NOTHING = Value()


_NONE = EventAttr(0)


@dataclass(slots=True, eq=False)
class Leader:
    """One attribute's entry in the attr map, and what it leads to while anybody follows. Maps are by CPU."""

    id: int
    attr: EventAttr = _NONE
    pmu: int = ANY_PMU  # that the attribute names
    links: int = 0  # sessions on a CPU that hold its bpf_link
    fails_on: int = NO_CPU  # the first CPU on which perf_event_open fails, and no further is tried
    why: str = ""  # it does
    events: dict[int, PerfEvent] = link(default_factory=dict)
    prev: dict[int, Value] = field(default_factory=dict)  # prev_readings
    diff: dict[int, Value] = field(default_factory=dict)  # diff_readings
    happened: dict[int, int] = field(default_factory=dict)  # of what its filters admit, when it last ran there


@dataclass(slots=True, eq=False)
class Follower:
    """What one event of a session accumulates on one CPU."""

    id: int
    cpu: int = 0
    of_tasks: bool = False  # BPERF_FILTER_TGID, BPERF_FILTER_PID: of `tasks`; else of the CPU, or of all
    tasks: list[int] = field(default_factory=list)
    enabled: bool = False
    sum: Value = NOTHING  # accum_readings
    truth: int = 0  # what really happened
    since: int = -1  # `Leader.happened` from when on it counts as this follower's; -1: it does not now
    leader: Leader = link(init=False)

    def follows(self, cpu: int, task: int | None) -> bool:
        """Does what ran on a CPU, in the task that is current, go to this one?"""
        return cpu == self.cpu and (task in self.tasks if self.of_tasks else True)
