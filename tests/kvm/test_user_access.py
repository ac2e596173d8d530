"""PMUSERENR_EL0 of the host's programs beside vCPUs (kvm_set_pmuserenr, __deactivate_traps_common; Linux 6.12)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from pmulab import KilledTask, Run, run, scenario
from services.embedded import Embedded
from services.errors import UserError
from services.experiment import Experiment
from services.kvm.host_task import HostTask
from services.registers import PMCCNTR_EL0, PMUSERENR_CR, PMUSERENR_EL0, PMUSERENR_ER
from services.result import of as result_of

Row = tuple[int, int, int]

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


@pytest.mark.parametrize("design", ["emulated", "partitioned", "partitioned-v4", "mediated"])
async def test_a_host_s_program_may_read_and_a_vcpu_has_its_own_register(tmp_path: Path, design: str) -> None:
    text = BESIDE.replace("inst_retired,rdpmc=1/u", "inst_retired,rdpmc=1/uH")  # as a mediated vPMU wants it
    lab = Embedded.of(experiment(tmp_path, design, text.replace("counters = 4", "") if design == "mediated" else text))
    simulation = lab.simulation
    machine, (pcpu,) = simulation.board.machine, simulation.pcpus
    seen = {True: set[int](), False: set[int]()}
    while simulation.working:
        await simulation.step()
        current = pcpu.rq.current
        if current is not None and current.runnable():
            seen[isinstance(current, HostTask)].add(machine.peek(0, PMUSERENR_EL0))
    assert seen[True] == {READS}
    expected = {"emulated": {0b1111}, "partitioned-v4": {0, READS, 0b1111}}
    own = expected.get(design, {0, READS})
    assert seen[False] == own, "the guest's own, unless it is emulated or has v4 and made no access"


@pytest.mark.parametrize("design", ["emulated", "partitioned,swap=eager", "partitioned-v8"])
async def test_a_put_writes_the_host_s_value_once(tmp_path: Path, design: str) -> None:
    simulation = Embedded.of(experiment(tmp_path, design)).simulation
    machine, (pcpu,), (vcpu,) = simulation.board.machine, simulation.pcpus, simulation.vcpus
    while pcpu.rq.current is not vcpu:
        await simulation.step()
    pcpu.enter_kernel()
    pcpu.host_userenr = READS  # kvm_set_pmuserenr, meanwhile
    machine.observe(True)
    await vcpu.switched_out()
    written = [value for *_, code, register, value in machine.observed() if (code, register) == (1, PMUSERENR_EL0)]
    assert written == [READS]


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


EVERY_US = 500
READING = BESIDE.replace("seconds = 0.02\n", f"seconds = 0.02\nrdpmc_us = {EVERY_US}\n")
READ_TRAPPED = 2  # code of the observer's row; of a read that is executed it is 0


async def reads_of(tmp_path: Path, design: str, core: str, text: str = READING) -> tuple[list[Row], list[Row]]:
    """The reads that the guest's and the host's program have made at EL0: code, register, value."""
    lab = Embedded.of(experiment(tmp_path, design, f'[machine]\ncore = "{core}"\n{text}'))
    simulation = lab.simulation
    machine, (pcpu,) = simulation.board.machine, simulation.pcpus
    machine.observe(True)
    reads: dict[bool, list[Row]] = {True: [], False: []}
    while simulation.working:
        of_host = isinstance(pcpu.rq.current, HostTask)
        machine.observed()
        await simulation.step()
        reads[of_host] += [row[3:] for row in machine.observed() if row[2] == 0 and row[3] in (0, READ_TRAPPED)]
    traps = (await simulation.result())["traps"]
    trapped = sum(code == READ_TRAPPED for code, _, _ in reads[False])
    assert traps.get("PMCCNTR_EL0:r", 0) == (trapped + 1 if trapped else 0), "and one of its kernel, when it exits"
    return reads[False], reads[True]


@pytest.mark.parametrize(
    ("design", "core", "traps"),
    [
        ("emulated", "neoverse-v3", True),
        ("partitioned", "neoverse-v3", False),
        ("partitioned-v5", "neoverse-v3", False),
        ("partitioned", "neoverse-n1", True),
        ("partitioned,traps=fast-path", "neoverse-n1", True),
    ],
)
async def test_what_a_program_reads_at_el0_traps_as_its_kernel_s_accesses_do(
    tmp_path: Path, design: str, core: str, traps: bool
) -> None:
    """MDCR_EL2.TPM is of EL0 too; with FEAT_FGT the guest's own counters are let through. The host's never trap."""
    of_guest, of_host = await reads_of(tmp_path, design, core)
    assert {register for _, register, _ in of_guest} == {PMCCNTR_EL0}
    assert {code for code, _, _ in of_guest} == {READ_TRAPPED if traps else 0}
    assert {code for code, _, _ in of_host} == {0}
    assert len(of_guest) == len(of_host) == 0.02e6 / EVERY_US - 1, "but for where the program ends"
    if not traps:
        clock = 3_000 * EVERY_US  # of the program, and what its own read takes
        grown = [new - old for (_, _, old), (_, _, new) in pairwise(of_guest)]
        assert all(clock <= cycles < clock + 20 for cycles in grown), "at EL0, though others ran meanwhile"


UNDEFINED = Path(__file__).parents[1] / "repeatability" / "sigill.toml"
LOSING = [f"partitioned-v{version}" for version in (1, 2, 3, 4)]  # at vcpu_put they read what the host has written
WHY = "PMUSERENR_EL0 on the CPU does not let EL0 read PMCCNTR_EL0 (ESR 0x6230e41b)"


@pytest.mark.parametrize("design", LOSING)
def test_a_guest_s_program_whose_read_is_undefined_is_killed_and_all_others_go_on(design: str) -> None:
    """el0_sys, do_el0_undef, force_signal_inject: SIGILL. Its perf prints what there is, as at any program's end."""
    (made,) = run(UNDEFINED, designs=[design]).runs
    (guest,) = made.guests
    assert guest.killed_tasks == (KilledTask("gzip-random", "guest.0.task.0.perf", "SIGILL", WHY),)
    (event,) = guest.events
    assert event.count == event.truth
    assert 0 < event.enabled_ns < 0.02e9
    assert guest.true_user_seconds == pytest.approx(0.01 + event.truth / 3e9, rel=0.01), "the other has all of its work"
    assert made.host.killed_tasks == ()
    assert made.time.host_user == pytest.approx(0.02, rel=0.01)


