"""What the posted versions do wrong between two of KVM's operations, as a user sees it: `pmulab run`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
import trio

from pmulab import Run, scenario
from pmulab.exit_status import VIOLATED
from services import embedded
from services.embedded import Embedded
from services.kvm.errors import Livelock
from services.result import of as result_of
from services.result import read

HERE = Path(__file__).parent / "scenarios"
LOCK = str(HERE / "context-lock.toml")
FLAG = str(HERE / "lost-flag.toml")
TICK = "the tick (perf_adjust_freq_unthr_context)"
MUX_TIMER = "the mux timer (perf_rotate_context)"
PERIODS = "host.perf.period=10_000_000"  # instead of frequencies, for which the tick adjusts periods


async def ran(name: str, design: str, *overrides: str) -> Run:
    (of,) = scenario.load(name, designs=[design], overrides=overrides).experiments
    lab = Embedded.of(of)
    await lab.simulation.run()
    return result_of(of, lab.simulation.measured(await lab.simulation.result(), 0), "embedded").runs[0]


@pytest.mark.parametrize(("overrides", "who"), [((), TICK), ((PERIODS,), MUX_TIMER)])
async def test_v7_s_load_holds_the_lock_that_an_interrupt_s_handler_waits_for(
    overrides: tuple[str, ...], who: str
) -> None:
    """B56: a violation, and the run has a result up to there."""
    run = await ran(LOCK, "partitioned-v7", *overrides)
    assert f"{who} waits for the lock of perf's contexts" in run.hung
    (deadlock,) = (one for one in run.violations if one.invariant == "I12")
    assert (deadlock.kind, deadlock.victim, deadlock.times) == ("deadlock", "host", 1)
    assert f"pCPU {deadlock.cpu} at cycle {deadlock.cycle}: " in run.hung
    assert deadlock.broken in f"the host gets nowhere: {run.hung.partition(': ')[2]}"
    assert [seen.text for seen in deadlock.before[-2:]] == ["entry TIMER 0x3", "the CPU spins on a lock that it holds"]
    (guest,) = run.guests
    assert guest.vcpu_load[0].times > 0
    assert guest.events == run.host.events == (), "no perf has ended"


async def test_not_judged_it_is_an_error() -> None:
    (of,) = scenario.load(LOCK, designs=["partitioned-v7"], overrides=[PERIODS], judge=False).experiments
    with pytest.raises(Livelock, match=r"\(perf_rotate_context\) waits for the lock of perf's contexts"):
        await embedded.run(of)


@pytest.mark.parametrize("overrides", [(), (PERIODS,)])
@pytest.mark.parametrize("design", ["partitioned-v8", "partitioned-v9", "partitioned"])
async def test_no_later_load_does(design: str, overrides: tuple[str, ...]) -> None:
    (guest,) = (await ran(LOCK, design, *overrides)).guests
    assert guest.vcpu_load[0].times > 50


def test_in_processes_it_is_the_same_violation_and_nothing_is_left_running(tmp_path: Path) -> None:
    """The deadlock is of the simulated CPU, not of the topology."""
    command = [sys.executable, "-m", "pmulab", "run", LOCK, "--set", PERIODS]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    options = ["--design", "partitioned-v7", "--topology", "processes", "--json"]
    run = subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    printed, errors = run.communicate(timeout=120)
    assert run.returncode == VIOLATED, errors
    (there,) = read(orjson.loads(printed)).runs
    here = trio.run(ran, LOCK, "partitioned-v7", PERIODS)
    assert (there.digest, there.violations, there.hung) == (here.digest, here.violations, here.hung)
    (line,) = errors.splitlines()
    assert line.startswith("pmulab: partitioned-v7: broken: ")
    assert line.endswith("I12 deadlock, where the run hung")
    deadline = time.monotonic() + 30
    while processes_of(run.pid):
        assert time.monotonic() < deadline, processes_of(run.pid)
        time.sleep(0.05)


def processes_of(session: int) -> list[str]:
    """Those of a session that have not ended, by command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append((process / "cmdline").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def never_sampled(run: Run) -> list[int]:
    """By event of the guest: overflows of its counter that its handler never found."""
    (guest,) = run.guests
    lost = []
    for event in guest.events:
        period = int(event.event.partition("period=")[2].rstrip("/"))
        assert event.count is not None
        lost.append(event.count // period - event.samples - event.missed)
    return lost


NMI = "host.pseudo_nmi=true"


@pytest.mark.parametrize(
    ("design", "overrides", "loses"),
    [
        ("partitioned-v5", (), True),
        ("partitioned-v7", (), True),
        ("partitioned-v8", (), False),
        ("partitioned-v9", (), False),
        ("partitioned", (), False),
        ("partitioned-v8", (NMI,), True),
        ("partitioned-v9", (NMI,), True),
        ("partitioned", (NMI,), False),
    ],
)
async def test_a_flag_is_lost_and_its_event_samples_no_more(
    design: str, overrides: tuple[str, ...], loses: bool
) -> None:
    """B63, and with pseudo-NMIs N24: the guest's write of PMOVSCLR_EL0 in memory undoes what the host's handler has
    stored amid it, and that counter is next heard of 2^32 events later."""
    lost = never_sampled(await ran(FLAG, design, *overrides))
    assert (max(lost) > 5) is loses, lost
    assert loses or not any(lost)


@pytest.mark.parametrize(("design", "overrides"), [("partitioned-v7", ()), ("partitioned-v8", (NMI,))])
def test_it_is_lost_in_processes_alike(design: str, overrides: tuple[str, ...]) -> None:
    (of,) = scenario.load(FLAG, designs=[design], overrides=overrides).experiments
    here = trio.run(embedded.run, of)["digest"]
    options = ["--design", design, "--topology", "processes", "--json", *(f"--set={one}" for one in overrides)]
    done = subprocess.run(
        [sys.executable, "-m", "pmulab", "run", FLAG, *options], stdout=subprocess.PIPE, timeout=120, check=False
    )
    assert done.returncode == 3, "an invariant is broken"
    assert orjson.loads(done.stdout)["runs"][0]["digest"] == here
