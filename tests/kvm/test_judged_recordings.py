"""What the judge says of recorded accesses: nothing where a Linux guest's are made again under a correct design, and
what v8's own code did wrong where its own are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest

from services import registers as r
from services.experiment import CpuSpec, EventSpec, Experiment, HostCpuSpec, PhaseSpec, SessionSpec, TaskSpec
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.simulation import Simulation
from tests.kvm.linux_guest import FGT, WITHOUT_FGT, LinuxGuest, world
from tests.kvm.posted_traffic import Replay
from tests.kvm.recorded_6_12 import SCENARIOS, Linux612
from tests.kvm.recordings import RECORDINGS, Recording, Vm, encoding, named, one_reg, situation
from tests.kvm.scripted import INST_RETIRED, Scripted, experiment

REFERENCE = ["partitioned", "emulated", "emulated-6.15"]


async def found(of: Experiment, guest: Scripted) -> dict[str, Any]:
    """What the judge has found where `guest` has run."""
    made = Simulation(of)
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    made.attend_guest("vm0", 0, LocalSoftware(guest))
    await made.run()
    return made.judging.found()


def met(premises: Mapping[str, int]) -> set[str]:
    return {invariant for invariant, times in premises.items() if times}


def expected(design: str, events: int) -> set[str]:
    """Invariants that a run could break: only where registers are swapped KVM writes a guest's, or enters it with
    them; and an emulated guest's counters are events of the host's."""
    of_guest = {"I1", "I4", "I8", "I9"} | {"I7" if design == "partitioned" else "I10"}
    return of_guest | ({"I3", "I10"} if events else set())


def busy(design: str, events: int) -> Experiment:
    """A guest of six counters beside a task of the host's, and events of the host's of which one counts guests, too."""
    of = experiment(design, counters=6)
    counted = tuple(EventSpec(f"e{n}", INST_RETIRED, n, exclude_guest=n > 0) for n in range(events))
    sessions = (SessionSpec("host", counted, cpu_wide=True),) if events else ()
    task = TaskSpec("task", (PhaseSpec(0, 2_000),), repeat=200, sleep=50_000)
    return replace(of, host=replace(of.host, cpus=(HostCpuSpec(tasks=(task,), sessions=sessions),)))


@pytest.mark.parametrize("events", [0, 3])
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("design", REFERENCE)
async def test_nothing_is_wrong_where_a_linux_6_12_guest_does_what_was_recorded(
    design: str, scenario: str, events: int
) -> None:
    guest = Linux612(scenario)
    judged = await found(busy(design, events), guest)
    assert guest.done == len(guest.accesses)
    assert guest.undefined == 0
    assert guest.interrupts > 0 or not guest.samples
    assert judged["violations"] == ()
    assert met(judged["premises"]) >= expected(design, events) | ({"I5"} if guest.samples else set())


@pytest.mark.parametrize("cpu", [FGT, WITHOUT_FGT], ids=["FGT", "no FGT"])
@pytest.mark.parametrize("events", [0, 3])
@pytest.mark.parametrize("under", ["partitioned", "emulated"])
@pytest.mark.parametrize("design", REFERENCE)
async def test_nothing_is_wrong_where_a_linux_7_2_guest_does_what_was_recorded(
    design: str, under: str, events: int, cpu: CpuSpec
) -> None:
    """`guest_sequence` of each recording, `under` v8 or the emulated vPMU beside it."""
    guest = LinuxGuest(under)
    judged = await found(world(design, cpu, events), guest)
    assert guest.ended > 0
    assert judged["violations"] == ()
    assert met(judged["premises"]) >= expected(design, events)


# What v8's own code did, host side included (`tests.kvm.posted_traffic` holds it to the recording, access by access, so
# whatever value is found wrong here a guest has read on the real code). The replay keeps an interrupt from the guest
# while its program has it masked, which the judge does not know: what is late by that is no finding.
MASKED = ("I5", "late_interrupt")
BARE = [one for one in RECORDINGS if one["accesses"]]
OF_HOST = [one for one in BARE if "owned + host" in one["name"]]

# By recording, invariants with who is at fault. I1 by the host: the guest finds what the host's perf has on the CPU. I1
# by nobody: what the CPU had before, of a VM that is gone. I4, I7, I11: the first access makes the vCPU the owner of
# registers that nobody has loaded, and from then on those are saved as its own (N1); `reload` clears enables of its own
# counters. I8: PMCR_EL0.E is another's. I2, I10: the vCPU owns counters that the host's events are on, and vcpu_put
# disables these. I6: a type that the guest has written is in memory alone (N10). I3: MDCR_EL2 without HPME stops what
# the host counts. I5 is not v8's: the replay has no time, and a counter overflows in it before the judge's does.
UNLOADED = {"I4 kvm", "I7 kvm", "I11 kvm"}
RESIDUE = UNLOADED | {"I1 nobody", "I8 kvm"}
OF_EVENTS = UNLOADED | {"I1 host", "I1 nobody", "I2 kvm", "I3 kvm", "I10 vm:1"}
FOUND: dict[str, set[str]] = {
    "partitioned, owned, load/put with FEAT_FGT": UNLOADED | {"I1 host"},
    "partitioned owned nr_counters 2 with FEAT_FGT": UNLOADED,
    **{
        f"first access {access} with FEAT_FGT": RESIDUE
        for access in ("PMCR r", "PMUSERENR w0", "PMEVTYPER0 w", "PMEVCNTR0 w", "PMOVSCLR w")
    },
    "first access PMCR w E with FEAT_FGT": RESIDUE - {"I8 kvm"} | {"I6 kvm"},
    "overflow irq with FEAT_FGT": UNLOADED | {"I5 kvm", "I6 kvm"},
    "PMUSERENR over time with FEAT_FGT": RESIDUE,
    **{named(one): OF_EVENTS for one in OF_HOST},
    "restored running vCPU, clean state, partitioned with FEAT_FGT": OF_EVENTS - {"I3 kvm"},
    "event filter denies 0x8 and 0x11 with FEAT_FGT": {"I7 kvm"},
    "partitioned, owned, load/put without FEAT_FGT": {"I6 kvm", "I7 kvm", "I11 kvm"},
}


async def found_in(recording: Recording) -> list[dict[str, Any]]:
    """Violations where v8 does what was recorded of it."""
    made = Replay(recording)
    await made.run()
    assert made.difference == ""
    told = orjson.loads(made.machine.judgement() or b"{}")
    return [one for one in told["violations"] if (one["invariant"], one["kind"]) != MASKED]


@pytest.mark.parametrize("recording", BARE, ids=named)
async def test_what_v8s_own_code_did_wrong_is_found_and_nothing_of_an_emulated_vm_beside_it(
    recording: Recording,
) -> None:
    found = {f"{one['invariant']} {one['other']}" for one in await found_in(recording)}
    assert found == FOUND.get(named(recording), set())
    assert not found or situation(recording).vm is Vm.PARTITIONED


@pytest.mark.parametrize("recording", OF_HOST, ids=named)
async def test_a_guest_of_v8_reads_the_hosts_pmcntenset_pmintenset_and_pmcr_e(recording: Recording) -> None:
    """B54, N1: the first access that traps has its guest own the PMU, and is made again on a CPU on which the host's
    perf counts. QEMU has shown the guest the bits of HPMN and above, too, which the architecture hides."""
    found = await found_in(recording)
    mine = one_reg(recording, "before")
    leaks = {one["register"]: one for one in found if (one["kind"], one["other"]) == ("guest_read", "host")}
    shown = r.counter_mask((mine[r.PMCR_EL0] & r.PMCR_N) >> r.PMCR_N_SHIFT)
    for register in (r.PMCNTENSET_EL0, r.PMINTENSET_EL1):
        leak = leaks[register]
        assert leak["invariant"] == "I1"
        assert leak["expected"] == mine[register] & shown
        assert leak["actual"] == first_read(recording, register) & shown != leak["expected"]
    assert (leaks[r.PMCR_EL0]["expected"] ^ leaks[r.PMCR_EL0]["actual"]) == r.PMCR_E
    assert first_read(recording, r.PMCR_EL0) & ~mine[r.PMCR_EL0] & r.PMCR_E


@pytest.mark.parametrize("recording", OF_HOST, ids=named)
async def test_vcpu_put_of_v8_disables_the_hosts_counters_in_its_guests_range(recording: Recording) -> None:
    found = await found_in(recording)
    (lost,) = (one for one in found if (one["invariant"], one["register"]) == ("I2", r.PMCNTENSET_EL0))
    assert lost["victim"] == "host"
    cleared = lost["expected"] & ~lost["actual"]
    assert cleared == first_read(recording, r.PMCNTENSET_EL0) & r.counter_mask(situation(recording).counters)


def first_read(recording: Recording, register: int) -> int:
    """What the guest has read there, by the recording."""
    rows = ((way, encoding(name), value) for phase, _, way, name, value in recording["accesses"] if phase == "guest")
    return next(int(value, 16) for way, of, value in rows if (way, of) == ("r", register))
