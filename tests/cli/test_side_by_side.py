"""Designs of one run in worker processes: what they give, how they are told of, and that none is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pmulab import batch, exit_status, scenario
from pmulab.embedded import run_embedded
from pmulab.progress import Estimate, Progress
from services import typed_json
from services.experiment import Experiment
from services.kvm.errors import SimulationError
from services.result import Result

SECONDS = 30.0
SHORT = ("--set", "guest.task.seconds=0.01")
LONG = ("run", "gzip-record", "--jobs", "2")


def pmulab(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pmulab", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)


def digests(*arguments: str) -> dict[str, str]:
    whole = json.loads(pmulab("run", "quick", "--json", *SHORT, *arguments).stdout)
    return {run["design"]["name"]: run["digest"] for run in whole["runs"]}


def test_the_digests_are_those_of_one_process() -> None:
    designs = [word for design in ("mediated", "emulated", "partitioned") for word in ("--design", design)]
    alone = digests(*designs, "--jobs", "1")
    assert list(alone) == ["mediated", "emulated", "partitioned"]
    assert digests(*designs, "--jobs", "2") == alone
    assert digests(*designs, "--jobs", "3") == alone


def workers_of(pid: int) -> set[int]:
    """The worker processes that a process has started."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"pmulab.worker" in (process / "cmdline").read_bytes().split(b"\0"):
                found.add(int(process.name))
    return found


def has_gone(pid: int) -> bool:
    """Has it ended? Nobody may have waited for it yet."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class LongRun:
    """Both designs of a long scenario, their workers at work."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "pmulab", *LONG]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: len(workers_of(self.process.pid)) == 2)
        self.workers = workers_of(self.process.pid)

    def end(self) -> tuple[int, str]:
        """Its exit status and what it wrote to standard error; its workers have gone."""
        began = time.monotonic()
        _, errors = self.process.communicate(timeout=SECONDS)
        assert time.monotonic() - began < 5
        wait_for(lambda: all(has_gone(pid) for pid in self.workers))
        return self.process.returncode, errors


def test_ctrl_c_ends_all_of_them_with_130_and_one_line() -> None:
    run = LongRun()
    run.process.send_signal(signal.SIGINT)
    assert run.end() == (exit_status.INTERRUPTED, "pmulab: interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_whoever_started_them(number: signal.Signals) -> None:
    run = LongRun()
    run.process.send_signal(number)
    assert run.end() == (-number, "")


# Two designs, the worker of the first of which kills itself once it simulates.
KILLED = """
import os, pmulab.embedded as embedded
from services.experiment import Experiment
def run_embedded(experiment, progress, run=embedded.run_embedded):
    if experiment.design.name == "emulated":
        os.kill(os.getpid(), 9)
    return run(experiment, progress)
embedded.run_embedded = run_embedded
"""


def test_a_worker_that_dies_is_its_designs_failure_and_the_others_finish(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(KILLED)
    done = subprocess.run(
        [sys.executable, "-m", "pmulab", "run", "quick", "--json", "--jobs", "2", *SHORT],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    whole = json.loads(done.stdout)
    assert done.returncode == exit_status.FAILED
    assert done.stderr == "pmulab: emulated: its process was killed by SIGKILL\n"
    assert [run["design"]["name"] for run in whole["runs"]] == ["partitioned"]
    (failure,) = whole["failures"]
    assert (failure["index"], failure["design"]["name"], failure["refused"]) == (0, "emulated", False)


def test_what_a_worker_died_of_is_told(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(KILLED.replace("os.kill(os.getpid(), 9)", "raise LookupError('oh')"))
    done = subprocess.run(
        [sys.executable, "-m", "pmulab", "run", "quick", "--jobs", "2", *SHORT],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == exit_status.FAILED
    assert done.stderr.startswith("Traceback ")
    assert done.stderr.endswith("pmulab: emulated: its process died with exit status 1: LookupError: oh\n")


def test_a_simulation_error_is_its_designs_failure_and_the_others_finish() -> None:
    def fail_emulated(experiment: Experiment, progress: Callable[[float, float], None]) -> Result:
        if experiment.design.name == "emulated":
            raise SimulationError("virtual time stands still")
        return run_embedded(experiment, progress)

    loaded = scenario.load("quick", overrides=["guest.task.seconds=0.002"])
    result = batch.run_designs(loaded, execute=fail_emulated)
    (failure,) = result.failures
    assert (failure.index, str(failure), failure.refused) == (0, "virtual time stands still", False)
    assert [run.design.name for run in result.runs] == ["partitioned"]


def test_a_worker_says_what_the_simulation_failed_of() -> None:
    program = (
        "import sys, pmulab.worker as worker\n"
        "from services.kvm.errors import SimulationError\n"
        "def fail(*_): raise SimulationError('virtual time stands still')\n"
        "worker.run_embedded = fail\n"
        "print('what a design prints')\n"
        "sys.exit(worker.main())\n"
    )
    experiment = scenario.load("quick").experiments[0]
    done = subprocess.run(
        [sys.executable, "-c", program], input=typed_json.dumps(experiment), capture_output=True, timeout=SECONDS
    )
    assert done.stdout.splitlines()[-1] == b'{"failure":"virtual time stands still"}'
    assert done.returncode == 0


def test_one_bar_shows_all_designs_in_the_width_of_the_terminal() -> None:
    progress = Progress(["emulated", "partitioned"])
    progress.update("emulated", 0.5, 1.0)
    line = progress.line(79, 12.3)
    assert re.fullmatch(r"emulated \[#+\.+\]  50 %  partitioned \[\.+\]   0 %  12 s", line)
    assert len(line) <= 79
    many = Progress([f"partitioned,swap=lazy,pmcr={number}" for number in range(9)])
    many.update("partitioned,swap=lazy,pmcr=1", 0.0, 0.0)
    many.update("partitioned,swap=lazy,pmcr=1", 0.9, 1.0)
    assert re.fullmatch(r"9 designs \[\.{5}\]  10 %  12 s, 111 s left", many.line(79, 12.3)), "1.4 and 8 times 13.7"
    assert len(many.line(20, 12.3)) <= 20


def test_the_end_is_estimated_from_what_has_been_done_since_a_design_was_first_heard_of() -> None:
    estimate = Estimate(["emulated"], 1)
    estimate.tell("emulated", 0.25, 1.0)
    assert estimate.left(1.0) is None
    estimate.tell("emulated", 0.5, 3.0)
    assert estimate.left(3.0) == 4.0


@pytest.mark.parametrize("at_once", [1, 2])
def test_designs_of_equal_length_end_when_they_were_estimated_to(at_once: int) -> None:
    """Four of ten seconds each, which tell of their progress once a second, the last time before they have ended."""
    designs, length = ["a", "b", "c", "d"], 10
    estimate = Estimate(designs, at_once)
    end = length * len(designs) // at_once
    for second in range(end):
        begun = second // length * at_once
        for design in designs[:begun][-at_once:] if second % length == 0 else []:
            estimate.tell(design, 1.0, second)
        for design in designs[begun : begun + at_once]:
            estimate.tell(design, second % length / length, second)
        if second:
            assert estimate.left(second) == pytest.approx(end - second)


def test_a_design_that_waits_begins_as_soon_as_another_has_ended() -> None:
    estimate = Estimate(["short", "long", "next"], 2)
    for design in ("short", "long"):
        estimate.tell(design, 0.0, 0.0)
    estimate.tell("short", 1.0, 4.0)
    estimate.tell("long", 0.4, 4.0)
    assert estimate.left(4.0) == 7, "(4 + 10) / 2 for the one that has not begun, and 6 of the long one"
