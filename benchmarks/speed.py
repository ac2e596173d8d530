"""How fast the simulation is, beside the virtual time that it simulates; and beside another commit.

    python -m benchmarks.speed [--base REV] [SCENARIO [--set key=value]…]

runs two published experiments, shortened (or SCENARIO as it is set), under each of its designs, several
times, embedded. With `--base` the commit REV is built beside the working tree and both run in turn, each in a process
of its own: the ratio of each pair is base over present. Times are CPU seconds, which is what a run takes on an idle
core; accesses are the register accesses of all actors, the unit in which the simulation's work grows.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

import orjson

from benchmarks.base import ROOT, built
from benchmarks.timed import Timed
from pmulab import scenario
from pmulab.designs import label

PUBLISHED = "gzip-record"
SHORTENED = ["guest.task.repeat=4"]
# (SCENARIO, overrides) by title. specint-stat is for long runs: an hour of it should take less than a tenth of an hour
# under a partitioned vPMU, and a third under an emulated one.
SETTINGS = {
    "HZ 250, 10 counters": (PUBLISHED, [*SHORTENED, "guest.hz=250", "host.hz=250", "guest.counters=10"]),
    "HZ 1000, 6 counters": (PUBLISHED, SHORTENED),
    "specint, HZ 1000": ("specint-stat", ["guest.task.seconds=3"]),
}
REPETITIONS = 9


class Tree:
    """A built tree, and a process in it that runs experiments on request."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [path / ".venv/bin/python", ROOT / "benchmarks/timed.py"],
            cwd=path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def timed(self, name: str, overrides: list[str], design: str) -> Timed:
        """`benchmarks.timed.timed` there. Raises SystemExit if it fails, which has said why."""
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answers is not None
        asked.write(orjson.dumps([name, overrides, design]) + b"\n")
        asked.flush()
        answer = answers.readline()
        if not answer:
            raise SystemExit(f"{name} under {design} fails in the {self.name} tree")
        return Timed(**orjson.loads(answer))

    def close(self) -> None:
        self._process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time beside virtual time, per design.")
    parser.add_argument("scenario", nargs="?")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="key=value")
    parser.add_argument("--base", metavar="REV", help="a commit to compare the working tree with")
    arguments = parser.parse_args()
    name = arguments.scenario or PUBLISHED
    own_settings = arguments.scenario or arguments.overrides
    own = {" ".join(arguments.overrides) or "as it is": (name, arguments.overrides)}
    settings = own if own_settings else SETTINGS
    trees = [Tree("base", built(arguments.base))] if arguments.base else []
    trees.append(Tree("present", ROOT))
    in_turn = f", {arguments.base} and the working tree in turn" if arguments.base else ""
    print(f"CPU seconds of {REPETITIONS} runs{in_turn}")
    for setting, (name, overrides) in settings.items():
        for experiment in scenario.load(name, overrides=overrides).experiments:
            design = label(experiment.design)
            rounds = [[tree.timed(name, overrides, design) for tree in trees] for _ in range(REPETITIONS)]
            _print(f"{design}, {setting}", trees, rounds)
    for tree in trees:
        tree.close()


def _print(title: str, trees: list[Tree], rounds: list[list[Timed]]) -> None:
    print(f"\n{title:<40} {'min':>8} {'median':>8} {'virtual':>8} {'/virtual':>9} {'accesses':>11} {'ns/access':>10}")
    for tree, runs in zip(trees, zip(*rounds, strict=True), strict=True):
        times = [run.cpu for run in runs]
        least, run = min(times), runs[0]
        print(
            f"  {tree.name:<38} {least:>8.3f} {statistics.median(times):>8.3f} {run.virtual:>8.3f}"
            f" {least / run.virtual:>9.2f} {run.accesses:>11,} {1e9 * least / max(run.accesses, 1):>10.0f}"
        )
    if len(trees) > 1:
        ratios = [base.cpu / present.cpu for base, present in rounds]
        pairs = " ".join(f"{one:.2f}" for one in ratios)
        print(f"  {'base / present':<38} {min(ratios):>8.2f} {statistics.median(ratios):>8.2f}  of {pairs}")
        if len({run.log for pair in rounds for run in pair}) > 1:
            print("  The two trees do not make the same accesses.")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
