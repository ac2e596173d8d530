"""What `time` prints in a guest whose host takes time, too (Linux 6.12, kernel/sched/cputime.c)."""

from __future__ import annotations

from pathlib import Path

import pytest

import pmulab

# A host whose ticks take a fifth of the time.
GUEST = """
[machine.cost]
tick = "200 us"

[host]
hz = 1000

[[guest]]
hz = {hz}
accounting = "{accounting}"
pin = [0]

[[guest.task]]
workload = "sha256"
seconds = 0.4
kernel_share = {share}
"""


def times(tmp_path: Path, accounting: str, share: float, hz: int = 2) -> tuple[float, float]:
    """User and system time, as shares of the time elapsed."""
    path = tmp_path / "guest.toml"
    path.write_text(GUEST.format(hz=hz, accounting=accounting, share=share))
    (run,) = pmulab.run(path, designs=["partitioned"]).runs
    guest = run.guests[0]
    return guest.user_seconds / guest.elapsed_seconds, guest.system_seconds / guest.elapsed_seconds


@pytest.mark.parametrize("share", [0, 0.4])
@pytest.mark.parametrize("accounting", ["vtime", "vtime+irq"])
def test_vtime_has_the_hosts_time_where_the_guest_is(tmp_path: Path, accounting: str, share: float) -> None:
    """vtime_user_exit: what passes at EL0 is user time, whoever runs meanwhile, and what passes at EL1 is not."""
    user, system = times(tmp_path, accounting, share)
    assert user == pytest.approx(1 - share, abs=0.005)
    assert system == pytest.approx(share, abs=0.005)


def test_ticks_have_it_where_they_find_the_guest(tmp_path: Path) -> None:
    user, system = times(tmp_path, "tick", 0.4, hz=997)
    assert user + system == pytest.approx(1, abs=0.01)
    assert system == pytest.approx(0.4, abs=0.1)
