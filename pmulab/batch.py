"""A scenario's designs side by side: each in a worker process of its own, as many at once as there are cores."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from pmulab import workers
from pmulab.designs import label
from pmulab.errors import TopologyError
from pmulab.scenario import Scenario, load
from services import result as results
from services.errors import UserError
from services.experiment import Experiment
from services.kvm.errors import SimulationError
from services.result import Design, Failure, Result

# Called with the label of a design, the share of its work that is done (0 to 1, and 1 once it has ended), and its
# virtual time in seconds.
Progress = Callable[[str, float, float], None]

# Runs one experiment in this process; called with what to tell of its progress. Raises SimulationError, TopologyError.
Execute = Callable[[Experiment, Callable[[float, float], None]], Result]


def run(
    scenario: str | Path,
    *,
    designs: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
    judge: bool = True,
    stop_on_violation: bool = False,
) -> Result:
    """Run a scenario, by its path or the name of a shipped one, once for each design.

    `designs`, each as `NAME[,axis=value…]`, replace the scenario's own; `overrides` are values by the scenario's keys,
    as in `{"guest.hz": 1000, "machine.core": "neoverse-n2"}`. At most `jobs` designs run at once, each in a process of
    its own: by default as many as there are cores. `progress` is called with the label of a design, the share of its
    work that is done (0 to 1, and 1 once it has ended) and its virtual time in seconds.

    Every run is judged by the invariants, and says in its `violations` what was broken, unless `judge` is False; with
    `stop_on_violation` it ends at the first violation that counts.

    Blocks until every run has ended, also where an event loop runs. A design that cannot be had with these settings,
    or whose run fails, is among the result's `failures`. Raises UserError for what does not fit, and if none of the
    designs can be had.
    """
    if not _is_count(jobs):
        raise UserError(f"jobs={jobs}", "at least one design must run", "give 1 or more, or leave it out")
    for name, value in (("judge", judge), ("stop_on_violation", stop_on_violation)):
        if not isinstance(value, bool):
            raise UserError(f"{name}={value!r}", "neither True nor False", f"write {name}=True or {name}=False")
    if stop_on_violation and not judge:
        raise UserError("judge=False", "nothing stops a run that is not judged", "leave out stop_on_violation=True")
    loaded = load(
        scenario,
        designs=_names(designs),
        overrides=_by_key(overrides),
        judge=judge,
        stop_on_violation=stop_on_violation,
    )
    with _interruptible():
        return run_designs(loaded, jobs=jobs, progress=progress)


def _is_count(jobs: Any) -> bool:
    return jobs is None or (isinstance(jobs, int) and jobs >= 1)


def _names(designs: Any) -> list[str]:
    """What `run` was given as designs. Raises UserError."""
    names = [designs] if isinstance(designs, str) else list(designs) if isinstance(designs, Iterable) else [designs]
    if not all(isinstance(name, str) for name in names):
        remedy = 'write for example designs=["emulated", "partitioned,swap=lazy"]'
        raise UserError(f"designs={designs!r}", "designs are given by their names", remedy)
    return names


def _by_key(overrides: Any) -> Mapping[str, Any]:
    """What `run` was given as overrides. Raises UserError."""
    if overrides is None:
        return {}
    if not isinstance(overrides, Mapping) or not all(isinstance(key, str) for key in overrides):
        remedy = 'write for example overrides={"guest.hz": 1000}'
        raise UserError(f"overrides={overrides!r}", "not a mapping of keys to values", remedy)
    return overrides


def at_once(loaded: Scenario, jobs: int | None) -> int:
    """How many designs of a scenario run at once, each in a process of its own."""
    return min(jobs or len(os.sched_getaffinity(0)), len(loaded.experiments))


def run_designs(
    loaded: Scenario,
    *,
    jobs: int | None = None,
    progress: Progress | None = None,
    execute: Execute | None = None,
    finished: Callable[[Result], None] | None = None,
) -> Result:
    """Run every design of a scenario; `finished` is called with the result so far, after each of them.

    With `execute` they run one after another in this process, by it.
    """
    outcomes: dict[int, Result | str] = {}
    reached = [0.0] * len(loaded.experiments)  # in virtual seconds

    def tell(index: int, share: float, seconds: float) -> None:
        reached[index] = seconds
        if progress is not None:
            progress(label(loaded.experiments[index].design), share, seconds)

    def end(index: int, outcome: Result | str) -> None:
        outcomes[index] = outcome
        tell(index, 1.0, reached[index] if isinstance(outcome, str) else outcome.runs[0].virtual_seconds)
        if finished is not None:
            finished(_join(loaded, outcomes))

    several = at_once(loaded, jobs)
    if execute is None and (several > 1 or _in_event_loop()):
        workers.run(loaded.experiments, several, tell, end)
    else:
        _run_here(loaded.experiments, execute or _execute_embedded, tell, end)
    return _join(loaded, outcomes)


def _run_here(
    experiments: Sequence[Experiment],
    execute: Execute,
    tell: Callable[[int, float, float], None],
    end: Callable[[int, Result | str], None],
) -> None:
    """One after another, in this process."""
    for index, experiment in enumerate(experiments):

        def tell_one(share: float, seconds: float, index: int = index) -> None:
            tell(index, share, seconds)

        try:
            outcome: Result | str = execute(experiment, tell_one)
        except (SimulationError, TopologyError) as error:
            outcome = str(error)
        end(index, outcome)


def _execute_embedded(experiment: Experiment, progress: Callable[[float, float], None]) -> Result:
    # Only who simulates loads the simulation.
    from pmulab.embedded import run_embedded

    return run_embedded(experiment, progress)


def _join(loaded: Scenario, outcomes: Mapping[int, Result | str]) -> Result:
    """The result of what has ended so far, in the order asked for."""
    runs, failures = [], list(loaded.refused)
    asked = len(loaded.experiments) + len(loaded.refused)
    places = sorted(set(range(asked)) - {failure.index for failure in loaded.refused})
    for index, outcome in sorted(outcomes.items()):
        design = loaded.experiments[index].design
        if isinstance(outcome, str):
            failed = Design(design.name, dict(design.axes))
            failures.append(Failure(places[index], failed, refused=False, problem=outcome, remedy=""))
        else:
            (run,) = outcome.runs
            runs.append(replace(run, published=loaded.published.get(label(design))))
    topology = next((outcome.topology for outcome in outcomes.values() if isinstance(outcome, Result)), "embedded")
    return results.join(
        loaded.experiments[0],
        topology,
        runs,
        sorted(failures, key=lambda failure: failure.index),
        assumed=loaded.assumed,
        fitted=loaded.fitted,
    )


def _in_event_loop() -> bool:
    """Is trio or asyncio running in this thread? Then trio cannot be started in it for a run."""
    if trio.lowlevel.in_trio_run():
        return True
    return _in_asyncio()


def _in_asyncio() -> bool:
    asyncio = sys.modules.get("asyncio")  # a loop runs only if somebody has imported it
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends the block at once: under `asyncio.run` it would only cancel a task, which cannot run meanwhile."""
    if not _in_asyncio() or threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
