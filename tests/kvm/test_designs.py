"""What each design takes from the host, and gives back."""

import contextlib
from dataclasses import replace
from typing import Any

import orjson
import pytest

from pmulab.designs import label, parse_design
from services import registers as r
from services.cpu import Cpu, Entry, Notice, TookException
from services.experiment import (
    CpuSpec,
    DesignSpec,
    EventSpec,
    Experiment,
    HostCpuSpec,
    PhaseSpec,
    SessionSpec,
    TaskSpec,
)
from services.host_perf import HostPerf
from services.kvm import designs
from services.kvm.attendant import LocalSoftware
from services.kvm.errors import Livelock
from services.kvm.simulation import Simulation
from services.kvm.vpmu import DesignError
from services.registers import PMEVCNTR, PMEVTYPER
from tests.kvm.scripted import INST_RETIRED, Scripted, experiment, simulation
from tests.kvm.test_emulated import WORK, Counting

CYCLES = 0x11


def host_session(*events: EventSpec) -> SessionSpec:
    return SessionSpec("stat", tuple(replace(event, leader=i) for i, event in enumerate(events)), cpu_wide=True)


def with_host(of: Experiment, *events: EventSpec) -> Experiment:
    return replace(of, host=replace(of.host, cpus=(HostCpuSpec(sessions=(host_session(*events),)),)))


def lab(of: Experiment, guest: Counting) -> Simulation:
    made = simulation(of, guest.software)
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    return made


async def ran(
    of: Experiment, guest: Counting | None = None
) -> tuple[Simulation, Counting, list[dict[str, Any]], list[str]]:
    """The run, its guest, and what the host's perf reports: events, and the names of those it refused."""
    guest = guest or Counting()
    made = lab(of, guest)
    await made.run()
    result = orjson.loads(orjson.dumps(await made.result()))
    host = result["hosts"][0]
    return made, guest, [event for session in host["sessions"] for event in session["events"]], host["refused"]


INSTRUCTIONS_H = EventSpec("instructions:H", INST_RETIRED, 0, exclude_guest=True, names_side=True)
INSTRUCTIONS_G = EventSpec("instructions:G", INST_RETIRED, 0, exclude_host=True, names_side=True)
EAGER = {"swap": "eager"}
INSTRUCTIONS = EventSpec("instructions", INST_RETIRED, 0)


async def test_mediated_refuses_host_events_that_do_not_exclude_guests() -> None:
    of = with_host(experiment("mediated", counters=10), INSTRUCTIONS_G, INSTRUCTIONS_H)
    _, guest, events, refused = await ran(of)
    assert refused == ["instructions:G"]
    assert [event["name"] for event in events] == ["instructions:H"]
    assert guest.count == WORK // 2


async def test_perf_tries_an_event_that_mediated_refuses_once_more_without_guests() -> None:
    """evsel__fallback."""
    every = [INSTRUCTIONS, replace(INSTRUCTIONS, name="instructions:k", exclude_user=True)]
    _, _, events, refused = await ran(with_host(experiment("mediated", counters=10), *every, INSTRUCTIONS_H))
    assert refused == []
    assert [event["name"] for event in events] == ["instructions:H", "instructions:kH", "instructions:H"]
    assert all(0 < event["count"] < event["truth"] < WORK / 10 for event in events), "none of the guest's"
    of_bpf = replace(INSTRUCTIONS, name="instructions:b", bpf=True)
    assert (await ran(with_host(experiment("mediated", counters=10), of_bpf)))[3] == ["instructions:b"]
    recorded = SessionSpec("record", (replace(of_bpf, period=100_000),), cpu_wide=True)
    of = experiment("mediated", counters=10)
    of = replace(of, host=replace(of.host, cpus=(HostCpuSpec(sessions=(recorded,)),)))
    assert [event["name"] for event in (await ran(of))[2]] == ["instructions:bH"]
    both = replace(INSTRUCTIONS, name="instructions:GH", names_side=True)
    assert (await ran(with_host(experiment("mediated", counters=10), both)))[3] == ["instructions:GH"]


@pytest.mark.parametrize("design", ["emulated", "emulated-6.15", "partitioned"])
async def test_host_and_guest_count_beside_each_other(design: str) -> None:
    _, guest, events, _ = await ran(with_host(experiment(design, counters=4), INSTRUCTIONS_G, INSTRUCTIONS_H))
    assert guest.count == WORK // 2
    of_guest, of_host = events
    assert of_guest["count"] == pytest.approx(of_guest["truth"], rel=0.002)
    assert 0 < of_host["count"] < of_host["truth"]  # perf's own code runs while it has its counters stopped
    assert all(event["running"] == event["enabled"] for event in events)


