"""`pmulab run`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any

import orjson
import trio

from pmulab import report, scenario
from pmulab.designs import label
from pmulab.progress import Progress
from pmulab.scenario import Published
from services import embedded, result
from services.errors import UserError
from services.experiment import Experiment
from services.kvm.simulation import Simulation

TERMINATED = 128 + 15  # SIGTERM
_WRITABLE = "give a directory that can be written to"


def main(arguments: argparse.Namespace) -> int:
    loaded = scenario.load(
        arguments.scenario, designs=arguments.design, overrides=arguments.overrides, seed=arguments.seed
    )
    out = None if arguments.out is None else _directory(arguments.out)
    whole = result.begin(loaded.name, loaded.seed, arguments.topology)
    execute = _embedded if arguments.topology == "embedded" else _processes
    for experiment in loaded.experiments:
        name = label(experiment.design)
        with Progress(name) as progress:
            run = execute(experiment, progress)
        whole["runs"].append({**run, "published": _published(loaded.published, name)})
        if out is not None:
            _write(out / "result.json", whole)
    if arguments.json:
        sys.stdout.buffer.write(orjson.dumps(whole, option=orjson.OPT_INDENT_2) + b"\n")
        return 0
    text = report.render(whole, why=arguments.why)
    sys.stdout.write(text + report.notes("Assumed", loaded.assumed) + report.notes("Fitted", loaded.fitted))
    return 0


def _embedded(experiment: Experiment, progress: Progress) -> dict[str, Any]:
    def update(simulation: Simulation) -> None:
        total, left = simulation.progress()
        progress.update(1 - left / total if total else 0.0, simulation.now / experiment.frequency_hz)

    return result.run(experiment, trio.run(embedded.run, experiment, update))


def _processes(experiment: Experiment, progress: Progress) -> dict[str, Any]:
    # Embedded runs need neither gRPC nor sockets: what they do not use is not loaded.
    from pmulab import topology
    from pmulab.commands.signals import stopped_by_signal

    async def supervised() -> dict[str, Any]:
        run: dict[str, Any] = {}
        async with stopped_by_signal() as stopped:
            run = await topology.run(experiment, progress.update)
        if stopped.signal == signal.SIGTERM:
            raise SystemExit(TERMINATED)
        if stopped.signal:
            raise KeyboardInterrupt
        return run

    with topology.translate_call_errors():
        return trio.run(supervised)


def _published(published: Published | None, design: str) -> dict[str, Any] | None:
    """The published numbers of one design, with their source; None if there are none."""
    if published is None:
        return None
    times = {kind: by_design[design] for kind, by_design in published.times.items() if design in by_design}
    return {"source": published.source, **times} if times else None


def _directory(name: str) -> Path:
    path = Path(name)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {name}", str(error.strerror), _WRITABLE) from None
    if not os.access(path, os.W_OK):
        raise UserError(f"--out {name}", "not writable", _WRITABLE)
    return path


def _write(path: Path, whole: dict[str, Any]) -> None:
    """In one step: a reader, or a run that is killed, never leaves half a result."""
    partial = path.with_suffix(".partial")
    try:
        partial.write_bytes(orjson.dumps(whole, option=orjson.OPT_INDENT_2) + b"\n")
        partial.replace(path)
    except OSError as error:
        raise UserError(f"--out: {path}", str(error.strerror), _WRITABLE) from None
