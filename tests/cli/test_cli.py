"""The command line as a user meets it: what it prints, its exit status, and that no mistake is a traceback."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from pmulab import exit_status
from services.judge.invariants import INVARIANTS

SHORT = ("--set", "guest.task.seconds=0.002")
SIGILL = str(Path(__file__).parents[1] / "repeatability" / "sigill.toml")


def pmulab(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pmulab", *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere"], "pmulab: nowhere: no such file; give a path, or the name of a shipped scenario"),
        (["run", "quick", "--design", "emulatd"], "pmulab: --design emulatd: unknown design 'emulatd'; did you mean"),
        (["run", "quick", "--set", "guest.hz=fast"], "pmulab: --set guest.hz=fast: guest.hz must be an integer"),
        (["run", "quick", "--set", "guest.hz=a\nb"], "pmulab: --set guest.hz=a\\nb: guest.hz must be an integer"),
        (["run", "quick", "a\nb"], "pmulab: unrecognized arguments: a\\nb; see"),
        (["run", ""], "pmulab: '': no such file; give a path, or the name of a shipped scenario"),
        (["run", "quick", "--seed", "x"], "pmulab run: argument --seed: invalid"),
        (["run", "quick", "--jobs", "0"], "pmulab run: argument --jobs: invalid number of jobs '0'"),
        (["run", "quick", "--seed", "-1"], "pmulab run: argument --seed: -1 is not from 0 to"),
        (["run", "quick", "--topology", "threads"], "pmulab run: argument --topology: invalid choice"),
        (["run", "quick", "--out", "/proc/nowhere"], "pmulab: --out /proc/nowhere: "),
        (["run"], "pmulab run: the following arguments are required: SCENARIO"),
        (["rum"], "pmulab: argument COMMAND: invalid choice"),
        ([], "pmulab: the following arguments are required: COMMAND"),
    ],
)
def test_a_users_mistake_is_one_line_and_status_2(arguments: list[str], message: str) -> None:
    done = pmulab(*arguments)
    assert done.returncode == exit_status.BAD_INPUT
    assert done.stdout == ""
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_a_result_that_cannot_be_written_is_one_line_and_status_2(tmp_path: Path) -> None:
    (tmp_path / "result.json").mkdir()
    done = pmulab("run", "quick", "--out", str(tmp_path), *SHORT)
    assert done.returncode == exit_status.BAD_INPUT
    message = f"pmulab: --out: {tmp_path}/result.json: Is a directory; give a directory that can be written to\n"
    assert done.stderr == message


def test_the_version() -> None:
    assert pmulab("--version").stdout == f"pmulab {version('pmulab')}\n"


@pytest.mark.parametrize(
    ("listing", "line"),
    [
        ("designs", "partitioned: the guest owns counters [0, HPMN) of the hardware"),
        ("designs", "    gives up towards the host: all invariants: the hypervisor counts nothing"),
        ("events", "  instructions                                     0x0008  INST_RETIRED"),
        ("registers", "PMCR_EL0          3,3,9,12,0 "),
    ],
)
def test_what_there_is(listing: str, line: str) -> None:
    assert any(printed.startswith(line) for printed in pmulab(listing).stdout.splitlines())


def test_run_prints_a_table_and_no_progress_without_a_terminal() -> None:
    done = pmulab("run", "quick", *SHORT)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.startswith("quick: seed 1, embedded, ")
    assert "emulated" in done.stdout
    assert "partitioned" in done.stdout


def scenario(name: str) -> str:
    return str(Path(__file__).parent / "scenarios" / f"{name}.toml")


@pytest.mark.parametrize("designs", [(), ("mediated", "partitioned")])
def test_an_event_that_one_design_refuses_is_refused_there_and_counted_in_the_others(designs: tuple[str, ...]) -> None:
    asked = [word for design in designs for word in ("--design", design)]
    done = pmulab("run", scenario("different-host-events"), *asked, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    runs = {run["design"]["name"]: run for run in json.loads(done.stdout)["runs"]}
    mediated = runs.pop("mediated")["host"]
    (other,) = (run["host"] for run in runs.values())
    assert [event["event"] for event in other["events"]] == ["cycles:G", "instructions:H"]
    assert [event["event"] for event in mediated["events"]] == ["instructions:H"]
    assert [(one["event"], one["reason"]) for one in mediated["refused"]] == [
        ("cycles:G", "it does not exclude guests (:H)")
    ]


def test_a_member_of_a_group_is_refused_and_the_same_event_alone_is_not() -> None:
    events = 'host.perf.events=["{cycles:H,instructions:G}","instructions:G","{cycles:H}"]'
    done = pmulab("run", scenario("different-host-events"), "--design", "mediated", "--set", events, "--json")
    (run,) = json.loads(done.stdout)["runs"]
    assert done.returncode == 0
    assert [event["event"] for event in run["host"]["events"]] == ["cycles:H", "cycles:H"]
    assert [(one["event"], one["nth"]) for one in run["host"]["refused"]] == [
        ("instructions:G", 0),
        ("instructions:G", 1),
    ]


@pytest.mark.parametrize(
    ("verb", "events"), [("record", "instructions:H,cycles:G"), ("stat", "{cycles:G,instructions:H}")]
)
def test_perf_ends_at_an_event_that_a_design_refuses(verb: str, events: str) -> None:
    """record__open, stat_handle_error: at any event, or at the leader of a group of several."""
    settings = [word for key in (f"verb={verb}", f"events={events}") for word in ("--set", f"host.perf.{key}")]
    done = pmulab("run", scenario("different-host-events"), "--design", "mediated", *settings, "--json")
    (run,) = json.loads(done.stdout)["runs"]
    assert done.returncode == exit_status.FAILED
    assert run["host"]["events"] == run["host"]["refused"] == []
    (ended,) = run["host"]["refused_sessions"]
    assert ended["verb"] == verb
    assert ended["reason"] == "cycles:G: EOPNOTSUPP: the PMU is the guests', and it does not exclude guests (:H)"
    assert run["guests"][0]["events"][0]["count"], "the rest goes on"


def test_a_program_that_a_signal_kills_is_told_and_the_run_goes_on() -> None:
    known = [f"known.partitioned-{version}={list(INVARIANTS)}" for version in ("v4", "v5")]
    sets = [word for override in known for word in ("--set", override)]
    done = pmulab("run", SIGILL, "--design", "partitioned-v4", "--design", "partitioned-v5", *sets, "--json")
    whole = json.loads(done.stdout)
    assert done.returncode == exit_status.FAILED
    assert whole["failures"] == []
    killed, none = (run["guests"][0]["killed_tasks"] for run in whole["runs"])
    assert none == []
    (one,) = killed
    assert done.stderr == (
        f"pmulab: partitioned-v4: vm0: gzip-random (guest.0.task.0.perf) was killed by SIGILL: {one['reason']}\n"
    )


@pytest.mark.parametrize("topology", ["embedded", "processes"])
def test_where_a_run_ends_that_cannot_go_on_is_told_once(tmp_path: Path, topology: str) -> None:
    """By kvm or by who runs it, in the same words."""
    path = tmp_path / "script.toml"
    switch, work = '{ party = "vm0/0", action = "switch" }', '{ party = "host/0", action = "run", cycles = 1 }'
    path.write_text(f"step = [\n  {switch},\n  {work},\n]\n[machine]\n[[guest]]\n")
    done = pmulab("run", str(path), "--topology", topology)
    assert (done.returncode, done.stderr) == (
        exit_status.FAILED,
        f"pmulab: emulated: {path}:3: step 2, host/0 run: vCPU 0 of vm0 runs on pCPU 0: preempt it before\n",
    )


def test_a_design_that_cannot_be_had_says_why_and_the_others_run() -> None:
    done = pmulab("run", scenario("one-design-refuses"), "--json")
    whole = json.loads(done.stdout)
    assert done.returncode == exit_status.FAILED
    assert [run["design"]["name"] for run in whole["runs"]] == ["emulated", "mediated"]
    (failure,) = whole["failures"]
    assert (failure["index"], failure["design"]["name"], failure["refused"]) == (2, "partitioned", True)
    assert "its PMU has no partition" in failure["problem"]
    assert done.stderr.startswith("pmulab: partitioned: ")
    assert done.stderr.count("\n") == 1
    text = pmulab("run", scenario("one-design-refuses")).stdout
    assert text.splitlines()[2].split() == ["emulated", "mediated", "partitioned"]


def test_if_no_design_can_be_had_it_is_the_users_mistake() -> None:
    done = pmulab("run", scenario("one-design-refuses"), "--design", "partitioned")
    assert (done.returncode, done.stdout) == (exit_status.BAD_INPUT, "")
    assert done.stderr.startswith("pmulab: --design partitioned: ")
    assert done.stderr.count("\n") == 1


def test_a_core_without_vhe_is_refused_by_name_with_cores_that_have_it() -> None:
    done = pmulab("run", scenario("core-without-vhe"))
    assert (done.returncode, done.stdout) == (exit_status.BAD_INPUT, "")
    where = f"{scenario('core-without-vhe')}:2"
    message = "cortex-a57 has no FEAT_VHE, and a host at EL1 is not modelled; take one of cortex-a55, "
    assert done.stderr.startswith(f"pmulab: {where}: {message}")


def test_every_run_names_the_assumed_costs_that_it_charges() -> None:
    text = pmulab("run", "quick", *SHORT).stdout
    notes = text.partition("\nCosts charged here that nobody has measured\n")[2]
    assert "  exit_full_sysreg: 400 ns: between" in notes
    assert "exit_fast" not in notes  # nothing took the fast path
    assert "exit_full_null" not in notes  # measured
    given = pmulab("run", "quick", *SHORT, "--set", "machine.cost.exit_full_sysreg=400 ns").stdout
    assert "  exit_full_sysreg: " not in given.partition("that nobody has measured\n")[2]


def test_the_help_says_that_a_seed_changes_nothing_yet() -> None:
    assert "nothing in the model is random yet" in " ".join(pmulab("run", "--help").stdout.split())


def test_why_prints_the_bill() -> None:
    assert "perf_release_create" in pmulab("run", "quick", "--why", *SHORT).stdout


def test_run_json_is_the_contract(tmp_path: Path) -> None:
    done = pmulab("run", "quick", "--json", "--out", str(tmp_path / "out"), "--seed", "7", *SHORT)
    whole: dict[str, Any] = json.loads(done.stdout)
    assert whole == json.loads((tmp_path / "out" / "result.json").read_text())
    head = ["schema", "version", "scenario", "seed", "topology"]
    assert list(whole) == [*head, "runs", "failures", "assumed", "fitted"]
    assert whole["failures"] == []
    assert (whole["schema"], whole["scenario"], whole["seed"], whole["topology"]) == (
        "pmulab.result/2",
        "quick",
        7,
        "embedded",
    )
    assert [run["design"]["name"] for run in whole["runs"]] == ["emulated", "partitioned"]
    for run in whole["runs"]:
        assert set(run) == {
            *("design", "digest", "virtual_seconds", "wall_seconds", "time", "cputime", "bill", "kvm", "guests"),
            *("host", "round_trips", "published", "choices", "assumed_costs", "steps"),
            *("judged", "violations", "premises", "windows", "known", "stopped", "hung"),
        }
        assert set(run["time"]) == set(run["cputime"]) == {"guest", "host_kernel", "host_user", "idle"}
        assert set(run["kvm"]) == {"traps", "swaps", "interrupts_injected"}
        assert run["kvm"]["traps"]["total"] == sum(run["kvm"]["traps"]["by_register"].values())
        (guest,) = run["guests"]
        assert guest["elapsed_seconds"] <= run["virtual_seconds"]
        assert sum(run["time"].values()) == pytest.approx(run["virtual_seconds"])
        assert sum(run["cputime"].values()) == pytest.approx(run["virtual_seconds"], abs=2 / 250)  # by whole ticks
        for event in guest["events"]:
            assert event["count"] <= event["truth"]
            assert event["running_ns"] <= event["enabled_ns"]


def test_published_numbers_stand_beside_the_designs_that_have_them() -> None:
    done = pmulab("run", "gzip-record", "--json", "--design", "partitioned-v1", "--set", "guest.task.repeat=1")
    (run,) = json.loads(done.stdout)["runs"]
    assert (run["published"]["elapsed_seconds"], run["published"]["system_seconds"]) == (3.139, 0.110)
    text = pmulab("run", "gzip-record", "--design", "partitioned-v1", "--set", "guest.task.repeat=1").stdout
    assert re.search(r"^real, predicted .*\n  published +3\.139 s$", text, re.MULTILINE)
    assert "\nPublished was another setting: here --set guest.task.repeat=1\n" in text
    assert "\nAssumed\n" in text
    assert "\nFitted\n" in text


def test_ctrl_c_ends_a_run_with_130_and_one_line() -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", f"import signal, sys, pmulab.cli as cli\n{_ANNOUNCED}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    run.stdout.readline()
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=30)
    assert (run.returncode, errors) == (exit_status.INTERRUPTED, "pmulab: interrupted\n")


# A run long enough to be interrupted, which says when it simulates.
_ANNOUNCED = """
from pmulab.progress import Progress
update = Progress.update
def announced(self, design, share, virtual_seconds):
    print("simulating", flush=True)
    update(self, design, share, virtual_seconds)
