"""What v8's own code did on an emulated CPU, and the same done here.

`posted-v8-traffic.json.xz`: recordings of a Linux 7.2.13 with the 21 patches of "ARM64 PMU Partitioning" v8 under QEMU
10.0.13 (VHE), with `reserved_host_counters=3` of 6 counters; one instruction is one cycle and one ns. Of a bare guest
program `accesses` are [phase, function, "r" or "w", register, value], "guest-trapped" those of the guest's that trap.
Of a Linux guest there are its own accesses, trapped (`T`) or not, and counts.

Here the guest makes the accesses that it made there, leaves the kernel where it did, and what KVM and the host's
driver do is compared, access by access. Three things are not compared: what is no PMU's in MDCR_EL2 and HDFG*_EL2, who
made the CPU (PMCR_EL0.IMP and IDCODE), and what a counter has counted where it counts. Two are otherwise there:

- the host's driver is Linux 6.12's: armv8pmu_enable_event clears PMCNTEN before it writes the type, 7.2's does not;
- QEMU lets EL1 reach counters and bits of HPMN and above, which the architecture hides: that is done in its stead.
"""

from __future__ import annotations

import lzma
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from services import registers as r
from services._pmu import register_encoding, register_name
from services.cpu import Cpu, Entry, EntryKind, TookException
from services.experiment import CpuSpec, EventSpec, HostCpuSpec, SessionSpec
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.guest_pmu import GuestPmu
from services.kvm.simulation import Simulation
from tests.kvm.scripted import ONE_PER_CYCLE, Scripted, experiment, simulation

RECORDINGS: list[dict[str, Any]] = orjson.loads(
    lzma.decompress(Path(__file__).with_name("posted-v8-traffic.json.xz").read_bytes())
)
MAX = CpuSpec(model="max", counters=6, pmuver=6, fgt=1, hpmn0=True)
NEOVERSE_V1 = CpuSpec(model="neoverse-v1", counters=6, pmuver=5)
GHZ = 1_000_000_000
MDCR = r.MDCR_EL2_HPMN | r.PMU_TRAPS | r.MDCR_EL2_HPME | r.MDCR_EL2_HPMD | r.MDCR_EL2_HCCD
HDFG = r.HDFG_PMEVTYPERN | r.HDFG_PMCCFILTR | r.HDFG_PMOVS | r.HDFGRTR_PMMIR | r.HDFGRTR_PMCEIDN
COMPARED = {r.MDCR_EL2: MDCR, r.HDFGRTR_EL2: HDFG, r.HDFGWTR_EL2: HDFG, r.PMCR_EL0: 0xFFFF}
MASKS = {r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0, r.PMINTENSET_EL1, r.PMINTENCLR_EL1, r.PMOVSSET_EL0, r.PMOVSCLR_EL0}
COUNTERS = {**{r.PMEVCNTR(n): n for n in range(31)}, r.PMCCNTR_EL0: 31}
TYPES = {*map(r.PMEVTYPER, range(31)), r.PMCCFILTR_EL0}
LAST = (1 << 32) - 1  # value of a counter before it overflows
ELSEWHERE = ("guest-mark", "vcpu-ioctl", "host-other", "host-sched")


def encoding(name: str) -> int:
    """Of a register by the name that the recordings have."""
    if not name.endswith("_EL2"):
        name += "_EL1" if name.startswith(("PMINTEN", "PMMIR")) else "_EL0"
    return register_encoding(name)


@dataclass(frozen=True)
class Seen:
    """One access."""

    guest: bool
    trapped: bool
    write: bool
    register: int
    value: int | None  # none of a trapped read

    def __str__(self) -> str:
        who = f"{'guest ' if self.guest else ''}{'trapped ' if self.trapped else ''}{'w' if self.write else 'r'}"
        return f"{who} {register_name(self.register)}{'' if self.value is None else f' {self.value:#x}'}"


@dataclass
class Do:
    """What the guest does: an access, or work up to an interrupt, or a call that KVM answers itself."""

    access: Seen | None = None
    works: bool = False


