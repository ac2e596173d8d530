"""perf stat -I: what is printed at each interval, and what it costs (dispatch_events, process_interval)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio

import pmulab
from pmulab import scenario
from pmulab.report import render
from services import embedded
from services.kvm.requests import Request
from services.result import Guest, Host, Interval, Result, Run, make

MACHINE = """
[machine]
core = "neoverse-n1"
"""
TASK = """
[[guest]]
pin = [0]
[[guest.task]]
workload = "gzip-random"
seconds = 0.1
"""


def result_of(tmp_path: Path, text: str) -> Result:
    path = tmp_path / "interval.toml"
    path.write_text(MACHINE + text)
    return pmulab.run(path)


def run(tmp_path: Path, text: str) -> Run:
    (made,) = result_of(tmp_path, text).runs
    return made


def add_up(of: Guest | Host) -> None:
    """The rows of each event are its total."""
    for event in of.events:
        rows = [row for row in of.intervals if (row.session, row.event) == (event.session, event.event)]
        assert sum(row.count or 0 for row in rows) == event.count
        assert sum(row.truth for row in rows) == event.truth
        assert sum(row.enabled_ns for row in rows) == event.enabled_ns
        assert sum(row.running_ns for row in rows) == event.running_ns


def of(rows: Sequence[Interval], event: str) -> list[Interval]:
    return [row for row in rows if row.event == event]


GUEST = f"""
{TASK}
[guest.task.perf]
verb = "stat"
interval_ms = 10
events = ["{{cycles,instructions,branches}}", "task-clock", "instructions"]
"""


def test_a_guests_intervals_add_up_to_its_counts(tmp_path: Path) -> None:
    guest = run(tmp_path, GUEST.replace(', "instructions"]', "]")).guests[0]
    add_up(guest)
    clock = of(guest.intervals, "task-clock")
    assert [round(row.time_ns / 10**7) for row in clock] == [*range(1, 11), 10], "the last when the program exits"
    assert all(row.count == pytest.approx(10**7, rel=0.01) for row in clock[:-1])
    assert 0 < (clock[-1].count or 0) < 10**7
    assert [row.event for row in guest.intervals[:4]] == ["cycles", "instructions", "branches", "task-clock"]
    times = {row.time_ns for row in guest.intervals[:4]}
    assert len(times) == 1, "one read"


def test_an_interval_begins_when_the_read_before_is_done(tmp_path: Path) -> None:
    """poll's time to sleep is the whole interval: what the reads take is added to it."""
    rows = of(run(tmp_path, GUEST).guests[0].intervals, "task-clock")
    late = [row.time_ns - (number + 1) * 10**7 for number, row in enumerate(rows[:-1])]
    assert late == sorted(late)
    assert 0 < late[0] < late[-1] < 10**6


def test_events_of_one_name_have_rows_of_their_own(tmp_path: Path) -> None:
    rows = of(run(tmp_path, GUEST).guests[0].intervals, "instructions")
    assert [row.nth for row in rows[:4]] == [0, 1, 0, 1]


def test_reading_costs_the_task_time(tmp_path: Path) -> None:
    """Each wake-up is two switches, on the PMU too, and a call for each group."""
    often, seldom, never = (
        run(tmp_path, GUEST.replace("interval_ms = 10\n", interval)).guests[0]
        for interval in ("interval_ms = 1\n", "interval_ms = 10\n", "")
    )
    assert often.elapsed_seconds > seldom.elapsed_seconds > never.elapsed_seconds
    assert never.intervals == ()
    assert len(of(often.intervals, "cycles")) == pytest.approx(1000 * often.elapsed_seconds, abs=3)


HOST = f"""
{TASK}
[[host.perf]]
verb = "stat"
interval_ms = 10
events = ["{{cycles,instructions}}", "branches"]
"""


def test_the_hosts_perf_takes_the_cpu_from_a_vcpu(tmp_path: Path) -> None:
    with_it, without = (run(tmp_path, text) for text in (HOST, HOST.replace("interval_ms = 10\n", "")))
    add_up(with_it.host)
    reads = len(of(with_it.host.intervals, "cycles"))
    assert reads >= 6
    loads = [one.guests[0].vcpu_load[0].times for one in (with_it, without)]
    assert loads[0] - loads[1] == reads - 1, "the last is read when the run ends"
    assert with_it.guests[0].elapsed_seconds > without.guests[0].elapsed_seconds
    assert with_it.time.host_kernel > without.time.host_kernel


