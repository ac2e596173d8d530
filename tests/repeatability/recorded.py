"""The log hash, digest and round trips of every shipped scenario, shortened, under every design: `digests.json`.

    python -m tests.repeatability.recorded

prints that file, beside this one, anew. A log hash is over a run's register accesses, entries and events, in order,
with their values and times; a digest is over the results too. Round trips are in neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import orjson
import trio

from pmulab import scenario
from pmulab.designs import label
from services import embedded
from services.errors import UserError
from services.experiment import Experiment
from services.kvm.designs import designs

# What makes a scenario shorter.
SHORTER = {
    "gzip-record": ("guest.task.repeat=1", "guest.task.scale=0.05"),
    "quick": ("guest.task.seconds=0.01",),
    "stress-record": ("guest.task.seconds=0.01",),
    "specint-stat": ("guest.task.seconds=0.02",),
    "traps-or-perf": ("guest.task.seconds=0.02",),
    "two-vms": ("guest.task.seconds=0.02",),
    "load-latency": ("guest.task.repeat=20",),
    "swap-crossover": ("guest.task.request.repeat=40", "guest.task.monitored.repeat=4"),
    "overflow-latency": ("guest.task.seconds=0.01",),
    "reservation": ("guest.task.seconds=0.05", "host.task.seconds=0.05"),
    "migration": ("guest.task.repeat=5",),
}

# The same on other machines: designs take other paths there.
VARIANTS = tuple(
    (name, overrides)
    for name in ("quick", "two-vms", "swap-crossover", "overflow-latency", "reservation")
    for overrides in (
        ("machine.fgt=0",),
        ("machine.fgt=0", "machine.pmuver=1"),
        ("machine.icntr=true", "machine.fgt=1"),
        ("guest.counters=0", "machine.hpmn0=false"),
    )
)

# Designs beside those that have a name of their own.
AXES = (
    "partitioned,swap=eager",
    "partitioned,swap=eager,reservation=static",
    "partitioned,swap=lazy-sticky",
    "partitioned,traps=fast-path",
    "partitioned,traps=slow-path",
    "partitioned,reservation=static",
    "partitioned,reservation=sysfs",
    "partitioned,reservation=grow",
    "partitioned,swap=eager,traps=slow-path,reservation=grow",
    "partitioned,host_time=less-guest",
    "partitioned,pmcr=trapped",
    "partitioned,swap=eager,traps=slow-path,reservation=static,pmcr=trapped",
)

Recorded = dict[str, dict[str, dict[str, Any]]]


def read() -> Recorded:
    """By scenario (with what is overridden) and design: `log`, `digest` and `round_trips`, or that it is `refused`."""
    recorded: Recorded = orjson.loads(files(__package__).joinpath("digests.json").read_bytes())
    return recorded


def cases() -> list[str]:
    """What is recorded: a scenario's name, and the overrides behind it."""
    return [*sorted(scenario.shipped()), *(" ".join([name, *overrides]) for name, overrides in VARIANTS)]


def experiments(case: str) -> Iterator[tuple[str, Experiment | None]]:
    """The case under each of its scenario's designs and each that there is, None where it is refused."""
    name, *others = case.split()
    overrides = [*SHORTER.get(name, ()), *others]
    own = [label(experiment.design) for experiment in scenario.load(name).experiments]
    for design in dict.fromkeys([*own, *designs(), *AXES]):
        try:
            (experiment,) = scenario.load(name, designs=[design], overrides=overrides).experiments
        except UserError:
            yield design, None
        else:
            yield design, experiment


def of(experiment: Experiment | None) -> dict[str, Any]:
    """What is recorded of one run."""
    if experiment is None:
        return {"refused": "yes"}
    result: dict[str, Any] = trio.run(embedded.run, experiment)
    return {name: result[name] for name in ("log", "digest", "round_trips")}


def main() -> None:
    runs = {case: {design: of(one) for design, one in experiments(case)} for case in cases()}
    print(orjson.dumps(runs, option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
