"""What a search of the posted versions has found, as data: `versions.json`, and how what is kept is replayed.

The same violation is shown once for each version: by the first path on which the search came to it, made short.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import trio

from pmulab.check.accesses import Step
from pmulab.check.finding import told_by
from pmulab.check.job import Job, Searched, Shortest, search
from pmulab.check.shrink import Signature
from pmulab.check.worlds import decks, worlds
from pmulab.errors import SearchError

DATA = Path(__file__).with_name("versions.json")
PUT_BY = Path(__file__).parents[1] / "out" / "versions"  # searches that are not complete
VERSIONS = tuple(f"v{number}" for number in range(1, 10))
DEPTH, INTERRUPTIONS, WALKS, SEED = 1, 0, 30, 1
_SIGNS = {-1: "too little", 0: "", 1: "too much"}


def design_of(version: str) -> str:
    return f"partitioned-{version}"


def name_of(signature: Signature) -> str:
    """As the data has it: `I4 guest_read PMEVCNTR<n>_EL0 too little: vcpu by kvm`."""
    parts = (signature.invariant, signature.kind, signature.register, _SIGNS[signature.sign])
    return f"{' '.join(filter(None, parts))}: {signature.victim} by {signature.other}"


@dataclass(frozen=True, slots=True)
class Kept:
    """A violation of a version, and the steps that lead to it."""

    signature: Signature
    broken: str
    world: str
    deck: str
    after: int  # actions of that deck, when it was found
    steps: tuple[Step, ...]
    told: tuple[str, ...] = ()  # the same in a kernel's words, with what each gave

    @property
    def name(self) -> str:
        return name_of(self.signature)

    def replayed(self, version: str) -> Kept | None:
        """Found again by a run of the scenario with these steps, or None."""
        found = told_by(design_of(version), worlds()[self.world], self.steps, self.signature)
        return found and replace(self, broken=found[0].broken, told=tuple(line.text for line in found[1]))


@dataclass(frozen=True, slots=True)
class Version:
    """What the search of a version has come to."""

    states: int
    actions: int
    refused: tuple[str, ...]  # decks and worlds in which the design cannot be had
    found: tuple[Kept, ...]


def read() -> dict[str, Version]:
    """What has been kept, in the order of the versions."""
    kept: Mapping[str, Any] = orjson.loads(DATA.read_bytes()) if DATA.exists() else {}
    return {
        name: Version(
            of["states"],
            of["actions"],
            tuple(of["refused"]),
            tuple(_read(one) for one in of["found"]),
        )
        for name, of in ((name, kept[name]) for name in VERSIONS if name in kept)
    }


def _read(one: Mapping[str, Any]) -> Kept:
    signature, steps, told = Signature(**one["signature"]), tuple(one["steps"]), tuple(one["told"])
    return Kept(**{**one, "signature": signature, "steps": steps, "told": told})


def write(of: Mapping[str, Version]) -> None:
    ordered = {name: of[name] for name in VERSIONS if name in of}
    DATA.write_bytes(orjson.dumps(ordered, option=orjson.OPT_INDENT_2) + b"\n")


def searched(version: str, late: Callable[[], bool]) -> Version | None:
    """Every deck in every world, as `pmulab check` goes through them; what one has found is not looked for in the
    next. None if it has become too `late`: what is done is put by, and the next call goes on from there. Raises
    SearchError."""
    by = PUT_BY / f"{version}.pickle"
    done: list[Searched] = pickle.loads(by.read_bytes()) if by.exists() else []
    known = {found.signature: found for one in done for found in one.found}
    for job in [*_jobs(version)][len(done) :]:
        if late():
            return None
        one = trio.run(search, job, _never, known)
        if one.failed:
            raise SearchError(one.problem)
        done.append(one)
        known |= {found.signature: found for found in one.found}
        PUT_BY.mkdir(parents=True, exist_ok=True)
        by.write_bytes(pickle.dumps(done))
    of = Version(
        sum(one.states for one in done),
        sum(one.transitions + one.actions for one in done),
        tuple(f"{one.job.deck.name} in {one.job.world.name}: {one.refused}" for one in done if one.refused),
        tuple(_kept(version, known.values())),
    )
    by.unlink()
    return of


def _jobs(version: str) -> Iterator[Job]:
    for deck in decks().values():
        for name in deck.worlds:
            yield Job(design_of(version), worlds()[name], deck, DEPTH, INTERRUPTIONS, WALKS, SEED, None)


def _never() -> bool:
    return False


def _kept(version: str, found: Iterable[Shortest]) -> Iterable[Kept]:
    """By invariant, the shortest first; the end of a run, when everybody reports, may find one by itself."""
    for one in sorted(found, key=lambda one: (int(one.signature.invariant[1:]), len(one.steps), repr(one.signature))):
        kept = Kept(one.signature, one.violation.broken, one.world.name, one.deck, one.after, one.steps)
        again = kept.replayed(version)
        if again is None:
            raise SearchError(f"{version}: {kept.name} was found, and not by the scenario of it: {kept.steps}")
        yield again
