"""On which CPUs perf's tools open the events of a session on whole CPUs, of several core PMUs (Linux 6.12).

perf_evlist__propagate_maps, evlist__warn_user_requested_cpus, evlist__check_cpu_maps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from services.core_pmus import CorePmu
from services.experiment import ANY_PMU, EventSpec


@dataclass(frozen=True, slots=True)
class CpuMaps:
    """The host's PMUs, and the CPUs that the tool was told: listed (`-C`), or all (`-a`)."""

    pmus: tuple[CorePmu, ...]
    requested: tuple[int, ...]
    listed: bool

    def propagate(self, events: Sequence[EventSpec], verb: str) -> tuple[tuple[EventSpec, ...], tuple[str, ...]]:
        """The events that are opened, and of what the tool warns."""
        if len(self.pmus) == 1:
            return tuple(events), ()
        warned = [*self._not_covered(events)] if self.listed else []
        kept = {index for index, event in enumerate(events) if self._cpus(event)}
        leaders = [event.leader for event in events]
        for leader in dict.fromkeys(leaders):
            apart = [
                index
                for index in kept
                if index != leader == leaders[index] and self._cpus(events[index]) != self._cpus(events[leader])
            ]
            if verb == "record":  # it knows of no CPUs that do not match, and aborts where the leader alone is gone
                if leader not in kept:
                    kept.difference_update(apart)
                continue
            if apart:
                group = ", ".join(event.name for event in events if event.leader == leader)
                warned.append(
                    "WARNING: grouped events cpus do not match. Events with CPUs not matching the leader will be "
                    f"removed from the group. anon group {{ {group} }}"
                )
            for index in apart:
                leaders[index] = index
        order = sorted(kept)
        return tuple(_moved(events[index], index, leaders[index], order) for index in order), tuple(warned)

    def _not_covered(self, events: Iterable[EventSpec]) -> Iterable[str]:
        requested = ",".join(map(str, self.requested))
        for event in events:
            if _of_core(event) and self._cpus(event) != set(self.requested):
                pmu = self.pmus[event.pmu]
                yield (
                    f"WARNING: A requested CPU in '{requested}' is not supported by PMU '{pmu.name}' "
                    f"(CPUs {_ranges(pmu.cpus)}) for event '{event.name}'"
                )

    def _cpus(self, event: EventSpec) -> set[int]:
        cpus = set(self.requested)
        return cpus.intersection(self.pmus[event.pmu].cpus) if _of_core(event) else cpus


def _moved(event: EventSpec, index: int, leader: int, order: Sequence[int]) -> EventSpec:
    """An event with its new place, and no PMU if it is a software event that has left its group."""
    alone = event.software and leader == index
    return replace(event, leader=order.index(leader), pmu=ANY_PMU if alone else event.pmu)


def _of_core(event: EventSpec) -> bool:
    """Does the tool know a core PMU that it is on? Of a raw number it knows none."""
    return event.pmu != ANY_PMU and not event.software


def _ranges(cpus: Sequence[int]) -> str:
    """As cpu_map__snprint has them: 0-3,6."""
    spans: list[list[int]] = []
    for cpu in cpus:
        if spans and cpu == spans[-1][-1] + 1:
            spans[-1][1:] = [cpu]
        else:
            spans.append([cpu])
    return ",".join("-".join(map(str, span)) for span in spans)
