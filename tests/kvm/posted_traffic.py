"""What was done in a recording of v8's own code (`tests.kvm.recordings`), done here.

The guest makes the accesses that it made there, leaves the kernel where it did, and what KVM and the host's driver do
is compared, access by access; then what the VMM reads. Three things are not compared: what is no PMU's in MDCR_EL2 and
HDFG*_EL2, who made the CPU (PMCR_EL0.IMP and IDCODE), and what a counter has counted where it counts. Time is not
replayed either: a counter that overflowed overflows where its interrupt came, or its flag was found. Two are otherwise
there:

- the host's driver is Linux 6.12's: armv8pmu_enable_event clears PMCNTEN before it writes the type, 7.2's does not;
- QEMU lets EL1 reach counters and bits of HPMN and above, which the architecture hides: that is done in its stead.

A VM that is not partitioned has `emulated,kernel=7.3` or no PMU, on a host whose driver is v8's nevertheless, and with
what v8 changes for every VM.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from unittest import mock

from services import registers as r
from services._pmu import NOTE_SET_FILTER, NOTE_SET_NR_COUNTERS, NOTE_SET_ONE_REG
from services.boot import HostPolicy
from services.cpu import Cpu, Entry, EntryKind, Eventual, TookException, awaited
from services.experiment import CpuSpec, Experiment, HostCpuSpec, SessionSpec
from services.host_perf import HostPerf
from services.kvm import designs, without_pmu
from services.kvm.attendant import LocalSoftware
from services.kvm.designs.emulated import Emulated, EmulatedPmu
from services.kvm.designs.partitioned.trap_controls import FINE_GRAINED
from services.kvm.designs.partitioned.v8 import V8
from services.kvm.guest_pmu import GuestPmu
from services.kvm.one_reg import get_one_reg, reg_id
from services.kvm.simulation import Simulation
from services.kvm.vpmu import Access, KvmVcpu
from tests.kvm.recordings import (
    COUNTERS,
    GET_ONE_REG,
    SLEEP,
    TYPES,
    Do,
    Recording,
    Residency,
    Seen,
    Situation,
    Vm,
    found_on_cpu,
    one_reg,
    registers_before,
    residencies,
    situation,
)
from tests.kvm.scripted import INST_RETIRED, ONE_PER_CYCLE, Scripted, experiment, simulation

GHZ = 1_000_000_000
MDCR = r.MDCR_EL2_HPMN | r.PMU_TRAPS | r.MDCR_EL2_HPMD | r.MDCR_EL2_HCCD
COMPARED = {
    r.HDFGRTR_EL2: r.HDFGRTR_PMU,
    r.HDFGWTR_EL2: r.HDFGWTR_PMU,
    r.PMCR_EL0: 0xFFFF,
}
MASKS = {r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0, r.PMINTENSET_EL1, r.PMINTENCLR_EL1, r.PMOVSSET_EL0, r.PMOVSCLR_EL0}
PMINTEN = (r.PMINTENSET_EL1, r.PMINTENCLR_EL1)
STEPS = 10_000  # of a residency, which takes some hundreds
TO_OVERFLOW = 64  # cycles, in which a counter that is about to overflow does


class BesidePartitionedPmu(EmulatedPmu):
    """The fine-grained traps are every VM's; pmu_reg_write() reprograms counters at PMINTENSET and PMINTENCLR; and
    kvm_pmu_handle_guest_irq() asks for no kind of VM."""

    def activate_traps(self) -> None:
        self.host.load_2026(self.vcpu, r.PMU_TRAPS | self.vcpu.spec.counters, FINE_GRAINED)

    def access(self, register: int, write: bool, value: int) -> Access:
        if not (write and register in PMINTEN):
            return super().access(register, write, value)
        self.pmu.write(register, value)
        self._reprogram(value & self.pmu.mask)
        return self._perf(value) if self.rows else value

    def guest_overflow(self, mask: int) -> Eventual[None]:
        self.pmu.ovs |= mask
        return None


def host_of_v8(cpu: CpuSpec) -> HostPolicy:
    return V8().host_policy(cpu)


@dataclass(frozen=True, kw_only=True)
class BesidePartitioned(Emulated):
    """An emulated VM on a host with v8."""

    name = "beside-partitioned"

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        return host_of_v8(cpu)

    def vpmu(self, vcpu: KvmVcpu) -> EmulatedPmu:
        return BesidePartitionedPmu(self, vcpu)


class Program(Scripted):
    """A guest that does what it is told, with interrupts masked but where it waits for one."""

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
            self._about_to_overflow(act.overflows)
            if act.works:
                self.works = True
                cpu.burst.compute(1, 1, TO_OVERFLOW)
                return
            if act.access is None:
                cpu.burst.hvc(0)
                await cpu.wait()
            else:
                await self._access(cpu, act.access)
        cpu.burst.compute(1, 1, 1)

    def _about_to_overflow(self, counters: int) -> None:
        machine = self.simulation.board.machine
        for register, n in COUNTERS.items():
            if counters >> n & 1:
                machine.poke(0, register, r.MASK64)

    def hides(self, one: Seen) -> bool:
        """Is it an access to a counter of HPMN or above, which QEMU lets EL1 make?"""
        (vcpu,) = self.simulation.vcpus
        return one.guest and not one.trapped and not vcpu.pmu.mask >> COUNTERS.get(one.register, 31) & 1

    async def _access(self, cpu: Cpu, one: Seen) -> None:
        machine, (vcpu,) = self.simulation.board.machine, self.simulation.vcpus
        hidden = ~vcpu.pmu.mask & r.MASK32
        if self.hides(one):
            if one.write:
                assert one.value is not None
                machine.poke(0, one.register, one.value)
            return
        try:
            read = await one.perform(cpu)
            if read is not None:
                self.read.append(read)
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


def set_registers(pmu: GuestPmu, recording: Recording) -> None:
    """As reset and the VMM have left them."""
    for register, value in registers_before(recording):
        if register in COUNTERS:
            pmu.counter[COUNTERS[register]] = value
        elif register in TYPES:
            pmu.typer[TYPES[register]] = value
        elif register == r.PMINTENSET_EL1:
            pmu.inten = value
        elif register == r.PMCNTENSET_EL0:
            pmu.cnten = value
        elif register == r.PMOVSSET_EL0:
            pmu.ovs = value
        else:
            pmu.write(register, value)


def world(of: Situation) -> Experiment:
    """One VM of the kind, alone on the CPU."""
    names = {Vm.PARTITIONED: V8.name, Vm.EMULATED: BesidePartitioned.name, Vm.WITHOUT_PMU: BesidePartitioned.name}
    axes = {} if of.vm is Vm.PARTITIONED else {"kernel": "7.3"}
    made = experiment(names[of.vm], counters=of.counters, cpu=of.cpu, axes=axes)
    made = replace(made, frequency_hz=GHZ, profiles=(((INST_RETIRED, ONE_PER_CYCLE),),) * 3)
    pmuver = 0 if of.vm is Vm.WITHOUT_PMU else min(of.cpu.pmuver, r.PMUVER_P5)  # ID_AA64DFR0_EL1.PMUVer, as KVM has it
    made = replace(made, guests=tuple(replace(guest, pmuver=pmuver) for guest in made.guests))
    if of.events:
        sessions = (SessionSpec("stat", of.events, cpu_wide=True),)
        made = replace(made, host=replace(made.host, cpus=(HostCpuSpec(sessions=sessions),)))
    return made


def simulated(of: Experiment, program: Scripted) -> Simulation:
    """On a host with v8, whatever the VM."""
    with (
        mock.patch.dict(designs.offered(), {BesidePartitioned.name: BesidePartitioned}),
        mock.patch.object(without_pmu, "host_policy", host_of_v8),
    ):
        return simulation(of, program)


class Replay:
    """A recording, done again. `difference`: the first, in words; empty if there is none."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.parts = residencies(recording["accesses"])
        self.situation = situation(recording)
        self.program = Program()
        self.simulation = self.program.simulation = simulated(world(self.situation), self.program)
        self.host = HostPerf().attend(0)
        self.simulation.attend_host(0, LocalSoftware(self.host))
        (self.vcpu,), self.machine = self.simulation.vcpus, self.simulation.board.machine
        self.by: Comparison
        self.counted = 0  # the VM's counters that may have counted, one bit each
        self.difference = ""

    async def run(self) -> None:
        await self._boot()
        for number, part in enumerate(self.parts, 1):
            self.difference = await self._residency(number, part)
            if self.difference:
                self.difference = f"residency {number}, {self.difference}"
                return

    async def _boot(self) -> None:
        """The host's; then the CPU is as it was found."""
        pmu, machine = self.vcpu.pmu, self.machine
        pmu.set_counters(self.situation.counters)
        pmu.denied = list(self.situation.denied)
        set_registers(pmu, self.recording)
        self._tell_the_judge()
        await self.simulation.step()
        running = machine.peek(0, r.PMCNTENSET_EL0)
        for register, value in found_on_cpu(self.recording["accesses"]):
            of_host = self.situation.events and register in MASKS | TYPES.keys()
            if not of_host and not running >> COUNTERS.get(register, r.INSTRUCTION_COUNTER) & 1:
                machine.poke(0, register, value)
        machine.observe(True)
        hpme = r.MDCR_EL2_HPME if self.situation.vm is Vm.PARTITIONED else 0  # which v8 sets for every VM
        self.by = Comparison(pmu.mask, running, MDCR | hpme)
        self.counted = pmu.cnten

    def _tell_the_judge(self) -> None:
        """What the VMM has set up."""
        machine, vcpu = self.machine, self.vcpu
        machine.note(0, NOTE_SET_NR_COUNTERS, vcpu.context, self.situation.counters)
        for event in self.situation.denied:
            machine.note(0, NOTE_SET_FILTER, vcpu.context << 16 | event, 1 << 1 | 1)
        for register, value in registers_before(self.recording):
            machine.note(0, NOTE_SET_ONE_REG, vcpu.context << 16 | register, value)

    async def _residency(self, number: int, part: Residency) -> str:
        """Load, what the guest does, and put: that of an exit to userspace, whose thread stays, as do its events."""
        vcpu, machine, program = self.vcpu, self.machine, self.program
        machine.observed()
        program.acts = deque(part.acts)
        if number > 1:
            self.host.perf.pmuserenr_on_cpu = True
            vcpu.reload_due |= part.reloads
            await vcpu.switched_in()
        else:
            await self.simulation.step()
        for _ in range(STEPS):
            vcpu.vgic.line &= program.works
            await self.simulation.step()
            if not program.acts and not program.works:
                break
        else:
            return f"its guest has still to do {program.acts[0]}"
        vcpu.trap_null()
        vcpu.pcpu.enter_kernel()
        self.host.perf.pmuserenr_on_cpu = False
        if part.flags:
            machine.poke(0, r.PMOVSSET_EL0, part.flags)
        await vcpu.switched_out()
        recorded = [one for one in part.seen if not program.hides(one)]
        for one in recorded:
            if one.guest and one.write and one.register == r.PMCNTENSET_EL0:
                self.counted |= one.value or 0
        difference = compare(without_6_12(seen(machine.observed())), recorded, self.by)
        when = f"exit{number}" if number < len(self.parts) else "after"
        for phase, behind in part.behind or [(GET_ONE_REG, [])]:
            if not difference:
                difference = await (self._sleep(behind) if phase == SLEEP else self._one_reg(when, behind))
        return difference

    async def _sleep(self, recorded: Sequence[Seen]) -> str:
        """The VMM does, and its thread's events with it."""
        pcpu = self.vcpu.pcpu
        await pcpu.enter_host(EntryKind.TASK_OUT, self.vcpu.id, el=2)
        await pcpu.enter_host(EntryKind.TASK_IN, self.vcpu.id, el=-1)
        return compare(without_6_12(seen(self.machine.observed())), recorded, self.by)

    async def _one_reg(self, when: str, recorded: Sequence[Seen]) -> str:
        """What the VMM reads, and what is seen of it."""
        vcpu = self.vcpu
        for register, value in one_reg(self.recording, when).items():
            vcpu.pcpu.rq.current = None
            found = await awaited(get_one_reg(vcpu, reg_id(register)))
            vcpu.pcpu.rq.current = vcpu
            if self.counted >> COUNTERS.get(register, r.INSTRUCTION_COUNTER) & 1:
                continue
            mask = vcpu.pmu.mask if register in MASKS else COMPARED.get(register, r.MASK64)
            if (found ^ value) & mask and self.by.of(register, value) != found:
                return f"KVM_GET_ONE_REG {when}: {Seen(False, False, False, register, found)}, recorded {value:#x}"
        return compare(seen(self.machine.observed()), recorded, self.by)


def without_6_12(ours: list[Seen]) -> list[Seen]:
    """Without what armv8pmu_enable_event does in Linux 6.12 and not in 7.2."""
    return [
        one
        for one, after in zip(ours, [*ours[1:], None], strict=True)
        if not (one.register == r.PMCNTENCLR_EL0 and after is not None and after.write and after.register in TYPES)
    ]


class Comparison:
    """Of what is seen here with what was recorded."""

    def __init__(self, vm: int, enabled: int, mdcr: int) -> None:
        self.compared = {**COMPARED, r.MDCR_EL2: mdcr}
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
        mask = self.compared.get(ours.register, r.MASK64)
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

    def of(self, register: int, recorded: int) -> int:
        """What there is here where a counter had `recorded` there."""
        return self.ours.get((COUNTERS.get(register, -1), recorded), recorded)

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


async def replay(recording: Recording) -> Replay:
    """Have a guest do what it did in a recording, and compare what is seen."""
    made = Replay(recording)
    await made.run()
    return made
