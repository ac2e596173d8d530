"""What is kept of a run: results, so that it can be gone on with, counterexamples, and why survivors are none."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from pmulab.check.accesses import Step
from tests.mutation.hunt import Kill

ROOT = Path(__file__).parents[2]
KEPT = Path(__file__).with_name("kept.jsonl")
SURVIVORS = Path(__file__).with_name("survivors.toml")
RESULTS = ROOT / "target" / "mutants.jsonl"
PAGE = ROOT / "docs" / "mutation.md"


@dataclass
class Result:
    """Of one mutant, by seed: what killed it, or None."""

    name: str
    kind: str
    kills: dict[int, Kill | None] = field(default_factory=dict)
    rounds: int = 0  # that it has survived, if it has
    alone: tuple[str, ...] | None = None  # what breaks in all places, where that has been asked for

    @property
    def survives(self) -> bool:
        return not any(self.kills.values())

    @property
    def killers(self) -> dict[str, dict[str, None]]:
        """The decks in which each invariant killed it."""
        found: dict[str, dict[str, None]] = {}
        for kill in filter(None, self.kills.values()):
            for invariant in kill.by:
                found.setdefault(invariant, {})[kill.deck] = None
        return found


@cache
def fingerprint() -> str:
    """Of all that decides what is found."""
    found = hashlib.sha256()
    for folder, kinds in (("services", ("*.py", "*.json", "*.toml")), ("pmulab/check", ("*",)), ("rust", ("*.rs",))):
        for path in sorted(one for kind in kinds for one in (ROOT / folder).rglob(kind)):
            if path.is_file() and "__pycache__" not in path.parts:
                found.update(path.read_bytes())
    for name in ("hunt.py", "source.py", "transplants.py", "elsewhere.py"):
        found.update(Path(__file__).with_name(name).read_bytes())
    return found.hexdigest()[:16]


def results(file: Path) -> dict[str, Result]:
    """Those of the same code, by mutant."""
    found: dict[str, Result] = {}
    for one in _lines(file):
        if one["code"] == fingerprint():
            kills = {int(seed): kill and _kill(kill) for seed, kill in one["kills"].items()}
            alone = one["alone"]
            found[one["name"]] = Result(
                one["name"], one["kind"], kills, one["rounds"], None if alone is None else tuple(alone)
            )
    return found


def add(file: Path, result: Result) -> None:
    """The newest of a mutant counts."""
    file.parent.mkdir(parents=True, exist_ok=True)
    kills = {str(seed): kill and asdict(kill) for seed, kill in result.kills.items()}
    line = {"code": fingerprint(), "name": result.name, "kind": result.kind, "kills": kills} | {
        "rounds": result.rounds,
        "alone": result.alone,
    }
    with file.open("ab") as out:
        out.write(orjson.dumps(line) + b"\n")


def kept() -> dict[str, Kill]:
    """The counterexample of each mutant."""
    return {one["name"]: _kill(one["kill"]) for one in _lines(KEPT)}


def keep(kills: dict[str, Kill]) -> None:
    lines = [orjson.dumps({"name": name, "kill": asdict(kill)}) for name, kill in sorted(kills.items())]
    KEPT.write_bytes(b"".join(line + b"\n" for line in lines))


def _kill(of: dict[str, Any]) -> Kill:
    return Kill(**{**of, "by": tuple(of["by"]), "steps": tuple(of["steps"])})


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    if file.exists():
        for line in file.read_bytes().splitlines():
            yield orjson.loads(line)


@dataclass(frozen=True)
class Reason:
    """Why mutants of such names break nothing."""

    names: tuple[str, ...]  # `*` is anything
    but: tuple[str, ...]  # which something kills
    why: str
    hole: bool  # of judge, worlds or decks: it is no equivalent mutant
    world: str = ""  # of a hole of the decks: the steps that kill them, and where
    steps: tuple[Step, ...] = ()

    def covers(self, name: str) -> bool:
        return _matches(name, self.names) and not _matches(name, self.but)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(re.fullmatch(".*".join(map(re.escape, one.split("*"))), name) for one in patterns)


@cache
def reasons() -> Sequence[Reason]:
    found = tomllib.loads(SURVIVORS.read_text(encoding="utf-8"))
    return [
        Reason(
            tuple(one["names"]),
            tuple(one.get("but", ())),
            " ".join(one["why"].split()),
            one.get("hole", False),
            one.get("world", ""),
            tuple(one.get("steps", ())),
        )
        for one in found.get("survivor", ())
    ]


def reason(name: str, of: Sequence[Reason]) -> Reason | None:
    return next((one for one in of if one.covers(name)), None)
