"""Run random worlds, judged, and say what was found in them.

`python -m tests.kvm.random_runs --runs 10000` runs so many of each reference design (`make random-runs RUNS=10000`).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import trio

from pmulab.violations import in_full
from services.judge.invariants import INVARIANTS
from services.result import Violation
from tests.kvm.random_worlds import RandomWorld

REFERENCE = ("partitioned", "emulated")


async def judged(world: RandomWorld) -> dict[str, Any]:
    """Run it; what the judge has found."""
    return (await world.run()).judging.found()


@dataclass
class Found:
    """In the worlds of one design."""

    design: str
    runs: int = 0
    premises: Counter[str] = field(default_factory=Counter)  # by invariant, how often met
    met: Counter[str] = field(default_factory=Counter)  # and in how many worlds
    windows: Counter[str] = field(default_factory=Counter)
    edges: Counter[str] = field(default_factory=Counter)
    declared: Counter[tuple[str, str]] = field(default_factory=Counter)  # worlds, by invariant and kind
    undeclared: list[tuple[int, Violation]] = field(default_factory=list)  # by seed

    def add(self, seed: int, found: dict[str, Any]) -> None:
        self.runs += 1
        for invariant, times in found["premises"].items():
            self.premises[invariant] += times
            self.met[invariant] += times > 0
        for name, window in found["windows"].items():
            self.windows[name] += window.uses
            self.edges[name] += window.edge
        for one in found["violations"]:
            if one.counts:
                self.undeclared.append((seed, one))
            else:
                self.declared[one.invariant, one.kind] += 1

    @property
    def not_exercised(self) -> list[str]:
        """Invariants by which there was nothing to judge."""
        return [invariant for invariant in INVARIANTS if not self.met[invariant]]

    def report(self) -> Iterator[str]:
        yield f"{self.design}: {self.runs:,} runs, {len(self.undeclared):,} undeclared violations"
        yield f"  {'':22}{'premises met':>14}{'in runs':>10}"
        for invariant in INVARIANTS:
            yield f"  {invariant:22}{self.premises[invariant]:14,}{self.met[invariant]:10,}"
        if self.not_exercised:
            yield f"  not exercised: {', '.join(self.not_exercised)}"
        yield f"  {'window':22}{'uses':>14}{'at edge':>10}"
        for name in self.windows:
            yield f"  {name:22}{self.windows[name]:14,}{self.edges[name]:10,}"
        for (invariant, kind), runs in sorted(self.declared.items()):
            yield f"  declared: {invariant} {kind} in {runs:,}"
        for seed, one in self.undeclared:
            yield f"  seed {seed}: {in_full(one)}"


def run(design: str, seeds: Iterable[int]) -> Found:
    """The worlds of these seeds."""
    found = Found(design)
    for seed in seeds:
        found.add(seed, trio.run(judged, RandomWorld(seed, design)))
    return found


def main() -> int:
    """Exit status 1 for an undeclared violation."""
    parser = argparse.ArgumentParser(prog="python -m tests.kvm.random_runs", description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000, help="of each design")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--design", action="append", help="instead of the reference designs; as of `pmulab run`")
    of = parser.parse_args()
    bad = False
    for design in of.design or REFERENCE:
        began = time.monotonic()
        found = run(design, range(of.first, of.first + of.runs))
        print("\n".join(found.report()))
        print(f"  {time.monotonic() - began:,.0f} s", flush=True)
        bad |= bool(found.undeclared)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
