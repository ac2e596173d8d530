"""What the judge has found in a run, and what of it counts.

A violation does not count for the exit status if the design declares that it gives this invariant up towards that
party, or if the scenario lists the invariant as known of the design. The judge knows neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from services.judge import text
from services.judge.sources import source
from services.judge.types import Judgement, Parties
from services.judge.types import Violation as Found


class Victim(StrEnum):
    """Towards whom an invariant is broken."""

    GUEST = "guest"  # by the host, by KVM, or by nobody
    HOST = "host"
    NEIGHBOUR = "neighbour"  # a vCPU, by another one


@dataclass(frozen=True, slots=True)
class Seen:
    """One of the last things that happened before a violation."""

    cpu: int
    cycle: int  # of that CPU's clock
    el: int
    party: str
    text: str  # in a kernel's words: "MSR PMCNTENSET_EL0, 0x3"


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose the counter is from a cycle on, as the judge has seen it."""

    counter: int | None  # None: those below MDCR_EL2.HPMN together, with the controls that are theirs
    party: str  # "host", a vCPU as in "vm0/1", or "nobody"
    since: int  # of that pCPU's clock


# What a scripted scenario injects: the first two amid KVM's own steps.
INJECTED = (INTERRUPT, PREEMPTION, MIGRATION) = ("interrupt", "preemption", "migration")


@dataclass(frozen=True, slots=True)
class Injection:
    """All that a scripted scenario injects of a kind."""

    what: str  # one of INJECTED
    steps: tuple[int, ...]  # of the scenario, from 1


@dataclass(frozen=True, slots=True)
class Counted:
    """Somebody was counted in the counter who should not have been."""

    party: str  # "host", or a vCPU as in "vm0/1"
    cycles: int  # behind that handover; of the last that is told, in all from then on
    since: int  # from which cycle on, of that pCPU's clock
    after: str | None  # the last handover there before that: "vcpu_put(vm0/1)"


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that was broken: the first time of its kind, victim and register, standing for all of these."""

    invariant: str  # "I1" to "I12"
    kind: str
    broken: str  # what is, in one sentence
    cpu: int  # the pCPU on which it was found
    cycle: int  # of that pCPU's clock
    register: str | None  # by its name
    counter: int | None
    victim: str  # "host", or a vCPU as in "vm0/1"
    other: str  # the other party: these, "kvm", or "nobody"
    expected: int  # a u64
    actual: int
    compared: str  # the two as a kernel developer would have them, empty if `broken` says it all
    source: str  # what has the rule: pages of the Arm ARM, files and functions of Linux
    window: str | None  # the tolerance that was exceeded; None if none was open
    since: int | None  # the cycle from which on it was so
    owners: tuple[Owner, ...]  # the last ones of the counter, or of those of guests, in order; the last one has it
    counted: tuple[Counted, ...]  # who was counted in it, and should not have been
    times: int
    before: tuple[Seen, ...]
    declared: str = ""  # why the design gives this up, by its nature; "" if it does not say that it does
    known: bool = False  # the scenario lists it as known of the design
    only_with: tuple[Injection, ...] = ()  # without each of these, of a scripted scenario, it vanishes: it is I9, too

    @property
    def counts(self) -> bool:
        """Does the exit status say so?"""
        return not (self.declared or self.known)


def violations(
    judgement: Judgement, parties: Parties, declared: Mapping[tuple[str, Victim, str], str], known: Iterable[str]
) -> tuple[Violation, ...]:
    """What was found, in words and by the parties' names.

    `declared`: why the design gives up an invariant towards somebody, by the kind of violation.
    """
    by_scenario = frozenset(known)
    return tuple(_violation(one, parties, declared, by_scenario) for one in judgement.violations)


def _violation(
    found: Found, parties: Parties, reasons: Mapping[tuple[str, Victim, str], str], known: frozenset[str]
) -> Violation:
    victim, other = parties.name(found.victim), parties.name(found.other)
    return Violation(
        invariant=found.invariant,
        kind=found.kind,
        broken=text.broken(found, parties),
        cpu=found.cpu,
        cycle=found.cycle,
        register=text.register(found),
        counter=found.counter,
        victim=victim,
        other=other,
        expected=found.expected,
        actual=found.actual,
        compared=text.compared(found),
        source=source(found.kind, text.register(found)),
        window=found.window,
        since=found.since,
        owners=tuple(Owner(owned.counter, parties.name(owned.party), owned.since) for owned in found.owned),
        counted=tuple(
            Counted(
                parties.name(one.party),
                one.cycles,
                one.since,
                None if one.after is None else text.handover(one.after, parties),
            )
            for one in found.counted
        ),
        times=found.times,
        before=tuple(
            Seen(seen.cpu, seen.cycle, seen.el, parties.name(seen.party), text.did(seen, parties))
            for seen in found.before
        ),
        declared=reasons.get((found.invariant, towards(victim, other), found.kind), ""),
        known=found.invariant in known,
    )


def towards(party: str, other: str) -> Victim:
    """Who it is that is harmed, of parties by their names."""
    if party == "host":
        return Victim.HOST
    return Victim.NEIGHBOUR if "/" in other and other != party else Victim.GUEST
