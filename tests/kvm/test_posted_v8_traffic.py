"""What v8's own code did on an emulated CPU is what is done here: in `partitioned-v8`, and for emulated VMs and those
without a PMU beside it (`tests.kvm.posted_traffic`); and what a Linux guest did traps where it did
(`tests.kvm.linux_traffic`)."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from services.experiment import DesignSpec
from tests.kvm.linux_traffic import DESIGNS, complete, host_accesses, made_by_host, traffic, trapped
from tests.kvm.posted_traffic import replay
from tests.kvm.recordings import RECORDINGS, Recording, Vm, named, sequence, situation

BARE = [one for one in RECORDINGS if one["accesses"]]
LINUX = [one for one in RECORDINGS if "guest_sequence" in one]
PROGRAMS = [one for one in BARE if ["guest-trapped", "guest", "w", "PMEVTYPER1", "0x11"] in one["accesses"]]
SAME_HOST = [one for one in LINUX if complete(one)]

Rows = list[list[Any]]


def test_every_recording_is_done_again() -> None:
    assert len(BARE) + len(LINUX) == len(RECORDINGS)
    assert {situation(one).vm for one in BARE} == set(Vm)


@pytest.mark.parametrize("recording", BARE, ids=named)
async def test_what_kvm_and_the_driver_do_is_what_was_recorded(recording: Recording) -> None:
    assert (await replay(recording)).difference == ""


def _at(rows: Rows, phase: str, way: str, register: str) -> int:
    return next(at for at, row in enumerate(rows) if row[0].startswith(phase) and (row[2], row[3]) == (way, register))


def without_a_write(rows: Rows) -> None:
    del rows[_at(rows, "put", "w", "PMUSERENR")]


def another_value(rows: Rows) -> None:
    rows[_at(rows, "load", "w", "PMUSERENR")][4] = "0x7"


def another_order(rows: Rows) -> None:
    at = _at(rows, "load", "w", "MDCR_EL2")
    rows[at], rows[at + 1] = rows[at + 1], rows[at]


def not_trapped(rows: Rows) -> None:
    rows[_at(rows, "guest-trapped", "w", "PMEVTYPER1")][0] = "guest"


def more_at_the_end(rows: Rows) -> None:
    rows.append(["put", "kvm_vcpu_put_vhe", "w", "PMSELR", "0x0"])


@pytest.mark.parametrize("other", [without_a_write, another_value, another_order, not_trapped, more_at_the_end])
@pytest.mark.parametrize("recording", PROGRAMS, ids=named)
async def test_a_recording_of_something_else_differs(recording: Recording, other: Callable[[Rows], None]) -> None:
    changed = deepcopy(recording)
    other(changed["accesses"])
    assert (await replay(changed)).difference


@pytest.mark.parametrize(
    ("recording", "design"),
    [(one, design) for one in LINUX for design in DESIGNS[situation(one).vm]],
    ids=lambda one: one.name if isinstance(one, DesignSpec) else one["name"],
)
async def test_a_linux_guests_accesses_trap_or_go_direct_as_recorded(recording: Recording, design: DesignSpec) -> None:
    made = await traffic(recording, design)
    assert trapped(made.own) == trapped(sequence(recording))


@pytest.mark.parametrize("recording", SAME_HOST, ids=named)
async def test_the_host_accesses_for_a_linux_guest_what_was_recorded(recording: Recording) -> None:
    vm = situation(recording).vm
    made = await traffic(recording, DESIGNS[vm][0])
    assert made_by_host(made, vm) == host_accesses(recording)