@dataclass
class Residency:
    """What the guest does between a load and a put, and what is to be seen from the load's begin to the put's end."""

    acts: list[Do] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)


def residencies(accesses: Sequence[Sequence[Any]]) -> list[Residency]:
    """A recording, cut before each load."""
    found: list[Residency] = []
    rows = [row for row in accesses if row[0] not in ELSEWHERE]
    trapped = False  # the handling of a trapped access is under way
    for at, (phase, _, way, name, value) in enumerate(rows):
        before = rows[at - 1][0] if at else ""
        if phase.startswith("load") and phase != before:
            found.append(Residency())
        here = found[-1]
        one = Seen(
            phase.startswith("guest"),
            phase == "guest-trapped",
            way == "w",
            encoding(name),
            None if value is None else int(value, 16),
        )
        here.seen.append(one)
        if one.guest:
            here.acts.append(Do(one))
            trapped = one.trapped
        elif phase == "sync" and (way, name) == ("r", "PMINTENSET") and not (trapped and before == "guest-trapped"):
            trapped = False
            after = next((row[0] for row in rows[at:] if row[0] != "sync"), "")
            if after in ("flush", "irq"):
                here.acts.append(Do(works=after == "irq"))
        elif phase == "irq" and before != "irq" and trapped:
            # It counts a cycle up to its overflow during the trapped access, instead of thousands before.
            last = next(act for act in reversed(here.acts) if act.access and act.access.register in COUNTERS)
            assert last.access is not None
            sooner = replace(last.access, value=LAST)
            here.seen[len(here.seen) - 1 - here.seen[::-1].index(last.access)] = last.access = sooner
    return found


class Program(Scripted):
    """A guest that does what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.acts: deque[Do] = deque()
        self.read: list[int] = []
        self.undefined = 0
        self.works = False
        self.simulation: Simulation

    async def enter(self, cpu: Cpu, entry: Entry) -> None:
        if entry.kind in (EntryKind.BOOT, EntryKind.RESUME, EntryKind.PMU_IRQ):
            await self._go_on(cpu)
        else:
            await super().enter(cpu, entry)

    async def _go_on(self, cpu: Cpu) -> None:
        self.works = False
        while self.acts:
            act = self.acts.popleft()
            if act.works:
                self.works = True
                cpu.burst.compute(1, 1, 1 << 20)
                return
            if act.access is None:
                cpu.burst.hvc(0)
                await cpu.wait()
            else:
                await self._access(cpu, act.access)
        cpu.burst.compute(1, 1, 1)

    def hides(self, one: Seen) -> bool:
        """Is it an access to a counter of HPMN or above, which QEMU lets EL1 make?"""
        (vcpu,) = self.simulation.vcpus
        return one.guest and not one.trapped and not vcpu.pmu.mask >> COUNTERS.get(one.register, 31) & 1

    async def _access(self, cpu: Cpu, one: Seen) -> None:
        machine, (vcpu,) = self.simulation.board.machine, self.simulation.vcpus
        hidden = ~vcpu.pmu.mask & (1 << 32) - 1
        if self.hides(one):
            assert one.value is not None
            machine.poke(0, one.register, one.value)
            return
        try:
            if one.write:
                assert one.value is not None
                cpu.burst.msr(one.register, one.value)
                await cpu.wait()
            else:
                self.read.append(await cpu.mrs(one.register))
        except TookException:
            self.undefined += 1
        if one.write and one.register in MASKS and not one.trapped and (one.value or 0) & hidden:  # QEMU
            machine.poke(0, one.register, machine.peek(0, one.register) | (one.value or 0) & hidden)


def seen(rows: Sequence[tuple[int, int, int, int, int, int]]) -> list[Seen]:
    """What the machine has observed."""
    return [
        Seen(el < 2, code > 1, bool(code & 1), register, None if code > 1 and not code & 1 else value)
        for _, _, el, code, register, value in rows
        if code < 4
    ]


def host_events(observed: Sequence[str]) -> tuple[EventSpec, ...]:
    """The host's events of a recording: CPU-wide ones."""
    found: list[EventSpec] = []
    for line in observed:
        if line.startswith("event "):
            name, event = line.split()[1], int(line.split()[3], 16)
            found.append(
                EventSpec(name, event, len(found), pinned=name.endswith("pinned"), exclude_guest="hostonly" in name)
            )
    return tuple(found)


