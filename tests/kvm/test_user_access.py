"""PMUSERENR_EL0 of the host's programs beside vCPUs (kvm_set_pmuserenr, __deactivate_traps_common; Linux 6.12)."""

from __future__ import annotations

from pathlib import Path

import pytest

from pmulab import run, scenario
from services.embedded import Embedded
from services.experiment import Experiment
from services.kvm.host_task import HostTask
from services.registers import PMUSERENR_CR, PMUSERENR_EL0, PMUSERENR_ER

READS = PMUSERENR_ER | PMUSERENR_CR
BESIDE = """
[host]
perf_user_access = 1
[[host.task]]
workload = "gzip-random"
seconds = 0.02
[host.task.perf]
verb = "stat"
events = "armv8_pmuv3_0/inst_retired,rdpmc=1/u"
[[guest]]
pin = [0]
counters = 4
perf_user_access = 1
[[guest.task]]
workload = "gzip-random"
seconds = 0.02
[guest.task.perf]
verb = "stat"
events = "armv8_pmuv3_0/cpu_cycles,rdpmc=1/u"
"""


def experiment(tmp_path: Path, design: str, text: str = BESIDE) -> Experiment:
    path = tmp_path / "own.toml"
    path.write_text(text)
    return scenario.load(str(path), designs=[design]).experiments[0]


@pytest.mark.parametrize("design", ["emulated", "partitioned", "partitioned-v4"])
async def test_a_host_s_program_may_read_and_a_vcpu_has_its_own_register(tmp_path: Path, design: str) -> None:
    lab = Embedded.of(experiment(tmp_path, design, BESIDE))
    simulation = lab.simulation
    machine, (pcpu,) = simulation.board.machine, simulation.pcpus
    seen = {True: set[int](), False: set[int]()}
    while simulation.working:
        await simulation.step()
        current = pcpu.rq.current
        if current is not None and current.runnable():
            seen[isinstance(current, HostTask)].add(machine.peek(0, PMUSERENR_EL0))
    assert seen[True] == {READS}
    assert seen[False] == ({0b1111} if design == "emulated" else {0, READS}), "the guest's own, unless it is emulated"


async def test_a_restored_host_goes_on_with_its_value(tmp_path: Path) -> None:
    of = experiment(tmp_path, "emulated")
    lab = Embedded.of(of)
    for _ in range(60):
        await lab.simulation.step()
    assert lab.simulation.pcpus[0].host_userenr == READS
    other = Embedded.from_state(of, lab.state())
    for one in (lab, other):
        await one.simulation.run()
    digests = [one.simulation.measured(await one.simulation.result(), 0)["digest"] for one in (lab, other)]
    assert digests[0] == digests[1]


def test_a_guest_that_lets_programs_read_pays_for_it_under_emulation(tmp_path: Path) -> None:
    """armv8pmu_enable_user_access clears every unused counter at each start, and each write traps."""
    without = BESIDE.replace("counters = 4\nperf_user_access = 1", "counters = 4")
    writes = []
    for text in (BESIDE, without):
        path = tmp_path / "own.toml"
        path.write_text(text)
        (one,) = run(path, designs=["emulated"]).runs
        writes.append(sum(count for name, count in one.kvm.traps.by_register.items() if name.startswith("PMEVCNTR")))
    assert writes == [4, 0]
