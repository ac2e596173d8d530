"""What the judge has found, as the core tells it (`services._pmu.Machine.judgement`).

A party is `host`, `kvm`, `nobody`, or `vm:` and the context of a vCPU, which `Parties` has a name for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from services import typed_json
from services.judge.invariants import INVARIANTS
from services.registers import MASK64

HOST, KVM, NOBODY = "host", "kvm", "nobody"
_VCPU = re.compile(r"vm:(\d+)")


@dataclass(frozen=True, slots=True)
class Seen:
    """Something that was done on a CPU, or that software said there."""

    cpu: int
    cycle: int  # of that CPU's clock
    el: int
    party: str
    what: str
    a: int  # what they are depends on `what` (`services.judge.text`)
    b: int


@dataclass(frozen=True, slots=True)
class Owned:
    """A counter has an owner from a cycle on, or the counters that guests are given have one."""

    counter: int | None  # None: those below MDCR_EL2.HPMN together, with the controls that are theirs
    party: str
    since: int  # cycle of the pCPU's clock


@dataclass(frozen=True, slots=True)
class Handover:
    """A vcpu_load or a vcpu_put."""

    what: str  # "vcpu_load" or "vcpu_put"
    party: str  # the vCPU
    cycle: int  # of the pCPU's clock, at which it began


@dataclass(frozen=True, slots=True)
class Counted:
    """Somebody else was counted in a counter."""

    party: str
    cycles: int  # behind that handover; of the last that is told, in all from then on
    since: int  # cycle of the pCPU's clock
    after: Handover | None  # the last one on the pCPU before that


@dataclass(frozen=True, slots=True)
class Violation:
    """The first of its invariant, kind, victim and register, standing for all of these."""

    invariant: str
    kind: str
    cpu: int
    cycle: int  # of that CPU's clock
    register: int | None  # its encoding (`services.registers.encoding`)
    counter: int | None
    victim: str
    other: str
    expected: int  # a u64, as the next
    actual: int
    window: str | None  # the tolerance that was open, and was exceeded
    since: int | None  # the cycle from which on it was so
    owned: tuple[Owned, ...]  # the last owners of the counter, or of those of guests, in order; the last one has it
    counted: tuple[Counted, ...]  # who was counted in it, and should not have been
    times: int
    before: tuple[Seen, ...]  # the last ones before it


@dataclass(frozen=True, slots=True)
class Window:
    """How often a tolerance was made use of."""

    uses: int
    edge: int  # of these, up to the last of what it allows


@dataclass(frozen=True, slots=True)
class Judgement:
    """Of a run, so far."""

    violations: tuple[Violation, ...]  # in the order in which they were found
    premises: dict[str, int]  # by invariant: how often there was something to judge by it
    windows: dict[str, Window]


class Parties:
    """What the judge's parties are called: `vm0/1` is vCPU 1 of vm0."""

    def __init__(self, vcpus: Mapping[int, str]) -> None:
        """`vcpus`: the name of each vCPU, by its context."""
        self._names = {HOST: HOST, KVM: KVM, NOBODY: NOBODY}
        self._names |= {f"vm:{context}": name for context, name in vcpus.items()}

    def name(self, party: str) -> str:
        """Raises ValueError for a party that there is not."""
        if party not in self._names:
            raise ValueError(f"no party {party!r}")
        return self._names[party]


def is_vcpu(party: str) -> bool:
    """Is it a vCPU, and not the host's?"""
    return _VCPU.fullmatch(party) is not None


def read(text: bytes) -> Judgement:
    """What the core has told. Raises ValueError naming what does not fit: the judge's fault, and no violation."""
    found = typed_json.loads(Judgement, text, "judgement")
    for name in INVARIANTS:
        if name not in found.premises:
            raise ValueError(f"judgement.premises: {name} is missing")
    for name in found.premises:
        _check_invariant(name, "judgement.premises")
    for index, violation in enumerate(found.violations):
        _check(violation, f"judgement.violations[{index}]")
    return replace(found, premises={name: found.premises[name] for name in INVARIANTS})


def _check(violation: Violation, where: str) -> None:
    _check_invariant(violation.invariant, f"{where}.invariant")
    for party, kinds in ((violation.victim, (HOST,)), (violation.other, (HOST, KVM, NOBODY))):
        if party not in kinds and not is_vcpu(party):
            raise ValueError(f"{where}: no party {party!r}")
    for value in (violation.expected, violation.actual):
        if not 0 <= value <= MASK64:
            raise ValueError(f"{where}: {value} is not a u64")
    if violation.times < 1:
        raise ValueError(f"{where}.times: {violation.times}, of what has been found")


def _check_invariant(name: str, where: str) -> None:
    if name not in INVARIANTS:
        raise ValueError(f"{where}: no invariant {name!r}")