def one_reg(observed: Sequence[str], when: str) -> dict[str, int]:
    """The registers that the VMM read by KVM_GET_ONE_REG."""
    line = next((line for line in observed if line.startswith(f"ONE_REG {when}:")), "")
    return {name: int(value, 16) for name, _, value in (word.partition("=") for word in line.split() if "=" in word)}


def set_registers(pmu: GuestPmu, values: dict[str, int]) -> None:
    """As reset and VMM have left them."""
    for name, value in values.items():
        register = encoding(name)
        if register in COUNTERS:
            pmu.counter[COUNTERS[register]] = value
        elif register in TYPES:
            if register == r.PMCCFILTR_EL0:
                pmu.typer[31] = value
            else:  # the one that was read stands for all
                pmu.typer[:31] = [0 if value == 8 else value] * 31
                pmu.typer[0] = value
        elif register == r.PMINTENSET_EL1:
            pmu.inten = value
        elif register == r.PMCNTENSET_EL0:
            pmu.cnten = value
        elif register == r.PMOVSSET_EL0:
            pmu.ovs = value
        else:
            pmu.write(register, value)


@dataclass
class Replayed:
    """A recording, done again."""

    simulation: Simulation
    program: Program
    difference: str  # in words; empty if there is none


async def replay(recording: dict[str, Any], design: str = "partitioned-v8") -> Replayed:
    """Have a guest do what it did in a recording, and compare what is seen."""
    parts = residencies(recording["accesses"])
    fgt = recording["run"] == "with FEAT_FGT"
    of = experiment(design, counters=3, cpu=MAX if fgt else NEOVERSE_V1)
    of = replace(of, frequency_hz=GHZ, profiles=(((0x08, ONE_PER_CYCLE),),) * 3)
    events = host_events(recording["observed"])
    if events:
        session = SessionSpec("stat", events, cpu_wide=True)
        of = replace(of, host=replace(of.host, cpus=(HostCpuSpec(sessions=(session,)),)))
    program = Program()
    made = program.simulation = simulation(of, program)
    host = HostPerf().attend(0)
    made.attend_host(0, LocalSoftware(host))
    (vcpu,), (pcpu,), machine = made.vcpus, made.pcpus, made.board.machine
    before = one_reg(recording["observed"], "before")
    vcpu.pmu.set_counters((before.get("PMCR", 0x1800) & r.PMCR_N) >> r.PMCR_N_SHIFT)
    if "filter" in recording["name"]:
        vcpu.pmu.denied = [0x08, 0x11]
    set_registers(vcpu.pmu, before)
    await made.step()  # the host boots
    running = machine.peek(0, r.PMCNTENSET_EL0)
    for register, value in _found_there(recording["accesses"]):
        if not (events and register in MASKS | TYPES) and not running >> COUNTERS.get(register, 32) & 1:
            machine.poke(0, register, value)
    machine.observe(True)
    by = Comparison(vcpu.pmu.mask, running)
    for number, part in enumerate(parts):
        machine.observed()
        program.acts = deque(part.acts)
        if number:
            host.perf.pmuserenr_on_cpu = True
            await vcpu.switched_in()
        else:
            await made.step()
        while True:
            vcpu.vgic.line &= program.works  # the guest has interrupts masked, but where it waits for one
            await made.step()
            if not program.acts:
                break
        vcpu.trap_null()
        pcpu.enter_kernel()
        host.perf.pmuserenr_on_cpu = False
        await vcpu.switched_out()  # vcpu_put() of an exit to userspace: its thread stays, and the events of that
        recorded = [one for one in part.seen if not program.hides(one)]
        difference = compare(without_6_12(seen(machine.observed())), recorded, by)
        if difference:
            return Replayed(made, program, f"residency {number + 1}, {difference}")
    return Replayed(made, program, "")