async def test_work_that_a_killed_program_will_not_do_is_not_waited_for(tmp_path: Path) -> None:
    """Of two threads of which one is killed for its read, and of a task whose perf does not run."""
    text = UNDEFINED.read_text().replace("[guest.task.perf]", "threads = 2\nrepeat = 2\n\n[guest.task.perf]", 1)
    text = text.replace("hz = 100", 'hz = 100\ndenied = ["branches"]', 1)
    text += 'perf = { verb = "record", events = "branches" }\n'
    simulation = Embedded.of(experiment(tmp_path, "partitioned-v1", text)).simulation
    (vcpu,), (task,) = simulation.vcpus, simulation.tasks
    given, left = simulation.progress()
    assert given == left == pytest.approx((0.02 + 4 * 0.02 + 0.01) * 3e9, rel=0.001)
    await simulation.run()
    assert vcpu.computed < 0.04 * 3e9
    assert simulation.progress() == (vcpu.computed + task.computed, 0)


@pytest.mark.parametrize("design", LOSING)
async def test_a_lab_restored_between_the_exception_and_its_handler_goes_on_as_the_first(design: str) -> None:
    (of,) = scenario.load(str(UNDEFINED), designs=[design]).experiments
    lab = Embedded.of(of)
    (vcpu,) = lab.simulation.vcpus
    while not vcpu.undefined:
        await lab.simulation.step()
    other = Embedded.from_state(of, lab.state())
    results = []
    for one in (lab, other):
        await one.simulation.run()
        results.append(await one.simulation.result())
    assert results[0] == results[1]
    assert [task["task"] for task in results[0]["guests"][0]["vcpus"][0]["killed"]] == ["gzip-random"]


