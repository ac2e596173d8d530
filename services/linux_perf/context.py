"""The events of a CPU or of a task: `struct perf_event_context`, with the one PMU's part of it."""

from __future__ import annotations

from services.linux_perf.event import PerfEvent

# enum event_type_t
FLEXIBLE = 1
PINNED = 2
TIME = 4
CPU = 8
ALL = FLEXIBLE | PINNED


class Context:
    """Events that are scheduled together. `task` is its task's id, None for a CPU's own context."""

    __slots__ = (
        "clone_of",
        "events",
        "flexible",
        "flexible_active",
        "generation",
        "is_active",
        "parent_generation",
        "pinned",
        "pinned_active",
        "rotate_necessary",
        "stamp",
        "task",
        "time",
    )

    def __init__(self, task: int | None) -> None:
        self.task = task
        self.events: list[PerfEvent] = []  # all that are installed, in order of installation
        self.pinned: list[PerfEvent] = []  # group leaders, in the order in which they are tried
        self.flexible: list[PerfEvent] = []
        self.pinned_active: list[PerfEvent] = []  # group leaders on the PMU, in the order in which they went on
        self.flexible_active: list[PerfEvent] = []
        self.is_active = 0
        self.rotate_necessary = False
        self.time = 0  # ns, passes only while the context is active
        self.stamp = 0  # ns of the CPU's clock at the last update of `time`
        # Inheritance: contexts that are unmodified clones of one another need no PMU access at a task switch.
        self.clone_of: Context | None = None
        self.generation = 0
        self.parent_generation = 0

    def update(self, now: int) -> None:
        """update_context_time."""
        self.time += now - self.stamp
        self.stamp = now
