"""Inherited events: what fork and exit do, and the switch between tasks whose contexts are clones."""

from __future__ import annotations

from services.linux_perf.context import Context
from services.linux_perf.event import PerfEvent
from services.linux_perf.schedule import INACTIVE, OFF


def equivalent(one: Context, other: Context) -> bool:
    """context_equiv: unmodified clones of each other or of the same context."""
    if one is other.clone_of:
        return one.generation == other.parent_generation
    if other is one.clone_of:
        return other.generation == one.parent_generation
    return (
        one.clone_of is not None and one.clone_of is other.clone_of and one.parent_generation == other.parent_generation
    )


def swap(tasks: dict[int, Context], running: Context, following: Context) -> None:
    """The next task takes over the context that is on the PMU: no event is touched."""
    assert running.task is not None
    assert following.task is not None
    running.task, following.task = following.task, running.task
    tasks[running.task] = running
    tasks[following.task] = following


def clone(parent: Context, child: Context) -> None:
    """Record that `child` is an unmodified copy; the hierarchy is flat."""
    if parent.clone_of is not None:
        child.clone_of, child.parent_generation = parent.clone_of, parent.parent_generation
    else:
        child.clone_of, child.parent_generation = parent, parent.generation


def unclone(ctx: Context) -> None:
    """unclone_ctx: the context has been changed and is nobody's copy any more."""
    ctx.clone_of = None
    ctx.generation += 1


def inherited(event: PerfEvent, parent: PerfEvent) -> None:
    """inherit_event: what a new event takes over from the one it is inherited from."""
    origin = parent.parent or parent
    event.parent = origin
    origin.children.append(event)
    event.state = INACTIVE if parent.state >= INACTIVE else OFF
    event.wanted = parent.wanted
    event.sample_period = event.last_period = event.period_left = parent.sample_period


def exit_child(events: dict[int, PerfEvent], event: PerfEvent) -> None:
    """sync_child_event: an inherited event adds its result to its parent's and is gone."""
    parent = event.parent
    assert parent is not None
    enabled, running = event.times()
    parent.child_count += event.count
    parent.child_enabled += enabled
    parent.child_running += running
    parent.child_samples += event.samples
    parent.child_truth += event.truth
    parent.child_held += event.held
    parent.children.remove(event)
    del events[event.id]
