"""A Linux guest's own accesses to its PMU, as recorded, made again under any design.

`posted-v8-traffic.json.xz` (`tests.kvm.recordings`) has them of an unpatched Linux 7.2.13 with three counters,
under v8 and under the emulated vPMU: its driver's probe; W1, one event around a loop; W2, a group of three; and 33
switches of W5, two programs that count `cycles` and play ping-pong over a pipe. Of the whole W5 there are counts: 138
vcpu_loads for its 401 switches. Where in between they came is not recorded. Here the guest idles, and its vCPU
blocks, at every third switch, between the one program's events out and the other's in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pmulab.designs import parse_design
from services import registers as r
from services.cpu import Cpu, Entry, Notice, Timer
from services.experiment import CpuSpec, EventSpec, Experiment, HostCpuSpec, SessionSpec
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.simulation import Simulation
from tests.kvm.recordings import RECORDINGS, Seen, sequence
from tests.kvm.scripted import INST_RETIRED, Scripted, experiment

FGT = CpuSpec(model="max", counters=6, pmuver=6, fgt=1, hpmn0=True)
WITHOUT_FGT = replace(FGT, fgt=0)
COUNTERS = 3
BLOCKS_AT = 3  # every so many switches
SLEEP = 300_000  # cycles of 3 GHz
WORKLOADS = ("boot", "W1", "W2", "W5-steady")
READ, WRITE, TRAPPED_READ, TRAPPED_WRITE = range(4)  # codes of the observer's rows


def recorded(design: str, workload: str) -> list[Seen]:
    """`design` is "partitioned" (v8) or "emulated"."""
    (found,) = (one for one in RECORDINGS if one["name"] == f"linux guest {design} {workload}")
    return sequence(found)


class LinuxGuest(Scripted):
    """Boots, and makes all of them, one after the other."""

    def __init__(self, design: str) -> None:
        super().__init__(boot=self.go_on, timer=self.go_on)
        self.accesses = [access for workload in WORKLOADS for access in recorded(design, workload)]
        self.steps = self._steps()
        self.began = self.ended = -1

    def _steps(self) -> Iterator[Seen | None]:
        """The accesses, and None where the guest idles."""
        begins = sum(len(recorded("partitioned", workload)) for workload in WORKLOADS[:-1])
        switches = 0
        for number, access in enumerate(self.accesses):
            yield access
            if number >= begins and access.register == r.PMCCNTR_EL0 and not access.write:
                switches += 1
                if switches % BLOCKS_AT == 0:
                    yield None

    async def go_on(self, cpu: Cpu, entry: Entry) -> None:
        if self.began < 0:
            self.began = entry.now
        for step in self.steps:
            if step is None:
                cpu.burst.timer(Timer.SLEEP, cpu.now + SLEEP)
                cpu.burst.wfi()
                return
            await step.perform(cpu)
        self.ended = cpu.now
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()


@dataclass(frozen=True)
class Traffic:
    """What came of it."""

    trapped: list[bool]  # of each access
    loads: int
    reads: int  # of PMU and trap registers at EL2, from the guest's boot to its last access
    writes: int
    busy: int  # cycles
    result: dict[str, Any]


def world(design: str, cpu: CpuSpec = FGT, host_events: int = 0) -> Experiment:
    """One vCPU with three counters, alone on `cpu`, under a host that counts so many events there, guests excluded."""
    spec = parse_design(design)
    counters = cpu.counters if spec.name == "raw" else COUNTERS
    of = experiment(spec.name, counters=counters, cpu=cpu, axes=spec.axes)
    if not host_events:
        return of
    events = tuple(EventSpec(f"r8:H:{n}", INST_RETIRED, n, exclude_guest=True) for n in range(host_events))
    session = SessionSpec("host", events, cpu_wide=True)
    return replace(of, host=replace(of.host, cpus=(HostCpuSpec(sessions=(session,)),)))


async def traffic(of: Experiment) -> Traffic:
    """Run the guest in `world`."""
    made = Simulation(of)
    machine, (vcpu,) = made.board.machine, made.vcpus
    cleared = r.counter_mask(COUNTERS)  # by the recorded armv8pmu_reset, which of more counters would clear all
    vcpu.pmu.cnten, vcpu.pmu.inten, vcpu.pmu.ovs = (
        bits & cleared for bits in (vcpu.pmu.cnten, vcpu.pmu.inten, vcpu.pmu.ovs)
    )
    guest = LinuxGuest("emulated" if of.design.name.startswith("emulated") else "partitioned")
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    made.attend_guest("vm0", 0, LocalSoftware(guest))
    machine.observe(True)
    await made.run()
    rows = [row for row in machine.observed() if guest.began <= row[1] <= guest.ended]
    own = [code >= TRAPPED_READ for _, _, el, code, _, _ in rows if el == 1 and code <= TRAPPED_WRITE]
    host = [code for _, _, el, code, _, _ in rows if el == 2]
    result = await made.result()
    busy = result["time"]["guest"] + result["time"]["host_kernel"]
    return Traffic(own, vcpu.vpmu.swaps.loads, host.count(READ), host.count(WRITE), busy, result)
