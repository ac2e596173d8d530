"""`pmulab check` as a user has it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import orjson
import pytest

from pmulab.exit_status import FAILED, INTERRUPTED, TERMINATED, UNSEARCHED


def check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pmulab", "check", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


SHORT = ("--walks", "8", "--deck", "swap", "--world", "pair")


def test_nothing_found_says_what_was_not_exercised_and_ends_with_0(tmp_path: Path) -> None:
    done = check(tmp_path, "partitioned", *SHORT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("partitioned: nothing found; 1 of 1 parts searched, ")
    assert "not exercised: " in done.stdout
    assert "an action more comes to something new" in done.stdout
    assert not [*tmp_path.iterdir()], "there is nothing to write"


def test_what_is_found_reads_like_a_mail_and_ends_with_1(tmp_path: Path) -> None:
    done = check(tmp_path, "partitioned-v7", *SHORT)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("I1 ")
    assert any(line.strip().startswith("pCPU 0") for line in lines)
    assert any("vcpu_load(vm0/0)" in line for line in lines)
    replay = next(line for line in lines if line.startswith("  replay  pmulab run "))
    command = replay.split()[1:4]
    again = subprocess.run([sys.executable, "-m", *command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 3


def test_the_result_as_json_has_what_the_text_says(tmp_path: Path) -> None:
    done = check(tmp_path, "partitioned-v7", "partitioned", *SHORT, "--json", "--out", "elsewhere")
    assert done.returncode == 1
    posted, reference = orjson.loads(done.stdout)
    assert reference["findings"] == []
    assert reference["decks"][0]["actions"] > 100
    assert reference["decks"][0]["premises"]["I1"] > 0
    first = posted["findings"][0]
    assert (tmp_path / first["scenario"]).exists()
    assert first["violation"]["invariant"] == first["invariant"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("partitoned",), "pmulab: partitoned: unknown design 'partitoned'; did you mean partitioned"),
        (("partitioned", "--deck", "swop"), "pmulab: --deck swop: there is no such deck; did you mean swap?"),
        (("partitioned", "--world", "pear"), "pmulab: --world pear: there is no such world; did you mean pair?"),
        (("partitioned", "--deck", "swap", "--world", "none"), "pmulab: --world: none of the decks is in any of these"),
        (("partitioned", "--cpu", "neoverse-x"), "pmulab: "),
        (("partitioned", "--counters", "32"), "pmulab check: argument --counters: 32 is not from 0 to 31"),
        (("partitioned", "--seconds", "0"), "pmulab check: argument --seconds: invalid time '0'"),
        (("partitioned", "--deck", "swap", "--deck", "swap"), "pmulab: --deck swap: it is given twice; leave one out"),
        (("partitioned", "--world", "pair", "--world", "pair"), "pmulab: --world pair: it is given twice; "),
        (("partitioned", "--out", "/proc/here"), "pmulab: --out /proc/here: nothing can be written to /proc: "),
        (("partitioned", "--walks", "-1"), "pmulab check: argument --walks: "),
    ],
)
def test_a_mistake_is_one_line_and_ends_with_2(tmp_path: Path, arguments: tuple[str, ...], line: str) -> None:
    done = check(tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(line)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_ends_it_with_what_was_found_by_then(tmp_path: Path, jobs: str) -> None:
    arguments = ("partitioned-v7", "--deck", "swap", "--walks", "1000000", "--depth", "0", "--jobs", jobs)
    command = [sys.executable, "-m", "pmulab", "check", *arguments]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as check:
        time.sleep(6)
        check.send_signal(signal.SIGINT)
        out, err = check.communicate(timeout=60)
    assert check.returncode == INTERRUPTED
    assert out.startswith("I1 ")
    assert "nothing found" not in out
    assert err == "pmulab: interrupted: 0 of 4 parts were searched to their end\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--cpu", "cortex-a53", "--deck", "swap"), "pmulab: partitioned: nothing was searched\n"),
        (("--walks", "0", "--depth", "0"), "pmulab: partitioned: nothing was searched\n"),
    ],
)
def test_where_nothing_was_searched_it_is_not_said_that_nothing_was_found_with_status_0(
    tmp_path: Path, arguments: tuple[str, ...], line: str
) -> None:
    done = check(tmp_path, "partitioned", *arguments)
    assert (done.returncode, done.stderr) == (UNSEARCHED, line)


def test_where_what_is_found_cannot_be_written_is_said_before_the_search(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = check(tmp_path, "partitioned-v7", "--out", "file")
    assert done.returncode == 2
    assert done.stderr.startswith("pmulab: --out file: not a directory")


def test_a_mail_names_the_machine_that_was_chosen(tmp_path: Path) -> None:
    done = check(tmp_path, "partitioned-v7", *SHORT, "--cpu", "neoverse-n1", "--counters", "6")
    assert "but on neoverse-n1 and with 6 event counters on each pCPU" in done.stdout


def test_of_parts_that_are_refused_the_first_line_says_how_many(tmp_path: Path) -> None:
    done = check(tmp_path, "partitioned", "--deck", "swap", "--deck", "types", "--counters", "1", "--walks", "2")
    first = done.stdout.splitlines()[0]
    refused = sum(of.count(" in ") for of in done.stdout.split("cannot be had, ")[1:])
    assert refused > 0
    assert first.endswith(f"of 8 parts searched ({refused} refused)") or f" ({refused} refused), " in first


def test_files_of_an_earlier_search_are_kept_and_told_of(tmp_path: Path) -> None:
    (tmp_path / "pmulab-check").mkdir()
    earlier = tmp_path / "pmulab-check" / "I1-guest_read-0000.toml"
    earlier.touch()
    done = check(tmp_path, "partitioned", *SHORT)
    assert done.stdout.endswith("\npmulab-check also has 1 scenario that this search has not found\n")
    assert earlier.exists()


def test_what_cannot_be_written_is_printed_all_the_same(tmp_path: Path) -> None:
    """A full disk, say; here a limit on the size of a file."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))"
    limited = ("-c", f"import sys; {limit}; from pmulab.cli import main; sys.exit(main(sys.argv[1:]))")
    command = [sys.executable, *limited, "check", "partitioned-v7", *SHORT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == FAILED
    assert done.stdout.startswith("I1 ")
    assert ".toml could not be written: File too large" in done.stdout
    assert done.stderr.startswith("pmulab: --out pmulab-check: ")
    assert done.stderr.endswith(" not written: File too large\n")
    assert done.stderr.count("\n") == 1
    assert not [*(tmp_path / "pmulab-check").iterdir()], "half a file would be taken for a whole one"


def test_how_far_it_is_is_said_within_a_part_and_of_the_findings(tmp_path: Path) -> None:
    terminal, end = pty.openpty()
    words = ("partitioned-v7", "--deck", "swap", "--world", "pair", "--walks", "300", "--jobs", "1")
    command = [sys.executable, "-m", "pmulab", "check", *words]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=end) as process:
        os.close(end)
        said = b""
        with suppress(OSError):  # that is how the terminal ends
            while chunk := os.read(terminal, 1 << 16):
                said += chunk
    os.close(terminal)
    assert process.returncode == FAILED
    lines = said.decode().split("\r\x1b[K")
    walking = [line for line in said.decode().split("\r") if "swap in pair: " in line and " walks, " in line]
    assert len({*walking}) > 1
    assert any(" findings replayed, and their causes looked for" in line for line in said.decode().split("\r"))
    assert lines[-1] == "", "the line is cleared"


def children(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it never comes to be so")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_none_of_its_processes_outlives_it(tmp_path: Path, number: signal.Signals) -> None:
    words = ("partitioned", "--deck", "swap", "--walks", "1000000", "--depth", "0", "--jobs", "2")
    command = [sys.executable, "-m", "pmulab", "check", *words]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_until(lambda: len(children(process.pid)) == 2)
        workers = children(process.pid)
        process.send_signal(number)
        assert process.wait(60) == (TERMINATED if number == signal.SIGTERM else -number)
        wait_until(lambda: not any(map(runs, workers)))
