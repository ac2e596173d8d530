"""How the programs of `python -m pmulab…` end where they are cut short: no traceback, and a status that says it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pmulab import exit_status, scenario
from services import typed_json

QUICK = ["quick", "--set", "guest.task.seconds=0.002"]
LONG = ["gzip-record", "--design", "emulated"]


BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def program(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


@pytest.mark.parametrize(
    "command",
    [
        program("pmulab", "run", *QUICK),
        program("pmulab", "--help"),
        program("pmulab.curve", *QUICK, "guest.hz=100"),
        program("pmulab.curve", "--help"),
        program("pmulab.fit"),
        program("pmulab.fit", "--help"),
    ],
    ids=lambda command: " ".join(command[2:]),
)
def test_a_reader_that_goes_away_is_no_error(command: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, timeout=60, env=BUFFERED)
    assert (done.returncode, done.stderr) == (exit_status.BROKEN_PIPE, "")


@pytest.mark.parametrize("module", ["pmulab.curve", "pmulab.fit", "pmulab.worker"])
def test_ctrl_c_ends_it_with_130_and_one_line(module: str, tmp_path: Path) -> None:
    task = tmp_path / "task.json"
    (experiment,) = scenario.load("gzip-record", designs=["emulated"]).experiments
    task.write_bytes(typed_json.dumps(experiment))
    arguments = {"pmulab.curve": [*LONG, "guest.hz=250"]}.get(module, [])
    with task.open() as stdin:
        run = subprocess.Popen(
            program(module, *arguments),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=BUFFERED,
        )
    assert run.stdout is not None
    run.stdout.readline()  # the head of a table, or how far a worker has come
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=30)
    assert (run.returncode, errors) == (exit_status.INTERRUPTED, f"{module}: interrupted\n")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (b"", "empty; an experiment as JSON is expected"),
        (b"[", "not an experiment as JSON: "),
        (b"{}", "not an experiment as JSON: Experiment: field 'scenario' is missing"),
    ],
)
def test_a_worker_without_an_experiment_says_what_it_expects(given: bytes, problem: str) -> None:
    done = subprocess.run(program("pmulab.worker"), input=given, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (exit_status.BAD_INPUT, b"")
    assert done.stderr.decode().startswith(f"pmulab.worker: standard input: {problem}")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("module", ["pmulab", "pmulab.curve"])
def test_an_argument_that_is_missing_is_one_line_that_names_the_help(module: str) -> None:
    name = "pmulab" if module == "pmulab" else f"python -m {module}"
    done = subprocess.run(program(module), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (exit_status.BAD_INPUT, "")
    assert done.stderr.startswith(f"{name}: the following arguments are required: ")
    assert done.stderr.endswith(f"; see `{name} --help`\n")
    assert done.stderr.count("\n") == 1
