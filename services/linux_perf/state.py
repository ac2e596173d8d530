"""A kernel's perf as data, between entries: nothing of it lives in a suspended coroutine."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from services.linux_perf.attr import EventAttr, Overflow
from services.linux_perf.context import Context
from services.linux_perf.event import PerfEvent

if TYPE_CHECKING:
    from services.linux_perf.perf import Perf
    from services.linux_perf.perf_cpu import PerfCpu

CONTEXT_VALUES = ("task", "is_active", "rotate_necessary", "time", "stamp", "generation", "parent_generation")
CONTEXT_EVENTS = ("events", "pinned", "flexible", "pinned_active", "flexible_active")
CPU_VALUES = (
    "current",
    "pmuserenr_on_cpu",
    "range_only",
    "mux_active",
    "mux_expires",
    "guest_mask",
    "split_irq",
    "throttled_seq",
    "throttled_count",
    "running_sample_length",
    "buffered",
    "wakeup_pending",
    "wakeup_raised",
    "counters",
)


def save(perf: Perf) -> dict[str, Any]:
    """Contexts are numbered: the CPUs' first, then those of tasks and those that only events still name."""
    contexts = [cpu.ctx for cpu in perf.cpus]
    seen = {id(ctx) for ctx in contexts}
    named = [event.ctx for event in perf.events.values()]
    clones = [ctx.clone_of for ctx in perf.tasks.values()]
    for ctx in (*perf.tasks.values(), *named, *clones):
        if ctx is not None and id(ctx) not in seen:
            seen.add(id(ctx))
            contexts.append(ctx)
    number = {id(ctx): index for index, ctx in enumerate(contexts)}
    return {
        "frequency_hz": perf.frequency_hz,
        "hz": perf.hz,
        "costs": {cost.name.lower(): cycles for cost, cycles in perf.costs.items()},
        "configs": [dataclasses.asdict(cpu.config) for cpu in perf.cpus],
        "opened": perf.opened,
        "max_samples_per_tick": perf.limits.max_samples_per_tick,
        "allowed_ns": perf.limits.allowed_ns,
        "events": [_save_event(event, number) for event in perf.events.values()],
        "contexts": [_save_context(ctx, number) for ctx in contexts],
        "tasks": [[task, number[id(ctx)]] for task, ctx in perf.tasks.items()],
        "cpus": [_save_cpu(cpu, number) for cpu in perf.cpus],
    }


def load(perf: Perf, state: dict[str, Any]) -> None:
    """Into a `perf` with the same configuration and the same CPUs, none of them used yet."""
    perf.opened = state["opened"]
    perf.limits.max_samples_per_tick = state["max_samples_per_tick"]
    perf.limits.allowed_ns = state["allowed_ns"]
    contexts = [cpu.ctx for cpu in perf.cpus]
    contexts += [Context(None) for _ in state["contexts"][len(contexts) :]]
    for saved in state["events"]:
        attr = EventAttr(**{**saved["attr"], "overflow": Overflow(saved["attr"]["overflow"])})
        perf.events[saved["id"]] = perf.cpus[0].make(saved["id"], attr)
    for saved in state["events"]:
        _load_event(perf.events, saved, contexts)
    for ctx, saved in zip(contexts, state["contexts"], strict=True):
        _load_context(perf.events, ctx, saved, contexts)
    perf.tasks.update({task: contexts[index] for task, index in state["tasks"]})
    for cpu, saved in zip(perf.cpus, state["cpus"], strict=True):
        _load_cpu(perf.events, cpu, saved, contexts)


def _save_event(event: PerfEvent, number: dict[int, int]) -> dict[str, Any]:
    return {
        "id": event.id,
        "attr": dataclasses.asdict(event.attr),
        "values": event.values(),
        "sampling": event.sampling,
        "leader": event.leader.id,
        "siblings": [one.id for one in event.siblings],
        "parent": None if event.parent is None else event.parent.id,
        "children": [one.id for one in event.children],
        "ctx": None if event.ctx is None else number[id(event.ctx)],
    }


def _load_event(events: dict[int, PerfEvent], saved: dict[str, Any], contexts: list[Context]) -> None:
    event = events[saved["id"]]
    event.load_values(saved["values"])
    event.sampling = saved["sampling"]
    event.leader = events[saved["leader"]]
    event.siblings = [events[one] for one in saved["siblings"]]
    event.parent = None if saved["parent"] is None else events[saved["parent"]]
    event.children = [events[one] for one in saved["children"]]
    event.ctx = None if saved["ctx"] is None else contexts[saved["ctx"]]


def _save_context(ctx: Context, number: dict[int, int]) -> dict[str, Any]:
    saved: dict[str, Any] = {name: getattr(ctx, name) for name in CONTEXT_VALUES}
    saved.update({name: [event.id for event in getattr(ctx, name)] for name in CONTEXT_EVENTS})
    saved["clone_of"] = None if ctx.clone_of is None else number.get(id(ctx.clone_of))
    return saved


def _load_context(events: dict[int, PerfEvent], ctx: Context, saved: dict[str, Any], contexts: list[Context]) -> None:
    for name in CONTEXT_VALUES:
        setattr(ctx, name, saved[name])
    for name in CONTEXT_EVENTS:
        setattr(ctx, name, [events[one] for one in saved[name]])
    ctx.clone_of = None if saved["clone_of"] is None else contexts[saved["clone_of"]]


def _save_cpu(cpu: PerfCpu, number: dict[int, int]) -> dict[str, Any]:
    saved: dict[str, Any] = {name: getattr(cpu, name) for name in CPU_VALUES}
    saved["task_ctx"] = None if cpu.task_ctx is None else number[id(cpu.task_ctx)]
    saved["cntr_mask"], saved["used"] = cpu.pmu.cntr_mask, cpu.pmu.used
    saved["on_counters"] = [None if event is None else event.id for event in cpu.pmu.events]
    return saved


def _load_cpu(events: dict[int, PerfEvent], cpu: PerfCpu, saved: dict[str, Any], contexts: list[Context]) -> None:
    for name in CPU_VALUES:
        setattr(cpu, name, saved[name])
    cpu.task_ctx = None if saved["task_ctx"] is None else contexts[saved["task_ctx"]]
    cpu.pmu.cntr_mask, cpu.pmu.used = saved["cntr_mask"], saved["used"]
    cpu.pmu.events = [None if one is None else events[one] for one in saved["on_counters"]]
    for event in cpu.pmu.events:
        if event is not None:
            event.out = cpu.pmu.out_of(event)
