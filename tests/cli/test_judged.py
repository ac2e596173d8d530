"""Every run is judged: what that does to its exit status, and how it is told, in every topology."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import pmulab
from pmulab import exit_status
from services.judge.invariants import INVARIANTS

HERE = Path(__file__).parent / "scenarios"
BROKEN = str(HERE / "one-pcpu-two-vms.toml")
ALL = json.dumps(list(INVARIANTS))
KNOWN = ("--set", f"known.partitioned-v8={ALL}")
CLEAN = ("quick", "--set", "guest.task.seconds=0.002")


@cache
def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pmulab", "run", *arguments], capture_output=True, text=True, timeout=60
    )


def the_run(*arguments: str, status: int) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert done.returncode == status, done.stderr
    (one,) = json.loads(done.stdout)["runs"]
    judged: dict[str, Any] = one
    return judged


def test_a_run_that_breaks_nothing_ends_with_0_and_says_what_was_not_exercised() -> None:
    done = run(*CLEAN)
    assert (done.returncode, done.stderr) == (exit_status.OK, "")
    assert "\nviolations " in done.stdout
    assert "\nnot exercised " in done.stdout


def test_a_broken_invariant_ends_a_run_with_3_once_it_is_complete() -> None:
    done = run(BROKEN)
    assert done.returncode == exit_status.VIOLATED
    assert done.stderr.startswith("pmulab: partitioned-v8: broken: I")
    assert done.stderr.count("\n") == 1
    assert "\nInvariants " in done.stdout
    assert "\npartitioned-v8: I" in done.stdout, "the first in full"
    assert the_run(BROKEN, "--set", "kvm.designs=partitioned-v8", status=3)["guests"][1]["elapsed_seconds"] > 0.002


def test_3_wins_over_1() -> None:
    ends = ("--set", "guest.vm1.task.perf.events={L1-dcache-stores,cycles}")
    assert run(BROKEN, *ends, "--design", "partitioned").returncode == exit_status.FAILED
    assert run(BROKEN, *ends).returncode == exit_status.VIOLATED


def test_what_the_scenario_lists_as_known_is_found_and_does_not_count() -> None:
    done = run(BROKEN, *KNOWN)
    assert (done.returncode, done.stderr) == (exit_status.OK, "")
    assert "; known\n" in done.stdout
    assert "\nknown, not found " in done.stdout, "not all twelve are broken"
    counted, known = the_run(BROKEN, status=3), the_run(BROKEN, *KNOWN, status=0)
    assert known["digest"] == counted["digest"]
    assert all(one.pop("known") for one in known["violations"])
    assert not any(one.pop("known") for one in counted["violations"])
    assert known["violations"] == counted["violations"]


def test_what_is_known_of_one_design_is_not_of_another() -> None:
    one = the_run(BROKEN, status=3)
    assert one["known"] == []
    (first, *_) = one["violations"]
    others = [name for name in INVARIANTS if name != first["invariant"]]
    assert the_run(BROKEN, "--set", f"known.partitioned-v8={json.dumps(others)}", status=3)["known"] == others


def test_what_a_design_declares_is_found_and_marked_with_the_reason() -> None:
    one = the_run(BROKEN, "--design", "raw", status=0)
    assert one["violations"]
    assert all(found["declared"] for found in one["violations"])
    text = run(BROKEN, "--design", "raw").stdout
    assert f"; declared: {one['violations'][0]['declared']}\n" in text


@pytest.mark.parametrize("options", [(), ("--stop-on-violation",), ("--no-judge",)])
def test_a_topology_finds_the_same(options: tuple[str, ...]) -> None:
    status = exit_status.OK if "--no-judge" in options else exit_status.VIOLATED
    here, there = (the_run(BROKEN, *options, "--topology", name, status=status) for name in ("embedded", "processes"))
    for one in (here, there):
        del one["wall_seconds"]
    assert here == there


def test_it_stops_at_the_first_violation_that_counts_and_says_so() -> None:
    whole, stopped = the_run(BROKEN, status=3), the_run(BROKEN, "--stop-on-violation", status=3)
    assert not whole["stopped"]
    assert stopped["stopped"]
    found = [[(one["invariant"], one["kind"], one["cycle"]) for one in of["violations"]] for of in (stopped, whole)]
    assert found[0] == found[1][: len(found[0])], "the interaction in which the first was found runs to its end"
    assert len(found[0]) < len(found[1])
    assert stopped["virtual_seconds"] < whole["virtual_seconds"] / 2
    done = run(BROKEN, "--stop-on-violation")
    assert "\ncut short " in done.stdout
    assert done.stderr.endswith(", where the run was stopped\n")


LOCK = str(HERE.parents[1] / "kvm" / "scenarios" / "context-lock.toml")
HANGS = ("--design", "partitioned-v7", "--set", "host.perf.period=10_000_000")


def test_a_run_that_hangs_breaks_i12_and_ends_with_0_only_if_all_that_it_breaks_is_known() -> None:
    known = ("--set", f"known.partitioned-v7={ALL}")
    for more, status in (((), exit_status.VIOLATED), (known, exit_status.OK)):
        done = run(LOCK, *HANGS, *more)
        assert done.returncode == status, done.stderr
        assert "\ncut short " in done.stdout
        assert "\npartitioned-v7: I12 deadlock: the host gets nowhere: the mux timer " in done.stdout
        assert done.stderr.endswith(", where the run hung\n") is bool(status)
    assert "deadlock" not in run(LOCK, *HANGS, "--stop-on-violation").stderr, "something else was broken before"
    unjudged = run(LOCK, *HANGS, "--no-judge")
    assert unjudged.returncode == exit_status.FAILED
    assert unjudged.stderr.startswith("pmulab: partitioned-v7: pCPU 0 at cycle ")


def test_a_curve_says_which_of_its_lines_hung() -> None:
    curve = [sys.executable, "-m", "pmulab.curve", LOCK, "host.hz=250,1000", *HANGS, "--set"]
    done = subprocess.run(
        [*curve, f"known.partitioned-v7={ALL}"], capture_output=True, text=True, timeout=60, check=True
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith("pmulab.curve: 1000 partitioned-v7: hung: pCPU 0 at cycle ")


def test_what_does_not_count_stops_nothing() -> None:
    whole, known = the_run(BROKEN, *KNOWN, status=0), the_run(BROKEN, *KNOWN, "--stop-on-violation", status=0)
    assert (known["stopped"], known["digest"]) == (False, whole["digest"])
    first = whole["violations"][0]["invariant"]
    one = the_run(BROKEN, "--set", f"known.partitioned-v8={json.dumps([first])}", "--stop-on-violation", status=3)
    assert one["violations"][0]["invariant"] == first
    assert any(found["invariant"] != first for found in one["violations"])


def test_it_is_not_judged_if_that_is_asked_for_by_name() -> None:
    judged, unjudged = the_run(BROKEN, status=3), the_run(BROKEN, "--no-judge", status=0)
    assert judged["digest"] == unjudged["digest"]
    assert judged["judged"]
    assert {name: unjudged[name] for name in ("judged", "violations", "premises", "windows", "stopped")} == {
        "judged": False,
        "violations": [],
        "premises": {},
        "windows": {},
        "stopped": False,
    }
    assert "\nviolations      not judged\n" in run(BROKEN, "--no-judge").stdout


def test_nothing_stops_a_run_that_is_not_judged() -> None:
    done = run(BROKEN, "--no-judge", "--stop-on-violation")
    assert (done.returncode, done.stdout) == (exit_status.BAD_INPUT, "")
    assert done.stderr == "pmulab: --no-judge: nothing stops a run that is not judged; leave out --stop-on-violation\n"


def test_from_python() -> None:
    (one,) = pmulab.run(BROKEN).runs
    assert one.judged
    assert list(one.premises) == list(INVARIANTS)
    assert one.not_exercised == tuple(name for name, times in one.premises.items() if times == 0)
    assert all(found.counts and found.before for found in one.violations)
    (stopped,) = pmulab.run(BROKEN, stop_on_violation=True).runs
    assert stopped.stopped
    (unjudged,) = pmulab.run(BROKEN, judge=False).runs
    assert (unjudged.judged, unjudged.violations, unjudged.digest) == (False, (), one.digest)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"judge": 1}, "judge=1: neither True nor False; write judge=True or judge=False"),
        ({"stop_on_violation": "yes"}, "stop_on_violation='yes': neither True nor False; write"),
        ({"judge": False, "stop_on_violation": True}, "judge=False: nothing stops a run that is not judged; leave"),
    ],
)
def test_from_python_a_mistake_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(pmulab.UserError) as raised:
        pmulab.run(BROKEN, **arguments)
    assert str(raised.value).startswith(message)


def test_a_curve_names_the_points_that_break_an_invariant() -> None:
    points = [BROKEN, "guest.task.seconds=0.001,0.002"]
    command = [sys.executable, "-m", "pmulab.curve", *points, "--show", "elapsed"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == exit_status.VIOLATED
    told = [line.split(" broken: ")[0] for line in done.stderr.splitlines()]
    assert told == [f"pmulab.curve: {seconds} partitioned-v8:" for seconds in ("0.001", "0.002")]
    done = subprocess.run([*command, "--no-judge"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (exit_status.OK, "")
