"""The cause of what is found: the smallest set of a version's steps with which it is found still, all others being
`partitioned`'s; or of the axes that are not at their defaults."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import trio

from pmulab.check.shrink import Signature
from pmulab.designs import label, parse_design
from services import embedded
from services.errors import UserError
from services.experiment import DesignSpec, Experiment
from services.kvm.designs import named
from services.kvm.designs.partitioned.by_steps import BySteps
from services.kvm.designs.partitioned.by_steps.steps import DOES, Of, steps_of
from services.kvm.designs.partitioned.by_steps.versions import VERSIONS
from services.kvm.errors import SimulationError

_NEAR = 12  # operations, by which what comes amid a step comes earlier or later in another design


@dataclass(frozen=True, slots=True)
class Part:
    """A step of a version's, or an axis that is not at its default."""

    axis: str
    value: str
    what: str
    does: str = ""  # in that step

    def as_json(self) -> dict[str, str]:
        return {"axis": self.axis, "value": self.value, "what": self.what, "does": self.does}


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a design breaks an invariant."""

    whose: str  # "v8", or the design whose axes these are
    instead: str  # whose they are in the design that does not break it
    parts: tuple[Part, ...]  # none of them can be left out; empty: it was not isolated
    alone: str  # the design that has only these
    others: tuple[Part, ...]  # each of which breaks it alone, too
    gone: bool  # with all the others, and not these

    def as_json(self) -> dict[str, Any]:
        return {
            "whose": self.whose,
            "parts": [one.as_json() for one in self.parts],
            "alone": self.alone,
            "others": [one.as_json() for one in self.others],
            "gone_without": self.gone,
        }


@dataclass(frozen=True)
class _Taken:
    """A design taken to pieces."""

    whose: str
    instead: str
    base: str  # the design that has some of the parts
    parts: tuple[Part, ...]

    def design(self, parts: Sequence[Part]) -> DesignSpec:
        return parse_design(",".join([self.base, *(f"{one.axis}={one.value}" for one in parts)]))


def _taken(text: str) -> _Taken | None:
    """None if it is all defaults, and no version."""
    spec = parse_design(text)
    design = named(spec.name)
    own = tuple(
        Part(axis, value, f"{axis}={value}")
        for axis, value in spec.axes.items()
        if value != design.axes()[axis].texts[0] and axis not in DOES
    )
    version = next((one for one, made in VERSIONS.items() if made is design), None)
    if version is None and design is not BySteps:
        return _Taken(spec.name, "the default", spec.name, own) if own else None
    if version is not None:
        whose = dict.fromkeys(steps_of(version), version)
    else:
        whose = {step: Of(spec.axes[step]) for step in DOES if spec.axes[step] != Of.PARTITIONED.value}
    steps = tuple(Part(step, of.value, _what(step), DOES[step][of]) for step, of in whose.items())
    kept = tuple(one for one in own if one.axis in BySteps.axes())
    return _Taken(spec.name if version is None else version.value, "partitioned", BySteps.name, (*steps, *kept))


def _what(step: str) -> str:
    return BySteps.axes()[step].why


class Causes:
    """Of one finding: what replays it, and under which designs it is found."""

    def __init__(self, experiment: Experiment, signature: Signature) -> None:
        """`experiment`: in which it is found."""
        self.experiment = experiment
        self.signature = signature
        self.runs = 0

    @cached_property
    def _amid(self) -> tuple[int, ...]:
        """The steps that come amid another."""
        return tuple(n for n, step in enumerate(self.experiment.steps) if step.at >= 0)

    def found(self, design: DesignSpec) -> bool:
        """Is it found under that design? What comes amid a step may come at a neighbouring operation there."""
        return any(self._found(replace(one, design=design)) for one in self._experiments())

    def _experiments(self) -> Iterator[Experiment]:
        yield self.experiment
        if len(self._amid) != 1:
            return
        (n,) = self._amid
        steps = self.experiment.steps
        at = steps[n].at
        for away in range(1, _NEAR + 1):
            for other in (at - away, at + away):
                if other >= 0:
                    yield replace(self.experiment, steps=(*steps[:n], replace(steps[n], at=other), *steps[n + 1 :]))

    def _found(self, experiment: Experiment) -> bool:
        self.runs += 1
        try:
            judgement = trio.run(embedded.play, experiment)["judgement"]
        except (UserError, SimulationError):
            return False
        return any(Signature.of(one) == self.signature for one in judgement["violations"])

    def of(self, text: str) -> Cause | None:
        """Of what is found under that design; None if there is nothing to exchange."""
        taken = _taken(text)
        if taken is None:
            return None
        every = taken.parts
        if not self.found(taken.design(every)):
            return Cause(taken.whose, taken.instead, (), "", (), gone=False)
        needed = [one for one in every if not self.found(taken.design(_without(every, [one])))]
        alone = [one for one in needed or every if self.found(taken.design([one]))]
        parts = (alone[0],) if alone else self._fewest(taken, needed)
        gone = bool(needed) or not self.found(taken.design(_without(every, parts)))
        return Cause(taken.whose, taken.instead, parts, label(taken.design(parts)), tuple(alone[1:]), gone)

    def _fewest(self, taken: _Taken, needed: Sequence[Part]) -> tuple[Part, ...]:
        """From all, one after the other left out as long as it is found; from either end, and the fewer of the two."""
        of = needed if needed and self.found(taken.design(needed)) else taken.parts
        return min(self._reduced(taken, of, of), self._reduced(taken, of, of[::-1]), key=len)

    def _reduced(self, taken: _Taken, of: Sequence[Part], order: Sequence[Part]) -> tuple[Part, ...]:
        kept = list(of)
        for one in order:
            fewer = _without(kept, [one])
            if self.found(taken.design(fewer)):
                kept = list(fewer)
        return tuple(kept)


def _without(parts: Sequence[Part], left_out: Sequence[Part]) -> tuple[Part, ...]:
    return tuple(one for one in parts if one not in left_out)
