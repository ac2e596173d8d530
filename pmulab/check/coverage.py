"""What a search has come by: the premises of invariants, the windows that it used, named states, and what was new."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pmulab.check.play import Moves, Play
from services import registers as r
from services.judge.invariants import INVARIANTS
from services.kvm.stepped import SteppedVCpu

Point = tuple[Any, ...]


@dataclass(slots=True)
class Coverage:
    """Of one deck in one world."""

    met: list[int] = field(default_factory=lambda: [0] * len(INVARIANTS))
    windows: Counter[str] = field(default_factory=Counter)
    goals: set[str] = field(default_factory=set)
    points: Counter[Point] = field(default_factory=Counter)

    @property
    def premises(self) -> Counter[str]:
        """How often that of each invariant was met, where it was."""
        return Counter({name: met for name, met in zip(INVARIANTS, self.met, strict=True) if met})

    def new(self, play: Play, moves: Moves) -> bool:
        """Take down what the last action came to; was it never seen before?"""
        self.met = [before + met for before, met in zip(self.met, play.met(), strict=True)]
        if not play.given:
            return True  # nobody gets anywhere any more
        move, given = moves[-1], play.given
        loaded = tuple(thread.id if (thread := pcpu.rq.current) is not None else -1 for pcpu in play.script.pcpus)
        flags = tuple(sorted(name for name, value in given[-1].items() if value and name not in _NUMBERS))
        amid = tuple(
            (one.spec.action, one.spec.at) for one, outcome in zip(moves, given, strict=True) if outcome.get("reached")
        )
        point = (move.spec.action, move.spec.party, move.spec.register, flags, loaded, amid)
        self.points[point] += 1
        if len(self.goals) < len(GOALS):
            self.goals.update([name for name, reached in GOALS.items() if name not in self.goals and reached(play)])
        return self.points[point] == 1

    def used(self, play: Play) -> None:
        """At the end of a path: the windows that were, all the way from the boot."""
        for name, window in play.simulation.judging.found()["windows"].items():
            self.windows[name] += window.uses

    def unseen(self) -> float:
        """The chance that the next action comes to something new, by Good and Turing: what was seen once, of all."""
        total = self.points.total()
        return sum(1 for count in self.points.values() if count == 1) / total if total else 1.0


_NUMBERS = frozenset({"step", "cycle", "cycles", "value", "operations"})


def _vcpus(play: Play) -> list[SteppedVCpu]:
    return list(play.script.vcpus)


def _loaded(play: Play) -> list[SteppedVCpu]:
    return [vcpu for vcpu in _vcpus(play) if vcpu.pcpu.rq.current is vcpu]


def _overflowed_without_a_load(play: Play) -> bool:
    return any(vcpu.pmu.ovs & vcpu.pmu.inten for vcpu in _vcpus(play) if vcpu.pcpu.rq.current is not vcpu)


def _flag_on_the_cpu(play: Play) -> bool:
    return any(play.simulation.board.machine.peek(vcpu.pcpu.cpu, r.PMOVSSET_EL0) for vcpu in _loaded(play))


# Named states that a search of all decks should come to.
GOALS: Mapping[str, Callable[[Play], bool]] = {
    "a vCPU has the line of its PMU's interrupt up": lambda play: any(vcpu.vgic.line for vcpu in _vcpus(play)),
    "a vCPU that is not loaded has an overflow that interrupts": _overflowed_without_a_load,
    "an overflow flag is on the CPU beside a vCPU": _flag_on_the_cpu,
    "a vCPU is preempted amid one of KVM's handlers": lambda play: any(vcpu.amid for vcpu in _vcpus(play)),
    "a vCPU blocks": lambda play: any(vcpu.blocked for vcpu in _vcpus(play)),
    "a vCPU is on another pCPU than at first": lambda play: any(vcpu.pcpu.cpu for vcpu in _vcpus(play)),
    "a VM is no more": lambda play: bool(play.script.dead),
    "a pCPU is offline": lambda play: any(pcpu.offline for pcpu in play.script.pcpus),
    "the host has an event while a vCPU is loaded": lambda play: bool(play.sessions and _loaded(play)),
}
