"""What a search has come by: the premises of invariants, the windows that it used, named states, and what was new."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from operator import add
from typing import Any

from pmulab.check.play import Moves, Play
from services import registers as r
from services.judge.invariants import INVARIANTS

Point = tuple[Any, ...]


@dataclass(slots=True)
class Coverage:
    """Of one deck in one world."""

    met: list[int] = field(default_factory=lambda: [0] * len(INVARIANTS))
    windows: Counter[str] = field(default_factory=Counter)
    goals: set[Goal] = field(default_factory=set)
    points: Counter[Point] = field(default_factory=Counter)

    @property
    def premises(self) -> Counter[str]:
        """How often that of each invariant was met, where it was."""
        return Counter({name: met for name, met in zip(INVARIANTS, self.met, strict=True) if met})

    def new(self, play: Play, moves: Moves) -> bool:
        """Take down what the last action came to; was it never seen before?"""
        if not play.given:
            return True  # nobody gets anywhere any more
        move, given = moves[-1], play.given
        spec = move.spec
        loaded = [thread.id if (thread := pcpu.rq.current) is not None else -1 for pcpu in play.script.pcpus]
        flags = sorted([name for name, value in given[-1].items() if value and name not in _NUMBERS])
        amid = [
            (one.spec.action, one.spec.at) for one, outcome in zip(moves, given, strict=True) if outcome.get("reached")
        ]
        point = (spec.action, spec.party, spec.register, tuple(flags), tuple(loaded), tuple(amid))
        seen = self.points[point] = self.points.get(point, 0) + 1
        if len(self.goals) < len(Goal):
            self.goals |= _reached(play)
            if any(action == "preempt" for action, _ in amid):
                self.goals.add(Goal.PREEMPTED)
        return seen == 1

    def meet(self, play: Play) -> None:
        """Take down which premises were met since that was asked last."""
        self.met = [*map(add, self.met, play.met())]

    def used(self, play: Play) -> None:
        """At the end of a path: the windows that were, all the way from the boot."""
        self.windows.update(play.simulation.judging.windows())

    def unseen(self) -> float:
        """The chance that the next action comes to something new, by Good and Turing: what was seen once, of all."""
        total = self.points.total()
        return sum(1 for count in self.points.values() if count == 1) / total if total else 1.0


_NUMBERS = frozenset({"step", "cycle", "cycles", "value", "operations"})


class Goal(StrEnum):
    """A named state that a search of all decks should come to."""

    LINE = "a vCPU has the line of its PMU's interrupt up"
    OVERFLOWED = "a vCPU that is not loaded has an overflow that interrupts"
    FLAG_ON_CPU = "an overflow flag is on the CPU beside a vCPU"
    PREEMPTED = "a vCPU is to be preempted amid what KVM does for it"  # at once, unless preemption is disabled there
    BLOCKED = "a vCPU blocks"
    ELSEWHERE = "a vCPU is on another pCPU than at first"
    DEAD = "a VM is no more"
    OFFLINE = "a pCPU is offline"
    HOST_EVENT = "the host has an event while a vCPU is loaded"


def _reached(play: Play) -> set[Goal]:
    """Those that the world has come to, all in one go: this is asked behind every action."""
    script, machine = play.script, play.simulation.board.machine
    reached: set[Goal] = set()
    for vcpu in script.vcpus:
        pcpu = vcpu.pcpu
        if pcpu.rq.current is vcpu:
            if machine.peek(pcpu.cpu, r.PMOVSSET_EL0):
                reached.add(Goal.FLAG_ON_CPU)
            if play.sessions:
                reached.add(Goal.HOST_EVENT)
        elif vcpu.pmu.ovs & vcpu.pmu.inten:
            reached.add(Goal.OVERFLOWED)
        if vcpu.vgic.line:
            reached.add(Goal.LINE)
        if vcpu.blocked:
            reached.add(Goal.BLOCKED)
        if pcpu.cpu:
            reached.add(Goal.ELSEWHERE)
    if script.dead:
        reached.add(Goal.DEAD)
    for pcpu in script.pcpus:
        if pcpu.offline:
            reached.add(Goal.OFFLINE)
    return reached