def test_a_client_s_session_of_the_host_is_read_as_the_scenario_s_own_is(tmp_path: Path) -> None:
    path = tmp_path / "interval.toml"
    path.write_text(MACHINE + HOST)
    (of,) = scenario.load(str(path)).experiments
    (session,) = of.host.cpus[0].sessions
    without = replace(of, host=replace(of.host, cpus=(replace(of.host.cpus[0], sessions=()),)))
    client = trio.run(embedded.replay, without, [(0, Request("host", 0, session=replace(session, name="")))])
    host = make.of(without, client, "embedded").runs[0].host
    own = run(tmp_path, HOST).host
    add_up(host)
    assert {row.session for row in host.intervals} == {""}
    assert len(host.intervals) == len(own.intervals)
    for row, other in zip(host.intervals, own.intervals, strict=True):
        assert row.event == other.event
        assert row.time_ns == pytest.approx(other.time_ns, rel=0.001)
        assert row.truth == pytest.approx(other.truth, rel=0.01)


def test_a_session_on_cpus_is_summed_over_them(tmp_path: Path) -> None:
    text = HOST.replace("pin = [0]", "pin = [0, 1]").replace("[[guest.task]]", "[[guest.task]]\nvcpu = [0, 1]")
    made = run(tmp_path, "pcpus = 2\n" + text)
    add_up(made.host)
    times = [row.time_ns for row in of(made.host.intervals, "branches")]
    assert times == sorted(set(times)), "a row of both each time"


@pytest.mark.parametrize("on", ["", 'guest = "vm0"'])
def test_one_process_reads_a_session_on_several_cpus_one_after_the_other(tmp_path: Path, on: str) -> None:
    """affinity__set: it waits for its turn on each, and sleeps when it has been on all."""
    text = HOST.replace("pin = [0]", "pin = [0, 2]").replace('verb = "stat"', f'verb = "stat"\n{on}')
    text = text.replace("[[guest.task]]", "[[guest.task]]\nvcpu = [0, 1]").replace('"branches"', '"task-clock"')
    made = run(tmp_path, "pcpus = 3\n" + text)
    add_up(made.host)
    rows = of(made.host.intervals, "task-clock")
    times = [0, *(row.time_ns for row in rows)]
    assert times == sorted(times)
    cpus, tick = 2 if on else 3, 4_000_000
    turns = 2 * tick  # it has to wait for one on two of them
    for row, before, now in zip(rows[:-1], times, times[1:], strict=False):  # not what came after the last read
        assert abs(row.enabled_ns - cpus * (now - before)) <= turns
        assert now - before >= 10**7


def test_the_one_process_of_several_cpus_ends_if_it_cannot_open_its_events(tmp_path: Path) -> None:
    """The leader of a group that Arm's driver maps to nothing."""
    made = run(tmp_path, "pcpus = 2\n" + HOST.replace("{cycles,", "{ref-cycles,"))
    assert [one.session for one in made.host.refused_sessions] == ["host.perf.0"]
    assert made.host.intervals == ()
    assert made.time.idle > 0.99 * made.virtual_seconds, "the other pCPU's: nobody reads there"


def test_a_vcpus_thread_is_read_while_it_is_off_the_cpu(tmp_path: Path) -> None:
    text = HOST.replace('verb = "stat"', 'verb = "stat"\nguest = "vm0"')
    made = run(tmp_path, text)
    add_up(made.host)
    assert all(row.running_ns == row.enabled_ns for row in of(made.host.intervals, "branches"))


def test_a_hosts_task_is_read_for_the_last_time_when_it_exits(tmp_path: Path) -> None:
    """SIGCHLD ends the poll; after that perf is gone."""
    text = f"""
        {TASK}
        [[host.task]]
        name = "cron"
        workload = "sqlite"
        seconds = 0.02
        [host.task.perf]
        verb = "stat"
        interval_ms = 4
        events = "task-clock"
    """
    made = run(tmp_path, text)
    add_up(made.host)
    rows = made.host.intervals
    assert all(row.count for row in rows)
    assert rows[-1].time_ns < 0.6 * 10**9 * made.virtual_seconds


def test_perf_prints_them_as_its_own(tmp_path: Path) -> None:
    text = render(result_of(tmp_path, GUEST))
    assert "\nvm0: perf stat -I (guest.0.task.0.perf)\n#           time             counts unit events " in text
    guest = run(tmp_path, GUEST).guests[0]
    first = guest.intervals[0]
    seconds, ns = divmod(first.time_ns, 10**9)
    assert f"\n{seconds:6d}.{ns:09d} {first.count:>18,}      cycles   " in text
