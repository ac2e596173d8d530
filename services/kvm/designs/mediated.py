"""`mediated`: the whole PMU is the guest's from each VM entry to the exit, as KVM has had it on x86 since Linux 7.0.

kvm_mediated_pmu_load and kvm_mediated_pmu_put: at an entry the events of the host go off the PMU and their clocks stop;
at the exit both go on. A register that has its value already is not written: where nobody else uses the PMU, a guest's
counters and types stay where they are. HPMN hides counters beyond the guest's from it, and is N at EL2.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

from services import registers as r
from services._pmu import Burst
from services.boot import HostPolicy
from services.cpu import Call, Eventual, awaited
from services.experiment import CpuSpec
from services.kvm.bill import Account
from services.kvm.designs.partitioned import accesses, trap_controls
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.guest_range import guest_range, host_counters
from services.kvm.designs.partitioned.swap import enforced, quiet
from services.kvm.designs.partitioned.trap_controls import Traps
from services.kvm.guest_pmu import OF_COUNTERS, PMCR_WRITABLE
from services.kvm.trap_setup import HostTraps
from services.kvm.vpmu import Design, KvmVcpu, SetN, Vpmu, axis
from services.registers import CYCLE_COUNTER
from services.state import derived

ACCESSES = accesses.ON_CPU | accesses.types_written_through()


@dataclass(eq=False)
class MediatedPmu(Vpmu):
    """The PMU is the guest's while it is entered; its registers are in memory otherwise."""

    design: Mediated = derived()
    context: PmuContext = field(default_factory=partial(PmuContext, owned=True), init=False)  # loaded: entered
    host: HostTraps = field(default_factory=HostTraps, init=False)
    host_pmcr: int = 0  # as the last entry found it
    host_out: bool = False  # the host's events have been taken off the PMU for this entry
    hides: bool = derived(init=False)  # event counters of the CPU from the guest: by MDCR_EL2.HPMN
    on_load: Burst = derived(init=False)  # what an entry reads
    on_put: Burst = derived(init=False)  # and an exit

    def derive(self) -> None:
        super().derive()
        cpu, context = self.vcpu.spec, self.context
        on = guest_range(cpu, self.pmu.counters, fgt=self.design.traps is Traps.FGT)
        self.hides = on.split and on.hpmn < cpu.counters
        context.fit(self, replace(on, split=True), n=self.pmu.counters)  # PMCR_EL0.E is the guest's in any case
        if not context.loaded:
            context.read, context.write = self._read, self._write
        self.fast_path = self.design.traps is Traps.FAST_PATH
        self.on_load, self.on_put = Burst(), Burst()
        for register, _ in self._swapped():
            self.on_load.mrs(register)
        for register in (r.PMCR_EL0, r.PMOVSSET_EL0, r.PMCNTENSET_EL0, r.PMINTENSET_EL1):
            self.on_load.mrs(register)
        for register in (*on.counters, r.PMCCNTR_EL0, r.PMSELR_EL0, r.PMUSERENR_EL0, r.PMCR_EL0):
            self.on_put.mrs(register)
        for register in (r.PMOVSSET_EL0, r.PMCNTENSET_EL0, r.PMINTENSET_EL1):
            self.on_put.mrs(register)

    def _swapped(self) -> list[tuple[int, int]]:
        """What the guest has of its own on the CPU, its enables and flags aside: registers and their values."""
        pmu, on = self.pmu, self.context.on
        return [
            *((register, enforced(pmu, n)) for n, register in enumerate(on.types)),
            (r.PMCCFILTR_EL0, enforced(pmu, CYCLE_COUNTER)),
            *((register, pmu.value(n)) for n, register in enumerate(on.counters)),
            (r.PMCCNTR_EL0, pmu.counter[CYCLE_COUNTER]),
            (r.PMSELR_EL0, pmu.selr),
            (r.PMUSERENR_EL0, pmu.userenr),
        ]

    def el0_switched(self) -> bool:
        """No event of the host's counts while the guest is entered."""
        return False

    def activate_traps(self) -> Eventual[None]:
        """Nothing is forbidden at EL2, where the host counts during an exit: the guest's event types exclude it."""
        self.derive()
        mdcr = self._mdcr(self.vcpu.spec.counters)
        fine = trap_controls.fine_grained(self.context.on.untrapped, self.context.more_traps())
        return self.host.load_2026(self.vcpu, mdcr, fine)

    def _mdcr(self, hpmn: int) -> int:
        return hpmn if self.context.on.untrapped else hpmn | r.PMU_TRAPS

    async def load(self) -> None:
        """The PMU is still the host's."""

    def deactivate_traps(self) -> Eventual[None]:
        return self.host.put_2026(self.vcpu)

    async def put(self) -> None:
        """It is so again."""

    async def enter(self) -> None:
        """kvm_mediated_pmu_load."""
        vcpu, context, swaps = self.vcpu, self.context, self.context.swaps
        self.host_out = vcpu.host_has_events
        if self.host_out:
            await awaited(vcpu.call([(Call.GUEST_CONTEXT, 1, 0, 0, 0)], Account.RESERVE))
        account = vcpu.set_account(Account.SWAP)
        *found, pmcr, flags, cnten, inten = self._execute(self.on_load)
        writes = Burst()
        self.host_pmcr = pmcr & PMCR_WRITABLE
        if pmcr & r.PMCR_E:
            writes.msr(r.PMCR_EL0, self.host_pmcr & ~r.PMCR_E)
        if self.hides:
            writes.msr(r.MDCR_EL2, self._mdcr(context.on.hpmn))
        for (register, value), there in zip(self._swapped(), found, strict=True):
            if value != there:
                writes.msr(register, value)
        mask = context.on.mask
        wanted = quiet(self.pmu, mask)  # the others are in memory, for injection
        self._enable(writes, (r.PMOVSSET_EL0, r.PMOVSCLR_EL0), wanted, flags & mask)
        self.pmu.ovs &= ~wanted
        self._enable(writes, (r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0), self.pmu.cnten, cnten & mask)
        self._enable(writes, (r.PMINTENSET_EL1, r.PMINTENCLR_EL1), self.pmu.inten, inten & mask)
        guests = self.pmu.pmcr & self.pmu.pmcr_writable
        if guests != self.host_pmcr & ~r.PMCR_E:
            writes.msr(r.PMCR_EL0, guests)
        self._execute(writes)
        swaps.loads += 1
        context.loaded = True
        context.read, context.write = vcpu.read, vcpu.write
        vcpu.set_account(Account(account))

    def _enable(self, writes: Burst, registers: tuple[int, int], wanted: int, there: int) -> None:
        for register, bits in zip(registers, (wanted & ~there, there & ~wanted), strict=True):
            if bits:
                writes.msr(register, bits)

    async def leave(self) -> None:
        """kvm_mediated_pmu_put."""
        vcpu, context, pmu = self.vcpu, self.context, self.pmu
        account = vcpu.set_account(Account.SWAP)
        on = context.on
        *counters, cycles, selr, userenr, pmcr, flags, cnten, inten = self._execute(self.on_put)
        pmu.counter[: on.hpmn], pmu.counter[CYCLE_COUNTER] = counters, cycles
        pmu.selr, pmu.userenr, pmu.pmcr = selr, userenr, pmcr & pmu.pmcr_writable
        pmu.cnten, pmu.inten = cnten & on.mask, inten & on.mask
        pmu.ovs |= flags & on.mask
        writes = Burst()
        for register, bits in (
            (r.PMCNTENCLR_EL0, pmu.cnten),
            (r.PMINTENCLR_EL1, pmu.inten),
            (r.PMOVSCLR_EL0, flags & on.mask),
        ):
            if bits:
                writes.msr(register, bits)
        if self.hides:
            writes.msr(r.MDCR_EL2, self._mdcr(self.vcpu.spec.counters))
        if pmu.pmcr != self.host_pmcr:
            writes.msr(r.PMCR_EL0, self.host_pmcr)
        self._execute(writes)
        context.swaps.puts += 1
        context.loaded = False
        context.read, context.write = self._read, self._write
        vcpu.set_account(Account(account))
        if self.host_out:
            await awaited(vcpu.call([(Call.GUEST_CONTEXT, 0, 0, 0, 0)], Account.RESERVE))

    def _execute(self, burst: Burst) -> list[int]:
        """With interrupts off, as all around a VM entry."""
        values = self.vcpu.kvm_irqs_off(burst)
        swaps = self.context.swaps
        swaps.register_reads += len(values)
        swaps.register_writes += len(burst) - len(values)
        return values

    async def access(self, register: int, write: bool, value: int) -> int:
        """After an exit in memory; within the hypervisor's own code (traps=fast-path) on the CPU."""
        return await ACCESSES.perform(self.context, register, write, value)

    async def _read(self, register: int) -> int:
        """A register in memory; of what is not the guest's own, the CPU's."""
        n, is_type = OF_COUNTERS.get(register, (None, True))
        if n is not None and not is_type:
            return self.pmu.value(n)
        value = self.pmu.read(register)
        return await self.vcpu.read(register) if value is None else value

    async def _write(self, register: int, value: int) -> None:
        """Likewise. Of an event type that is what the next entry makes of it."""
        n, is_type = OF_COUNTERS.get(register, (None, True))
        if n is None or is_type:
            self.pmu.write(register, value)
        else:
            self.pmu.counter[n] = value if n == CYCLE_COUNTER else value & self.pmu.width

    def fast(self, register: int, write: bool) -> bool:
        return self.context.resident and not self.context.may_interrupt(register, write)

    def level(self) -> Eventual[bool]:
        return self.context.overflow_status()


@dataclass(frozen=True, kw_only=True)
class Mediated(Design):
    """The guest owns the whole PMU while it is entered."""

    name = "mediated"
    why = "the whole PMU changes hands at every VM entry and exit; host events exclude guests, their clocks too"

    at_entry: ClassVar[bool] = True

    traps: Traps = axis(Traps.FGT, trap_controls.TRAPS)

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        return trap_controls.check(self.traps, cpu, counters)

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        """Every counter, for events that exclude guests."""
        return HostPolicy(host_counters(cpu), guest_flags=0, refuses_guests=True)

    @property
    def per_vcpu_traps(self) -> bool:
        return True

    @property
    def set_n(self) -> SetN:
        return SetN.ATTRIBUTE

    def vpmu(self, vcpu: KvmVcpu) -> MediatedPmu:
        return MediatedPmu(self, vcpu)
