"""`pmulab run`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import trio

from pmulab import batch, report, scenario, violations
from pmulab.designs import label
from pmulab.exit_status import FAILED, OK, TERMINATED, VIOLATED
from pmulab.progress import Progress
from services.errors import UserError
from services.experiment import Experiment
from services.result import Guest, Host, Result, Run

_WRITABLE = "give a directory that can be written to"


def main(arguments: argparse.Namespace) -> int:
    if arguments.stop_on_violation and not arguments.judge:
        raise UserError("--no-judge", "nothing stops a run that is not judged", "leave out --stop-on-violation")
    loaded = scenario.load(
        arguments.scenario,
        designs=arguments.design,
        overrides=arguments.overrides,
        seed=arguments.seed,
        judge=arguments.judge,
        stop_on_violation=arguments.stop_on_violation,
    )
    out = None if arguments.out is None else _directory(arguments.out)
    execute = None if arguments.topology == "embedded" else _execute_in_processes
    at_once = batch.at_once(loaded, arguments.jobs) if execute is None else 1
    with Progress([label(experiment.design) for experiment in loaded.experiments], at_once) as progress:
        result = batch.run_designs(
            loaded,
            jobs=arguments.jobs,
            progress=progress.update,
            execute=execute,
            finished=None if out is None else lambda so_far: _write(out / "result.json", so_far),
        )
    if arguments.json:
        sys.stdout.buffer.write(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        sys.stdout.write(report.render(result, why=arguments.why))
    sys.stdout.flush()
    for failure in result.failures:
        sys.stderr.write(f"pmulab: {report.head(failure.design, result)}: {failure}\n")
    ended, broken = [*_cut_short(result)], [*_broken(result)]
    for line in (*ended, *broken):
        sys.stderr.write(f"pmulab: {line}\n")
    if broken:
        return VIOLATED
    return FAILED if result.failures or ended else OK


def _cut_short(result: Result) -> Iterator[str]:
    """The perf sessions that did not run and the programs that a signal has killed: under which design, whose, why."""
    for run in result.runs:
        head = report.head(run.design, result)
        for where, of in _actors(run):
            for session in of.refused_sessions:
                yield f"{head}: {where}: perf {session.verb} ({session.session}): {session.reason}"
            for task in of.killed_tasks:
                yield f"{head}: {where}: {task.task} ({task.session}) was killed by {task.signal}: {task.reason}"


def _broken(result: Result) -> Iterator[str]:
    """The invariants that count as broken: under which design."""
    for run in result.runs:
        found = violations.counting(run)
        if found:
            yield f"{report.head(run.design, result)}: broken: {violations.named(found)}{_end(run)}"


def _end(run: Run) -> str:
    """Where it was before its work was done."""
    if run.hung:
        return ", where the run hung"
    return ", where the run was stopped" if run.stopped else ""


def _actors(run: Run) -> Iterator[tuple[str, Guest | Host]]:
    yield "host", run.host
    for guest in run.guests:
        yield guest.name, guest


def _execute_in_processes(experiment: Experiment, progress: Callable[[float, float], None]) -> Result:
    # Embedded runs need neither gRPC nor sockets: what they do not use is not loaded.
    from pmulab import topology
    from pmulab.commands.signals import stopped_by_signal

    async def supervised() -> Result | None:
        result = None
        async with stopped_by_signal() as stopped:
            result = await topology.run(experiment, progress)
        if stopped.signal == signal.SIGTERM:
            raise SystemExit(TERMINATED)
        if stopped.signal:
            raise KeyboardInterrupt
        return result

    with topology.translate_call_errors():
        result = trio.run(supervised)
    assert result is not None  # only a signal cuts it short
    return result


def _directory(name: str) -> Path:
    path = Path(name)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {name}", str(error.strerror), _WRITABLE) from None
    if not os.access(path, os.W_OK):
        raise UserError(f"--out {name}", "not writable", _WRITABLE)
    return path


def _write(path: Path, result: Result) -> None:
    """In one step: a reader, or a run that is killed, never leaves half a result."""
    partial = path.with_suffix(".partial")
    try:
        partial.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
        partial.replace(path)
    except OSError as error:
        raise UserError(f"--out: {path}", str(error.strerror), _WRITABLE) from None