async def test_a_host_s_program_whose_read_is_undefined_is_killed_and_all_others_go_on(tmp_path: Path) -> None:
    """No design loses the host's value, but any might: its process of `perf stat -I` ends with it, too."""
    text = READING.replace('verb = "stat"', 'verb = "stat"\ninterval_ms = 3', 1)
    of = experiment(tmp_path, "partitioned", '[machine]\ncore = "neoverse-v3"\n' + text)
    lab = Embedded.of(of)
    simulation = lab.simulation
    (task,), (pcpu,) = simulation.tasks, simulation.pcpus
    while task.computed < 0.01 * 3e9 or pcpu.rq.current is not task:
        await simulation.step()
    simulation.board.machine.poke(0, PMUSERENR_EL0, 0)
    done = task.computed
    await simulation.run()
    made = result_of(of, simulation.measured(await simulation.result(), 0), "embedded").runs[0]
    why = "PMUSERENR_EL0 on the CPU does not let EL0 read"
    (killed,) = made.host.killed_tasks
    assert (killed.task, killed.session, killed.signal) == ("gzip-random", "host.task.0.perf", "SIGILL")
    assert killed.reason.startswith(why)
    assert task.computed - done <= 3_000 * EVERY_US
    (event,) = made.host.events
    assert event.count == event.truth == sum(one.count or 0 for one in made.host.intervals)
    (guest,) = made.guests
    assert guest.killed_tasks == ()
    assert guest.events[0].truth > 0.02 * 3e9 * 0.99


@pytest.mark.parametrize("accounting", ["tick", "vtime"])
def test_what_a_read_at_el0_takes_is_user_time_trapped_or_not(tmp_path: Path, accounting: str) -> None:
    """user_mode(regs): a tick that comes while KVM has a read of the program's finds EL0, and so does vtime."""
    text = READING.replace(f"rdpmc_us = {EVERY_US}", "rdpmc_us = 2\nkernel_share = 0")
    path = tmp_path / "own.toml"
    path.write_text(text[text.index("[[guest]]") :])
    of_guest = {"guest.accounting": accounting, "guest.hz": 1000}
    (one,) = run(path, designs=["emulated-6.15"], overrides=of_guest).runs
    (guest,) = one.guests
    assert guest.elapsed_seconds > 1.25 * guest.true_user_seconds, "the reads take long"
    assert guest.system_seconds < 0.03 * guest.elapsed_seconds


async def test_without_the_sysctl_or_the_term_a_program_reads_nothing(tmp_path: Path) -> None:
    """armv8pmu_user_event_idx is 0: the library falls back to read(2), of which nothing is modelled."""
    text = READING.replace("perf_user_access = 1", "perf_user_access = 0")
    assert await reads_of(tmp_path, "partitioned", "neoverse-v3", text) == ([], [])
    with pytest.raises(UserError, match=r"own\.toml:7: there is no event that the program may read"):
        experiment(tmp_path, "partitioned", READING.replace(",rdpmc=1", ""))


@pytest.mark.parametrize("design", ["emulated", "partitioned"])
def test_reading_at_el0_is_the_program_s_time_and_the_trap_the_host_s(tmp_path: Path, design: str) -> None:
    made: list[Run] = []
    for text in (READING.replace(f"rdpmc_us = {EVERY_US}", "rdpmc_us = 20"), BESIDE):
        path = tmp_path / "own.toml"
        path.write_text('[machine]\ncore = "neoverse-v3"\n' + text)
        made += run(path, designs=[design]).runs
    often, never = made
    reads = 0.02e6 / 20
    grown = often.guests[0].true_user_seconds - never.guests[0].true_user_seconds
    assert grown == pytest.approx(reads * 2e-9, rel=0.1), "an MRS takes 2 ns"
    exits = often.bill.host["trap"] - never.bill.host["trap"]
    assert exits == pytest.approx(reads * 400e-9 if design == "emulated" else 0, rel=0.1, abs=5e-6)
    assert sum(often.bill.host.values()) == pytest.approx(often.time.host_kernel), "none of it is the host's program's"
