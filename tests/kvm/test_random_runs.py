"""Random worlds (`tests.kvm.random_runs`): nothing undeclared is found in them, and they are not vacuous."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from services.cpu import awaited
from services.kvm.declared import reasons
from services.kvm.designs import designs
from services.kvm.designs.emulated import EmulatedPmu
from services.kvm.guest_pmu import OF_COUNTERS
from services.kvm.vpmu import Access
from tests.kvm.random_runs import REFERENCE, judged, run
from tests.kvm.random_worlds import RandomWorld

RUNS = 100
ORDERLY = range(1, 41, 2)


@pytest.mark.parametrize("design", REFERENCE)
def test_nothing_undeclared_is_found_and_each_invariant_could_be_broken(design: str) -> None:
    found = run(design, range(RUNS))
    assert found.undeclared == []
    assert found.not_exercised == []
    assert found.windows["interrupt on its way"] > 0
    assert found.windows["view set by userspace"] > 0


async def test_what_has_happened_is_asked_for_again_on_another_cpu() -> None:
    """The vCPU's event came to a CPU whose turns had the number that those of the CPU before had had."""
    assert (await judged(RandomWorld(731, "emulated")))["violations"] == ()


@pytest.mark.parametrize("seed", [1777, 2065, 2191])
async def test_a_program_that_runs_before_its_vcpu_is_preempted_is_counted(seed: int) -> None:
    """Its kernel's handler ran to its end, and KVM_REQ_RESYNC_PMU_EL0 was left for after schedule()."""
    assert (await judged(RandomWorld(seed, "emulated")))["violations"] == ()


def test_where_guests_are_linux_and_nothing_is_short_the_emulated_vpmu_has_no_limit() -> None:
    """In the orderly worlds nothing is declared, so that whatever is broken there counts."""
    found = run("emulated", ORDERLY)
    assert (found.undeclared, found.declared) == ([], {})
    assert all(
        reasons(designs()["emulated"].make({}).declared, RandomWorld(n, "emulated").experiment()) == {} for n in ORDERLY
    )
    assert {"I1", "I3", "I4", "I5", "I7", "I8", "I9", "I10", "I12"} <= {
        one for one, worlds in found.met.items() if worlds
    }


def _dropped(*_: object) -> None:
    """A method that does nothing."""


def _counter_kept(self: EmulatedPmu, register: int, write: bool, value: int) -> Access:
    """A write of a counter leaves its event as it is."""
    n, is_type = OF_COUNTERS.get(register, (None, True))
    if is_type or not write or n is None:
        return ACCESS(self, register, write, value)
    self.pmu.counter[n] = value & self.widths[n]
    return value


async def _counted_twice(self: EmulatedPmu, n: int) -> int:
    """The value of a counter that has something: one more."""
    return await awaited(VALUE(self, n)) + 1 & self.widths[n]


ACCESS, VALUE = EmulatedPmu.access, EmulatedPmu._value
FAULTS: dict[str, tuple[str, Callable[..., object], str]] = {
    "never raises its line": ("level", lambda _: False, "I5"),
    "drops every overflow": ("counter_overflow", _dropped, "I5"),
    "makes no event anew": ("access", _counter_kept, "I5"),
    "never stops or starts an event": ("_ask", _dropped, "I4"),
    "never makes an event to start": ("_enable", _dropped, "I4"),
    "reads one too many": ("_value", _counted_twice, "I4"),
    "leaves out EL0": ("_restore_guest", _dropped, "I4"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_emulated_vpmu_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, instead, invariant = FAULTS[fault]
    monkeypatch.setattr(EmulatedPmu, method, instead)
    found = run("emulated", ORDERLY)
    assert invariant in {one.invariant for _, one in found.undeclared}


def test_what_no_reference_design_has_to_synchronise_another_does_not() -> None:
    """B49: v6 and v7 swap counters by PMXEVCNTR_EL0 without an ISB behind PMSELR_EL0; v8 does not use it."""
    for design, broken in (("partitioned-v6", True), ("partitioned-v7", True), ("partitioned-v8", False)):
        found = run(design, range(5))
        of_kind = [one for _, one in found.undeclared if one.kind == "unsynchronised"]
        assert bool(of_kind) is broken
        assert all(one.invariant == "I6" and one.since is not None and one.since < one.cycle for one in of_kind)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("design", REFERENCE)
async def test_restored_at_any_step_the_judge_has_found_the_same(design: str, seed: int) -> None:
    """A machine's snapshot has the judge."""
    once, again = RandomWorld(seed, design).made(), RandomWorld(seed, design).made()
    for made in (once, again):
        while made.working and made.board.interactions < 500:
            await made.step()
            if made is again and not made.entered:
                machine = made.board.machine
                machine.restore(machine.state())
    assert again.board.machine.digest() == once.board.machine.digest()
    assert again.judging.found() == once.judging.found()


def test_a_world_follows_from_its_seed() -> None:
    assert trio.run(judged, RandomWorld(3, "partitioned")) == trio.run(judged, RandomWorld(3, "partitioned"))
    assert RandomWorld(3, "partitioned").experiment() != RandomWorld(4, "partitioned").experiment()
