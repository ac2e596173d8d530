"""`pmulab check` as a user has it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from pmulab.exit_status import INTERRUPTED, UNSEARCHED


def check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pmulab", "check", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


SHORT = ("--walks", "8", "--deck", "swap", "--world", "pair")


def test_nothing_found_says_what_was_not_exercised_and_ends_with_0(tmp_path: Path) -> None:
    done = check(tmp_path, "partitioned", *SHORT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("partitioned: nothing found; ")
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
    assert err == "pmulab: interrupted: 0 of 4 decks were searched to their end\n"


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


def test_the_time_that_is_said_is_what_it_takes(tmp_path: Path) -> None:
    done = check(tmp_path, "partitioned", "--deck", "swap", "--seconds", "1")
    assert done.returncode == 0
    assert "nothing found" in done.stdout