def _found_there(accesses: Sequence[Sequence[Any]]) -> Iterator[tuple[int, int]]:
    """What the CPU had in registers that are read before they are written."""
    known = {r.MDCR_EL2, r.HDFGRTR_EL2, r.HDFGWTR_EL2}
    for phase, _, way, name, value in accesses:
        if phase in ("guest-mark", "guest-trapped"):
            continue
        register = encoding(name)
        if way == "r" and register not in known:
            yield register, int(value, 16) & (0xFF if register == r.PMCR_EL0 else r.MASK64)
        known.add(register)


def without_6_12(ours: list[Seen]) -> list[Seen]:
    """Without what armv8pmu_enable_event does in Linux 6.12 and not in 7.2."""
    return [
        one
        for one, after in zip(ours, [*ours[1:], None], strict=True)
        if not (one.register == r.PMCNTENCLR_EL0 and after is not None and after.write and after.register in TYPES)
    ]


class Comparison:
    """Of what is seen here with what was recorded."""

    def __init__(self, vm: int, enabled: int) -> None:
        self.vm = vm  # the counters of the VM, one bit each
        self.enabled = enabled  # PMCNTEN
        self.counted = dict.fromkeys(r.bits(enabled), True)  # by counter: has it counted since it was written?
        self.ours: dict[tuple[int, int], int] = {}  # by counter and what was recorded of it, what it has here

    def differ(self, ours: Seen, recorded: Seen) -> bool:
        """Do they?"""
        if replace(ours, value=None) != replace(recorded, value=None):
            return True
        if ours.trapped or ours.value is None or recorded.value is None:
            return False
        if ours.register in COUNTERS:
            return self._counter(COUNTERS[ours.register], ours, recorded.value)
        if ours.register == r.PMCNTENSET_EL0 and ours.write:
            self.enabled |= recorded.value
            for n in r.bits(recorded.value):
                self.counted[n] = True
        elif ours.register == r.PMCNTENCLR_EL0:
            self.enabled &= ~recorded.value
        mask = COMPARED.get(ours.register, r.MASK64)
        if ours.guest and ours.register in MASKS:
            mask &= self.vm
        return bool((ours.value ^ recorded.value) & mask)

    def _counter(self, n: int, ours: Seen, recorded: int) -> bool:
        assert ours.value is not None
        if ours.write:
            self.counted[n] = bool(self.enabled >> n & 1)
            expected = self.ours.get((n, recorded), self.moved(recorded, recorded))
            self.ours[n, recorded] = ours.value
            return ours.value != expected
        if not self.counted.get(n, False):
            return ours.value != self.ours.get((n, recorded), recorded)
        self.ours[n, recorded] = ours.value
        return False

    def moved(self, recorded: int, default: int) -> int:
        """What an event of the host's that was on another counter had there."""
        return next((ours for (_, was), ours in self.ours.items() if was == recorded), default)


def compare(ours: Sequence[Seen], recorded: Sequence[Seen], by: Comparison) -> str:
    """The first difference, in words; empty if there is none."""
    for at, (one, other) in enumerate(zip(ours, recorded, strict=False)):
        if by.differ(one, other):
            around = "\n".join(
                f"  {mine!s:50} {theirs!s}"
                for mine, theirs in [*zip(ours, recorded, strict=False)][max(0, at - 6) : at + 4]
            )
            return f"access {at}: {one}, recorded {other}\n{around}"
    if len(ours) != len(recorded):
        longer = ours if len(ours) > len(recorded) else recorded
        return f"{len(ours)} accesses, recorded {len(recorded)}; then {longer[min(len(ours), len(recorded))]}"
    return ""
