"""One `perf stat` or `perf record`: the events that the tool opens, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from services.cpu import Cpu
from services.experiment import EventSpec, SessionSpec
from services.linux_perf.attr import EventAttr
from services.linux_perf.event import PerfEvent
from services.linux_perf.perf import PerfCpu
from services.state import Objects, Saved, as_frozen, derived, link, restore

Result = dict[str, Any]


@dataclass(slots=True, eq=False)
class Session:
    """The events of one session on one CPU: of a task, or with `task` None of the CPU (`-a`).

    As the tool does it, a frequency above the kernel's present perf_event_max_sample_rate is lowered to that
    (record_opts__config_freq), and group leaders are opened disabled and their siblings enabled. A task that is yet
    to exec (`on_exec`) enables them there; otherwise the tool enables each leader when all are open.
    """

    spec: SessionSpec
    task: int | None
    perf: PerfCpu = derived()
    on_exec: bool = False
    events: list[PerfEvent] = link(default_factory=list)
    closed: list[Result] | None = None  # what was reported at the end

    async def open(self, cpu: Cpu) -> None:
        """perf_event_open of every event and, unless an exec is to come, ioctl(ENABLE) of every leader."""
        for index, spec in enumerate(self.spec.events):
            leader = None if spec.leader == index else self.events[spec.leader]
            attr = EventAttr.of_spec(
                replace(spec, frequency=min(spec.frequency, self.perf.shared.limits.max_sample_rate)),
                disabled=leader is None,
                enable_on_exec=leader is None and self.on_exec,
                inherit=self.task is not None,
            )
            event = self.perf.open(attr, leader)
            self.events.append(event)
            await self.perf.install(cpu, event, self.task)
        if not self.on_exec:
            for event in self._leaders():
                await self.perf.enable(cpu, event)
        await self.perf.settle(cpu)

    async def close(self, cpu: Cpu) -> None:
        """ioctl(DISABLE) of every leader, read, close."""
        if self.closed is not None:
            return
        for event in self._leaders():
            self.perf.disable(cpu, event)
        self.closed = [await self._result(cpu, event) for event in self.events]
        for event in self.events:
            await self.perf.release(cpu, event)
        self.events = []

    async def report(self, cpu: Cpu) -> Result:
        """Results so far: counts and truth in occurrences, times in ns."""
        if self.closed is not None:
            return {"name": self.spec.name, "verb": self.spec.verb, "events": self.closed}
        return {
            "name": self.spec.name,
            "verb": self.spec.verb,
            "events": [await self._result(cpu, event) for event in self.events],
        }

    @classmethod
    def restored(cls, perf: PerfCpu, saved: Saved, objects: Objects) -> Session:
        """The session that was saved; `objects` has the events of its perf."""
        session = cls(as_frozen(SessionSpec, saved["spec"]), saved["task"], perf)
        restore(session, saved, objects)
        return session

    def _leaders(self) -> list[PerfEvent]:
        return [event for event, spec, index in self._numbered() if spec.leader == index]

    def _numbered(self) -> list[tuple[PerfEvent, EventSpec, int]]:
        return [(event, self.spec.events[index], index) for index, event in enumerate(self.events)]

    async def _result(self, cpu: Cpu, event: PerfEvent) -> Result:
        count = await self.perf.read(cpu, event)
        enabled, running = event.times()
        return {
            "name": event.attr.name,
            "count": count,
            "truth": await self.perf.truth(cpu, event),
            "held": await self.perf.held(cpu, event),
            "enabled": enabled,
            "running": running,
            "samples": event.samples + event.child_samples + sum(child.samples for child in event.children),
            "state": event.state,
            **await self._losses(cpu, event),
        }

    async def _losses(self, cpu: Cpu, event: PerfEvent) -> Result:
        """What sampling has cost the event; those of which there was none are left out."""
        family = (event, *event.children)
        losses = {
            "missed": event.child_missed + sum(one.overflows_missed for one in family),
            "throttles": event.child_throttles + sum(one.throttles for one in family),
            "throttled": await self.perf.withheld(cpu, event),
        }
        return {name: size for name, size in losses.items() if size}
