"""What a scripted scenario injects is left out on trial: a violation that then vanishes is one of I9, too.

Injected is what comes amid KVM's own steps (`at`), an interrupt or a preemption, and a migration. Each of the three is
left out by itself, all of its steps at once, in a run of its own. What came amid a step comes behind it instead, so
that a vCPU which was preempted there is put nevertheless, and what is about it later makes sense; if it does not run
then, or nothing can come there, the step is left out. A vCPU that does not migrate stays where it is, and what follows
has to be possible there. A trial that is not possible, or that hangs, says nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from services.experiment import Experiment, StepSpec
from services.kvm.errors import JudgeFault, SimulationError
from services.result import Injection, Violation
from services.result.judged import INTERRUPT, MIGRATION, PREEMPTION

Play = Callable[[Experiment], Awaitable[Mapping[str, Any]]]  # an experiment to its end: `Simulation.measured`

# The invariant, the kind, the victim, and whether it is about a register: of these a violation is the first.
_Class = tuple[str, str, str, bool]


async def marked(experiment: Experiment, measured: dict[str, Any], play: Play) -> dict[str, Any]:
    """What a run of `experiment` has given, each of its violations with that without which it vanishes. `play` runs
    the trials, of which there are none where nothing is broken or injected. Raises JudgeFault."""
    judgement = measured["judgement"]
    violations: Sequence[Violation] = judgement.get("violations") or ()
    if not violations:
        return measured
    needed: dict[_Class, list[Injection]] = {}
    for what, numbers in _injected(experiment.steps, measured.get("steps") or ()).items():
        left = await _without(experiment, what, numbers, play)
        if left is not None:
            for one in {_class(one) for one in violations} - left:
                needed.setdefault(one, []).append(Injection(what, tuple(number + 1 for number in numbers)))
    marks = tuple(replace(one, only_with=tuple(needed.get(_class(one), ()))) for one in violations)
    return {**measured, "judgement": {**judgement, "violations": marks}}


def _class(one: Violation) -> _Class:
    return one.invariant, one.kind, one.victim, one.register is not None


def _injected(steps: Sequence[StepSpec], told: Iterable[Mapping[str, Any]]) -> dict[str, list[int]]:
    """By what they inject, the steps that have done so, from 0. One that KVM has not come to has not."""
    found: dict[str, list[int]] = {}
    for outcome in sorted(told, key=lambda outcome: int(outcome["step"])):
        number = int(outcome["step"]) - 1
        step = steps[number]
        if step.action == "migrate":
            found.setdefault(MIGRATION, []).append(number)
        elif outcome.get("reached"):
            what = PREEMPTION if step.action == "preempt" else INTERRUPT
            found.setdefault(what, []).append(number)
    return found


async def _without(experiment: Experiment, what: str, numbers: Collection[int], play: Play) -> frozenset[_Class] | None:
    """What is broken all the same; None if that cannot be told."""
    for steps in _scripts(experiment.steps, what, numbers):
        try:
            found = await play(replace(experiment, steps=steps, stop_on_violation=False))
        except JudgeFault:
            raise
        except SimulationError:
            continue
        judgement = found["judgement"]
        return None if judgement["hung"] else frozenset(map(_class, judgement["violations"]))
    return None


def _scripts(steps: Sequence[StepSpec], what: str, numbers: Collection[int]) -> Iterator[tuple[StepSpec, ...]]:
    """The steps without those `numbers`, in the order in which that is to be tried."""
    if what != MIGRATION:
        yield _behind(steps, numbers)
    yield tuple(step for number, step in enumerate(steps) if number not in numbers)


def _behind(steps: Sequence[StepSpec], numbers: Collection[int]) -> tuple[StepSpec, ...]:
    """What comes amid a step comes when that is complete."""
    found: list[StepSpec] = []
    late: list[StepSpec] = []
    for number, step in enumerate(steps):
        if number in numbers:
            late.append(replace(step, at=-1))
            continue
        found.append(step)
        if step.at < 0:
            found += late
            late.clear()
    return tuple(found)