async def test_dynamic_reservation_squeezes_host_events_only_while_the_guest_is_loaded() -> None:
    """Ten counters, the guest takes eight at vcpu_load: of five host events, allocated from below, two remain."""
    five = [INSTRUCTIONS] * 5
    _, _, events, _ = await ran(
        with_host(experiment("partitioned", counters=8, axes={"reservation": "dynamic"}), *five)
    )
    assert sum(event["running"] < event["enabled"] for event in events) == 3
    _, _, events, _ = await ran(with_host(experiment("partitioned-v8", counters=4), *five))
    assert [event["running"] for event in events] == [event["enabled"] for event in events]


async def test_static_reservation_takes_the_range_for_good() -> None:
    of = experiment("partitioned", counters=9, axes={"reservation": "static"})
    _, _, events, _ = await ran(with_host(of, INSTRUCTIONS, INSTRUCTIONS))
    assert sum(event["running"] for event in events) <= events[0]["enabled"]


@pytest.mark.parametrize("hpmn0", [True, False])
async def test_no_event_counter_with_and_without_hpmn0(hpmn0: bool) -> None:
    cpu = CpuSpec(model="test", counters=10, pmuver=6, fgt=1, hpmn0=hpmn0)
    made, guest, events, _ = await ran(
        with_host(experiment("partitioned", counters=0, cpu=cpu, axes=EAGER), INSTRUCTIONS_G), Counting(counter=None)
    )
    assert made.fallbacks == ([] if hpmn0 else ["test has no FEAT_HPMN0: HPMN stays 10 and every PMU access traps"])
    assert guest.count == WORK
    assert events[0]["count"] == pytest.approx(events[0]["truth"], rel=0.002)
    (vcpu,) = made.vcpus
    trapped = {key >> 1 for key in vcpu.traps}
    assert (r.PMCR_EL0 in trapped) is not hpmn0


async def test_a_cpu_without_fgt_falls_back_and_says_so() -> None:
    n1 = CpuSpec(model="n1", counters=6, pmuver=4)
    made, guest, _, _ = await ran(experiment("partitioned", counters=4, cpu=n1))
    assert made.fallbacks == ["n1 has no FEAT_FGT: every PMU access traps (MDCR_EL2.TPM)"]
    assert guest.count == WORK // 2


def test_an_axis_that_changes_nothing_beside_another_says_so() -> None:
    axes = {"reservation": "static", "pinned": "error"}
    made = simulation(experiment("partitioned", counters=4, axes=axes), Scripted())
    assert made.fallbacks == ["reservation=static squeezes no event of the host: pinned=error changes nothing"]


@pytest.mark.parametrize(("icntr", "shown"), [(True, "PMICNTR_EL0"), (False, "PMUACR_EL1")])
async def test_what_no_guest_has_is_hidden_by_fgt2_or_by_trapping_everything(icntr: bool, shown: str) -> None:
    for fgt, untrapped in ((1, False), (2, True)):
        cpu = CpuSpec(model="x", counters=6, pmuver=9, fgt=fgt, icntr=icntr)
        made, guest, _, _ = await ran(experiment("partitioned", counters=4, cpu=cpu, axes=EAGER))
        fallback = [f"x has no FEAT_FGT2 to hide {shown} with: every PMU access traps"]
        assert made.fallbacks == ([] if untrapped else fallback)
        assert (r.PMCR_EL0 not in {key >> 1 for key in made.vcpus[0].traps}) is untrapped
        assert guest.count == WORK // 2


@pytest.mark.parametrize(
    ("design", "hosts"),
    [
        ("emulated", True),
        ("partitioned", True),  # while no guest is resident
        ("partitioned,reservation=static", False),  # PMCR_EL0.E, which stops it, is a guest's
        ("partitioned-v1", False),
        ("partitioned-v6", False),
        ("partitioned-v7", True),
        ("partitioned-v8", True),
        ("mediated", True),
        ("gunyah", False),
        ("raw", True),
    ],
)
async def test_the_hosts_instructions_have_pmicntr(design: str, hosts: bool) -> None:
    """armv8pmu_get_event_idx: where cntr_mask has it."""
    cpu = CpuSpec(model="x", counters=6, pmuver=9, fgt=2, hpmn0=True, icntr=True)
    spec = parse_design(design)
    made = designs.designs()[spec.name].make(spec.axes, guest_range=0b111 | r.CYCLE_BIT)
    assert bool(made.host_policy(cpu).counters & r.INSTRUCTION_BIT) is hosts


