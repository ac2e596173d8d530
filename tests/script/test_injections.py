"""What vanishes without an interrupt, a preemption or a migration that the script injects is marked so: I9."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pmulab import topology
from pmulab.embedded import run_embedded
from services import embedded
from services.experiment import Experiment
from services.kvm.trials import marked
from services.result import Injection, Run
from services.rpc import Address, RpcError, connect, open_loop
from services.wire.actor_pb2 import StateRequest
from services.wire.methods import STATE
from tests.script.scenes import FLOATING, ONE_VM, RESET, experiment

TWELVE = "instructions,branches,cache-references,cache-misses,branch-misses,r8,r10,r11,r12,r13,r14,r19"  # on 8 counters

# v7's vcpu_load reschedules the host's events with interrupts on, holding the lock that the mux timer takes (B56).
LOCKED = f"""
host perf_open name=stat events={TWELVE}
vm0/0 switch
vm0/0 msr register=PMCNTENCLR_EL0 value=0xffffffff
vm0/0 preempt
host/0 mux at=3
vm0/0 switch
vm0/0 mrs register=PMEVCNTR0_EL0
"""

# A vCPU that its VMM has set up, whose PMU is off. v5's first trapped access loads it with preemption on (B37).
LOADED = """
vm0/0 set_one_reg register=PMCR_EL0 value=0x2000
vm0/0 set_one_reg register=PMCNTENSET_EL0 value=0x8000000f
vm0/0 set_one_reg register=PMEVTYPER0_EL0 value=8
vm0/0 set_one_reg register=PMEVCNTR0_EL0 value=0x1000
vm0/0 switch
vm0/0 preempt at=6
vm0/0 mrs register=PMOVSSET_EL0
vm0/0 switch
vm0/0 mrs register=PMEVCNTR0_EL0
"""

# v7 selects a counter, and may be put and loaded before it accesses that (B61); it loads with no ISB there (B49).
SELECTED = f"""
{RESET}
vm0/0 msr register=PMEVTYPER0_EL0 value=8
vm0/0 msr register=PMEVCNTR0_EL0 value=0x1000
vm0/0 msr register=PMEVCNTR3_EL0 value=0x1003
vm0/0 preempt
vm0/0 switch
vm0/0 preempt at=5
vm0/0 mrs register=PMEVCNTR0_EL0
vm0/0 switch
"""

# Nothing is saved: on another pCPU a guest finds what was there. On its own, too, it finds the host's PMCR_EL0.
MOVED = f"""
{RESET}
vm0/0 msr register=PMEVTYPER0_EL0 value=8
vm0/0 msr register=PMEVCNTR0_EL0 value=0x1000
vm0/0 preempt
vm0/0 migrate pcpu=1
vm0/0 switch
vm0/0 mrs register=PMEVCNTR0_EL0
"""

SLOW = "partitioned-v7,traps=slow-path"


def ran(of: Experiment) -> Run:
    (run,) = run_embedded(of).runs
    return run


CASES = {
    "an interrupt": ("partitioned-v7", LOCKED, ("I12", "deadlock", "interrupt", 5), ("I6", "unsynchronised")),
    "a preemption of a load": ("partitioned-v5", LOADED, ("I4", "guest_read", "preemption", 6), None),
    "a preemption of an access": (SLOW, SELECTED, ("I4", "guest_read", "preemption", 11), ("I6", "unsynchronised")),
    "a migration": ("raw", MOVED, ("I4", "guest_read", "migration", 9), ("I1", "guest_entry")),
}


def scene(directory: Path, case: str) -> Experiment:
    design, script, *_ = CASES[case]
    return experiment(directory, script, design=design, world=FLOATING if script is MOVED else ONE_VM)


@pytest.mark.parametrize("case", CASES)
def test_a_violation_says_without_what_it_vanishes(tmp_path: Path, case: str) -> None:
    run = ran(scene(tmp_path, case))
    _, _, (invariant, kind, what, step), unmarked = CASES[case]
    (one,) = (one for one in run.violations if (one.invariant, one.kind) == (invariant, kind))
    assert one.only_with == (Injection(what, (step,)),)
    if unmarked is not None:
        others = [one for one in run.violations if (one.invariant, one.kind) == unmarked]
        assert {one.only_with for one in others} == {()}


@pytest.mark.parametrize("case", CASES)
async def test_it_says_the_same_in_processes(tmp_path: Path, case: str) -> None:
    of = scene(tmp_path, case)
    (there,) = (await topology.run(of, lambda *_: None)).runs
    here = await embedded.run(of)
    assert (there.digest, there.violations) == (here["digest"], here["judgement"]["violations"])


def test_what_is_broken_without_any_injection_has_no_mark(tmp_path: Path) -> None:
    """The same access, preempted behind its handler: v7 has its I6 all the same, and nothing else."""
    of = experiment(tmp_path, SELECTED.replace("preempt at=5", "preempt at=900"), design=SLOW)
    run = ran(of)
    (never,) = (step for step in run.steps if step.reached is not None)
    assert not never.reached
    assert {(one.invariant, one.kind, one.only_with) for one in run.violations} == {("I6", "unsynchronised", ())}


def test_a_preemption_that_is_left_out_still_lets_its_vcpu_migrate(tmp_path: Path) -> None:
    """It comes behind the step that it came amid: without it the vCPU could not move."""
    moved = LOADED.replace("PMOVSSET_EL0\n", "PMOVSSET_EL0\nvm0/0 migrate pcpu=1\n")
    run = ran(experiment(tmp_path, moved, design="partitioned-v5", world=FLOATING))
    assert {one.only_with for one in run.violations} == {(Injection("preemption", (6,)),)}


def test_a_trial_that_cannot_be_says_nothing(tmp_path: Path) -> None:
    """Where the vCPU stays on pCPU 0 the host cannot work there."""
    script = f"{MOVED}\nhost/0 run cycles=100\n"
    run = ran(experiment(tmp_path, script, design="raw", world=FLOATING))
    assert run.violations
    assert not any(one.only_with for one in run.violations)


@pytest.mark.parametrize("judged", [True, False])
async def test_nothing_is_tried_where_nothing_is_broken_or_judged(tmp_path: Path, judged: bool) -> None:
    of = replace(experiment(tmp_path, LOADED, design="partitioned" if judged else "partitioned-v5"), judged=judged)
    measured = await embedded.play(of)

    async def never(_: Experiment) -> dict[str, Any]:
        raise AssertionError

    assert await marked(of, measured, never) is measured


async def test_a_run_that_is_stopped_is_tried_to_its_end(tmp_path: Path) -> None:
    """Or a trial would stop at what is not to be left out, before what was found."""
    of = scene(tmp_path, "a preemption of a load")
    whole, stopped = await embedded.run(of), await embedded.run(replace(of, stop_on_violation=True))
    found = stopped["judgement"]["violations"]
    assert stopped["judgement"]["stopped"]
    assert found
    assert [one.only_with for one in found] == [one.only_with for one in whole["judgement"]["violations"][: len(found)]]


async def test_a_running_topology_that_hangs_says_so_for_as_long_as_it_is_up(tmp_path: Path) -> None:
    of = scene(tmp_path, "an interrupt")
    async with topology.up(of) as up:
        first, second = [await up.lab.result(wait=True) for _ in range(2)]
        assert first == second
        (run,) = first.runs
        assert "waits for the lock of perf's contexts" in run.hung
        async with open_loop() as loop, connect(loop, Address.parse(up.running.addresses["kvm"]), name="kvm") as kvm:
            with pytest.raises(RpcError, match=r"nothing happens any more: .*a deadlock"):
                await kvm.call(STATE, StateRequest())