Progress.update = announced
sys.exit(cli.main(["run", "gzip-record", "--design", "emulated"]))
"""


def test_without_standard_error_it_does_the_same() -> None:
    command = f"exec {sys.executable} -m pmulab run "
    shell = ["sh", "-c", command + "quick --set guest.task.seconds=0.002 2>&-"]
    done = subprocess.run(shell, stdout=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stdout.split("\n", 1)[0]) == (
        0,
        f"quick: seed 1, embedded, pmulab {version('pmulab')}",
    )
    assert subprocess.run(["sh", "-c", command + "nowhere 2>&-"], timeout=60).returncode == exit_status.BAD_INPUT


def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "pmulab", "events"], stdout=gone, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert (done.returncode, done.stderr) == (exit_status.BROKEN_PIPE, "")


def test_a_terminal_gets_a_progress_line_which_is_cleared() -> None:
    terminal, errors = pty.openpty()
    with os.fdopen(errors, "w") as stderr:
        command = [sys.executable, "-m", "pmulab", "run", "quick", "--set", "guest.task.seconds=0.2"]
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
    shown = b""
    try:
        while chunk := os.read(terminal, 4096):
            shown += chunk
    except OSError:  # Linux: EIO once the other side is closed
        pass
    finally:
        os.close(terminal)
    assert run.wait(timeout=60) == 0
    assert b"\remulated [" in shown
    assert shown.endswith(b"\r\x1b[K")