async def test_nobody_clears_pmicntrs_flag_in_v8() -> None:
    """The host's handler clears the event counters above the guests', KVM the guests' and the cycle counter's."""
    cpu = CpuSpec(model="x", counters=6, pmuver=9, fgt=2, hpmn0=True, icntr=True)
    sampled = EventSpec("instructions/period=100000/", 0x08, 0, period=100_000)
    of = with_host(experiment("partitioned-v8", counters=3, cpu=cpu), sampled)
    made = lab(of, Counting())
    await made.run()
    assert made.hung == f"pCPU 0 at cycle {made.now}: interrupt after interrupt, without end (I12)"
    found = made.judging.found()["violations"]
    assert [(one.kind, one.victim) for one in found if one.invariant == "I12"] == [("livelock", "host")]
    with pytest.raises(Livelock, match="interrupt after interrupt"):
        await lab(replace(of, judged=False), Counting()).run()
    _, _, events, _ = await ran(with_host(experiment("emulated", counters=3, cpu=cpu), sampled))
    assert events[0]["samples"] > 0


def test_every_design_has_its_name_and_the_first_value_of_each_axis() -> None:
    for name, design in designs.designs().items():
        made = designs.make(DesignSpec(name))
        assert made.name == name
        assert all(made.chosen()[name] == one.texts[0] for name, one in design.axes().items())


@pytest.mark.parametrize(
    ("name", "axes"), [("nosuch", {}), ("partitioned", {"swap": "never"}), ("raw", {"swap": "lazy"})]
)
def test_what_there_is_not_is_refused(name: str, axes: dict[str, str]) -> None:
    with pytest.raises(DesignError):
        designs.make(DesignSpec(name, axes))


