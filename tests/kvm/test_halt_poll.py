"""kvm_vcpu_halt: a vCPU polls before it blocks (virt/kvm/kvm_main.c, Linux 6.12)."""

from __future__ import annotations

from pathlib import Path

import pytest

import pmulab
from services.kvm.halt_poll import HaltPoll

US = 3000  # cycles at 3 GHz

GUEST = """
[[guest]]
pin = [0]
[[guest.task]]
workload = "stress"
seconds = "10 us"
sleep_ms = {sleep}
repeat = 100
[[host.perf]]
verb = "stat"
events = "cycles:H"
"""


def halted(poll: HaltPoll, *waits: int) -> list[int]:
    """How long it polls after each of these waits, in µs."""
    lengths = []
    for wait in waits:
        poll.begin(0)
        poll.end(wait * US)
        lengths.append(poll.length // US)
    return lengths


def test_the_time_of_a_vcpu_grows_with_short_waits_and_shrinks_with_long_ones() -> None:
    poll = HaltPoll.of(500 * US, 3_000_000_000)
    assert halted(poll, 100, 100, 100, 100, 100, 100) == [10, 20, 40, 80, 160, 160]
    assert halted(poll, 400, 499, 600, 500) == [320, 640, 250, 250]  # clamped to 500 when it halts next
    assert halted(poll, 5000, 5000, 5000, 5000, 5000, 5000) == [125, 62, 31, 15, 0, 0]


def test_without_a_limit_it_blocks_at_once() -> None:
    poll = HaltPoll.of(0, 3_000_000_000)
    assert halted(poll, 1, 100) == [0, 0]
    poll.begin(0)
    assert poll.until < 0


def run(tmp_path: Path, sleep: str, rest: str = "", **settings: object) -> pmulab.Run:
    path = tmp_path / "sleeper.toml"
    path.write_text(GUEST.format(sleep=sleep) + rest)
    overrides = {key.replace("__", "."): value for key, value in settings.items()}
    (one,) = pmulab.run(path, designs=["partitioned,swap=eager"], overrides=overrides).runs
    return one


def test_short_sleeps_are_polled_through_in_the_hosts_kernel(tmp_path: Path) -> None:
    blocks, polls = run(tmp_path, "0.06", kvm__halt_poll_ns=0), run(tmp_path, "0.06")
    assert blocks.bill.host["halt polling"] == 0
    assert blocks.kvm.swaps.loads == 100
    assert polls.kvm.swaps.loads < 10
    assert polls.bill.host["halt polling"] == pytest.approx(0.006, rel=0.1)
    assert polls.time.idle < 0.05 * blocks.time.idle
    (cycles,) = polls.host.events
    assert cycles.truth > 0.8 * polls.virtual_seconds * 3e9
    assert sum(polls.bill.host.values()) == pytest.approx(polls.time.host_kernel)


@pytest.mark.parametrize(("limit", "polled"), [("100 us", False), ("1ms", True)])
def test_the_limit_decides_what_is_polled_through(tmp_path: Path, limit: str, polled: bool) -> None:
    one = run(tmp_path, "0.3", kvm__halt_poll_ns=limit)
    assert (one.kvm.swaps.loads < 20) is polled


def test_it_does_not_poll_while_another_thread_waits(tmp_path: Path) -> None:
    """kvm_vcpu_can_poll: single_task_running()."""
    busy = run(tmp_path, "0.06", '[[host.task]]\nworkload = "sha256"\nseconds = 1\n')
    alone = run(tmp_path, "0.06")
    assert busy.bill.host["halt polling"] < alone.bill.host["halt polling"] / 2
