"""`pmulab up`, `inject` and `down`: processes that come up, work together, and end, however they are ended."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from pmulab.client import connect

SECONDS = 30.0

Pmulab = Callable[..., subprocess.CompletedProcess[str]]


class Up:
    """`pmulab up quick` in a runtime directory of its own."""

    def __init__(self, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "pmulab", "up", "quick", "--set", "guest.task.seconds=0.002"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        head = self.process.stdout.readline()
        assert head == "quick: emulated is up; Ctrl-C or `pmulab down` ends it\n", head + self.process.communicate()[1]
        lines = [self.process.stdout.readline() for _ in range(3)]
        self.addresses = dict(line.split() for line in lines)
        self.children = children_of(self.process.pid)

    def wait(self) -> tuple[int, str]:
        """Its exit status and what it wrote to standard error; all its processes have gone."""
        _, errors = self.process.communicate(timeout=SECONDS)
        wait_until_gone(self.children.values())
        return self.process.returncode, errors


def children_of(pid: int) -> dict[str, int]:
    """The actors that a launcher has started, by module."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == pid:
                words = (process / "cmdline").read_text().split("\0")
                found[words[words.index("-m") + 1].removeprefix("services.")] = int(process.name)
    return found


def wait_until_gone(pids: Iterable[int]) -> None:
    """They belong to the launcher, which has ended: nobody else can be asked to wait for them."""
    deadline = time.monotonic() + SECONDS
    left = set(pids)
    while left:
        left = {pid for pid in left if Path(f"/proc/{pid}").exists()}
        assert time.monotonic() < deadline, f"processes {left} are still there"
        time.sleep(0.01)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}


@pytest.fixture
def up(environment: dict[str, str]) -> Iterator[Up]:
    topology = Up(environment)
    yield topology
    if topology.process.poll() is None:
        topology.process.kill()
        topology.process.communicate()
        wait_until_gone(topology.children.values())


@pytest.fixture
def pmulab(environment: dict[str, str]) -> Pmulab:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pmulab", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=SECONDS)

    return run


def test_a_task_is_injected_and_runs(up: Up, pmulab: Pmulab, tmp_path: Path) -> None:
    work = tmp_path / "work.toml"
    work.write_text('[task]\nworkload = "sha256"\nseconds = 0.001\nperf = { verb = "stat", events = "LLC-loads" }\n')
    done = pmulab("inject", "vm0", str(work))
    assert done.stderr == ""
    assert done.stdout.startswith("injection 1 took effect at entry ")
    with connect(up.addresses["kvm"]) as lab:
        (run,) = lab.result(wait=True).runs
    injected = run.guests[0].events[-1]
    assert (injected.event, injected.truth > 0) == ("LLC-loads", True)


WRONG = [
    ("vm7", '[perf]\nverb = "stat"\nevents = "cycles"\n', "vm7"),
    ("vm0/7", '[perf]\nverb = "stat"\nevents = "cycles"\n', "vCPU 7"),
    ("vm0/x", "", "'x' is not the number of a CPU"),
    ("vm0/4294967296", "", "'4294967296' is not the number of a CPU"),
    ("vm0", '[perf]\nverb = "stat"\nevents = "cylces"\n', ":3: unknown event 'cylces'"),
    ("vm0", "[perf]\n[task]\n", ":2: it must hold one table, [task], [perf] or [sysfs]"),
    ("host", "[sysfs]\nreserved_host_counters = 1\n", "EACCES: it is read at boot only"),
    ("vm0", "[sysfs]\nreserved_host_counters = 1\n", "reserved_host_counters is the host's"),
    ("vm0", None, "no such file"),
]


def test_a_wrong_injection_is_one_line_and_status_2(up: Up, pmulab: Pmulab, tmp_path: Path) -> None:
    for number, (target, text, message) in enumerate(WRONG):
        path = tmp_path / f"work{number}.toml"
        if text is not None:
            path.write_text(text)
        done = pmulab("inject", target, str(path))
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert message in done.stderr


def test_down_ends_it(up: Up, pmulab: Pmulab, tmp_path: Path) -> None:
    done = pmulab("down")
    assert (done.returncode, done.stdout, done.stderr) == (0, "quick has ended\n", "")
    assert up.wait()[0] == 0
    assert list((tmp_path / "pmulab").iterdir()) == []


def test_down_says_what_runs(up: Up, pmulab: Pmulab) -> None:
    done = pmulab("down", "--topology", "slow")
    assert (done.returncode, done.stderr) == (2, "pmulab: no topology 'slow' is running; there are: quick\n")


def test_down_without_a_topology(pmulab: Pmulab) -> None:
    done = pmulab("down")
    message = "pmulab: no topologies are running; start one with `pmulab up SCENARIO`\n"
    assert (done.returncode, done.stderr) == (2, message)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(up: Up, tmp_path: Path, number: signal.Signals) -> None:
    with connect(up.addresses["kvm"]) as lab:
        lab.result(wait=True)
    up.process.send_signal(number)
    assert up.wait() == (0, "")
    assert list((tmp_path / "pmulab").iterdir()) == []


@pytest.mark.parametrize(("module", "actor"), [("kvm", "kvm"), ("host_perf", "host_perf"), ("guest", "vm0")])
def test_a_death_is_named_and_ends_the_others(up: Up, tmp_path: Path, module: str, actor: str) -> None:
    os.kill(up.children[module], signal.SIGKILL)
    status, errors = up.wait()
    assert status == 1
    assert errors.splitlines()[-1] == f"pmulab: {actor} was killed by SIGKILL; the other processes were stopped"
    assert "Traceback" not in errors
    assert list((tmp_path / "pmulab").iterdir()) == []


def test_a_killed_launcher_leaves_nothing_running(up: Up, pmulab: Pmulab, tmp_path: Path) -> None:
    up.process.kill()
    up.wait()
    assert pmulab("down").returncode == 2
    assert list((tmp_path / "pmulab").iterdir()) == []


def test_two_topologies_of_one_scenario(up: Up, pmulab: Pmulab, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pmulab", "up", "quick"]
    second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert second.stdout is not None
    assert second.stdout.readline().startswith("quick-2: ")
    assert "there are: quick, quick-2" in pmulab("down").stderr
    assert pmulab("down", "--topology", "quick-2").stdout == "quick-2 has ended\n"
    second.communicate(timeout=SECONDS)
    assert up.process.poll() is None


def test_a_runtime_directory_that_others_may_read_is_refused(pmulab: Pmulab, tmp_path: Path) -> None:
    (tmp_path / "pmulab").mkdir(mode=0o755)
    done = pmulab("up", "quick")
    assert done.returncode == 2
    assert "not a private directory of yours; remove it, or chmod 0700 it" in done.stderr


def test_a_full_runtime_directory_is_one_line_and_status_2(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pmulab", "up", "quick"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=SECONDS,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )
    assert done.returncode == 2
    message = "File too large; set XDG_RUNTIME_DIR to a directory that can be written to"
    assert done.stderr == f"pmulab: {tmp_path}/pmulab/quick: {message}\n"
    assert list((tmp_path / "pmulab").iterdir()) == []


def test_who_ended_before_whom_is_told(up: Up) -> None:
    os.kill(up.children["guest"], signal.SIGTERM)
    status, errors = up.wait()
    assert status == 1
    assert errors == "pmulab: vm0 ended before kvm, host_perf; the other processes were stopped\n"