@pytest.mark.parametrize("swap", ["eager", "lazy", "lazy-sticky"])
@pytest.mark.parametrize("reservation", ["static", "dynamic"])
async def test_a_guest_that_has_its_pmu_off_leaves_the_hosts_running(swap: str, reservation: str) -> None:
    """PMCR_EL0.E is the guest's while it is loaded, and the host's again afterwards."""

    async def boot(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.msr(r.PMCR_EL0, r.PMCR_LC)  # E is 0
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    of = experiment("partitioned", counters=4, axes={"swap": swap, "reservation": reservation})
    hog = TaskSpec("hog", (PhaseSpec(2, 30_000_000),))
    of = replace(of, host=replace(of.host, cpus=(HostCpuSpec((hog,), (host_session(INSTRUCTIONS),)),)))
    made = simulation(of, Scripted(boot=boot))
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    await made.run()
    result = orjson.loads(orjson.dumps(await made.result()))
    ((event,),) = [session["events"] for session in result["hosts"][0]["sessions"]]
    assert event["count"] == pytest.approx(event["truth"], rel=0.001)


async def test_what_the_architecture_leaves_open_is_reported_when_it_is_used() -> None:
    """HPMN 0 without FEAT_HPMN0 is CONSTRAINED UNPREDICTABLE; a counter of HPMN or above is, without FEAT_FGT."""

    async def boot(cpu: Cpu, entry: Entry) -> None:
        with contextlib.suppress(TookException):
            await cpu.mrs(PMEVCNTR(7))
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    cpu = CpuSpec(model="n1", counters=6, pmuver=4)
    made = simulation(experiment("raw", counters=6, cpu=cpu), Scripted(boot=boot))
    await made.run()
    assert (await made.result())["choices"] == {"absent_counter": 1}
    made = simulation(experiment("partitioned"), Scripted())
    made.vcpus[0].working = False
    await made.run()
    assert (await made.result())["choices"] == {}


class Busy(Scripted):
    """A guest that counts its user work on counter 0, and on whose thread or pCPU the host counts too."""

    def __init__(self) -> None:
        super().__init__(boot=self.boot, resume=self.resume)
        self.count = -1

    async def boot(self, cpu: Cpu, entry: Entry) -> None:
        cpu.burst.msr(PMEVTYPER(0), INST_RETIRED | r.PMEVTYPER_P)
        cpu.burst.msr(PMEVCNTR(0), 0)
        cpu.burst.msr(r.PMCNTENSET_EL0, 1)
        cpu.burst.msr(r.PMCR_EL0, r.PMCR_LC | r.PMCR_LP | r.PMCR_E)
        cpu.burst.compute(2, 0, 60_000_000)  # five ticks

    async def resume(self, cpu: Cpu, entry: Entry) -> None:
        self.count = await cpu.mrs(PMEVCNTR(0))
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()


async def beside_host_events(
    events: list[EventSpec], design: str = "partitioned", **axes: str
) -> tuple[int, list[dict[str, Any]]]:
    """What a guest with four of ten counters counts, and what the host does, whose thread shares the pCPU."""
    of = experiment(design, counters=4, axes=axes)
    hog = TaskSpec("hog", (PhaseSpec(2, 60_000_000),))
    of = replace(of, host=replace(of.host, cpus=(HostCpuSpec((hog,), (host_session(*events),)),)))
    guest = Busy()
    made = simulation(of, guest)
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    await made.run()
    result = orjson.loads(orjson.dumps(await made.result()))
    return guest.count, [event for session in result["hosts"][0]["sessions"] for event in session["events"]]


@pytest.mark.parametrize("reservation", ["static", "dynamic"])
async def test_a_host_that_multiplexes_does_not_stop_its_guests_counters(reservation: str) -> None:
    """Its driver stops the PMU at each rotation; as posted, by PMCR_EL0.E, which it does not always set again."""
    eight = [INSTRUCTIONS] * 8
    count, events = await beside_host_events(eight, reservation=reservation)
    assert count == 30_000_000
    assert any(0 < event["running"] < event["enabled"] for event in events)


async def test_a_host_without_events_on_the_pmu_stops_a_guest_as_posted_and_not_by_hpme() -> None:
    """A group that never fits: each rotation stops the PMU, and nothing starts it again."""
    group = [replace(INSTRUCTIONS, leader=0) for _ in range(8)]
    of = experiment("partitioned", counters=4)
    for design, whole in (("partitioned", True), ("partitioned-v6", False)):
        made = simulation(
            replace(
                of,
                design=DesignSpec(design),
                host=replace(
                    of.host, cpus=(HostCpuSpec(sessions=(SessionSpec("stat", tuple(group), cpu_wide=True),)),)
                ),
            ),
            guest := Busy(),
        )
        made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
        await made.run()
        assert (guest.count == 30_000_000) is whole


async def test_the_filters_of_events_that_a_reservation_moves_are_kept_and_as_posted_undone() -> None:
    """Eight host events, four counters short: while the guest is loaded :H counts no guest."""
    six = [INSTRUCTIONS_H] * 4 + [INSTRUCTIONS_G] * 2

    def counted(events: list[dict[str, Any]]) -> float:
        """The most that an event of the host counted, of its truth."""
        return float(max(event["count"] / event["truth"] for event in events if event["name"] == "instructions:H"))

    _, kept = await beside_host_events(six, reservation="dynamic")
    _, undone = await beside_host_events(six, "partitioned-v7")
    assert counted(kept) <= 1 < counted(undone)


def test_an_axis_that_is_given_twice_is_refused() -> None:
    with pytest.raises(DesignError, match="'swap' is given twice"):
        parse_design("partitioned,swap=lazy,swap=eager")


def test_what_a_preset_fixes_may_be_said() -> None:
    assert label(parse_design("emulated-6.15,kernel=6.15")) == "emulated-6.15"


def test_counters_on_all_pmus_and_a_pmu_named_by_the_vmm_contradict_each_other_under_every_kernel() -> None:
    for kernel in ("6.12.117", "7.3"):
        spec = parse_design(f"emulated,kernel={kernel},strict=yes,counters=fixed")
        with pytest.raises(DesignError, match="leave one of them out"):
            designs.make(spec).check(CpuSpec(model="n1", counters=6, pmuver=4), 0)


async def test_v5_without_fgt_swaps_nothing_and_trapped_accesses_reach_the_cpu() -> None:
    n1 = CpuSpec(model="n1", counters=6, pmuver=4)
    made, guest, _, _ = await ran(experiment("partitioned-v5", counters=4, cpu=n1), Counting(start=41))
    assert guest.count == 41 + WORK // 2
    assert made.vcpus[0].vpmu.swaps.loads == 0
    _, guest, _, _ = await ran(experiment("partitioned-v5", counters=4))
    assert guest.count == WORK // 2


@pytest.mark.parametrize(("design", "masked"), [("partitioned", True), ("partitioned-v1", False)])
async def test_a_guests_wish_to_count_at_el2_is_masked_but_for_v1(design: str, masked: bool) -> None:
    async def boot(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.msr(PMEVTYPER(0), INST_RETIRED | r.PMEVTYPER_NSH)
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    made = simulation(experiment(design), Scripted(boot=boot))
    await made.run()
    assert (made.board.machine.peek(0, PMEVTYPER(0)) & r.PMEVTYPER_NSH == 0) is masked
