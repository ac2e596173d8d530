"""`gunyah`: semi-lazy, as the Gunyah hypervisor has it (hyp/vm/arm_vm_pmu, hyp/platform/pmu).

The first access of a time slice traps, loads the guest's PMU and is executed again; from there on nothing traps until
the vCPU is switched out. A vCPU with a counter enabled has its PMU from its switch-in on. Overflow flags are on the
CPU. The PMU's interrupt is the hypervisor's, which asserts the guest's and leaves its own active until it finds, at the
end of the guest's handler, that no flag with its PMINTENSET_EL1 bit is set.

What follows from that, and is so there: a guest has every counter of the CPU (PMCR_EL0.N is HPMN = N), and no event of
them is filtered; its cycle counter counts at EL2 if its PMCCFILTR_EL0.NSH says so, as HPMD is not for that one; a
program of it that the kernel lets read counters finds PMUSERENR_EL0 so only while its PMU is on the CPU; a vCPU that is
switched out with a flag set whose interrupt is still under way is not woken for it, and has it at its next switch-in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from services import registers as r
from services._pmu import Burst
from services.boot import HostPolicy
from services.experiment import CpuSpec
from services.kvm.bill import Account
from services.kvm.declared import Declared, Victim, given_up
from services.kvm.designs.limits import filters
from services.kvm.designs.partitioned.accesses import ON_CPU
from services.kvm.errors import InjectUndef, RetryAccess
from services.kvm.guest_pmu import PMCR_WRITABLE
from services.kvm.vpmu import Access, Design, KvmVcpu, SetN, Vpmu
from services.registers import CYCLE_COUNTER, MASK32
from services.state import derived

PMU_REGISTERS = (ON_CPU.reads.keys() | ON_CPU.writes.keys()) - {r.PMMIR_EL1}


@dataclass(eq=False)
class GunyahPmu(Vpmu):
    """On the CPU from the first access of a time slice to its end, or all of it; in memory otherwise."""

    design: Gunyah = derived()
    resident: bool = False
    asserted: bool = False  # the guest's interrupt
    ended: bool = False  # its handler has, and the hypervisor is yet to look

    def el0_switched(self) -> bool:
        """The host counts nothing."""
        return False

    async def load(self) -> None:
        """The switch-in: thread_context_switch_post and thread_load_state."""
        self.derive()
        vcpu, pmu = self.vcpu, self.pmu
        if not self.asserted:
            vcpu.deactivate_interrupt()
        self.resident = bool(pmu.pmcr & r.PMCR_E and pmu.cnten)
        if self.resident:
            self._load_state()
            return
        burst = Burst()
        burst.msr(r.MDCR_EL2, self._mdcr() | r.PMU_TRAPS)
        _disable(burst)
        vcpu.kvm_irqs_off(burst)
        self._count(burst)

    def _mdcr(self) -> int:
        cpu = self.vcpu.spec
        return cpu.counters | (r.MDCR_EL2_HPMD if cpu.pmuver >= r.PMUVER_P1 else 0)

    def _load_state(self) -> None:
        """The traps go, and every register is written."""
        pmu, burst = self.pmu, Burst()
        burst.msr(r.MDCR_EL2, self._mdcr())
        for n in range(self.vcpu.spec.counters):
            burst.msr(r.PMEVCNTR(n), pmu.counter[n])
            burst.msr(r.PMEVTYPER(n), pmu.typer[n])
        burst.msr(r.PMINTENCLR_EL1, ~pmu.inten & MASK32)
        burst.msr(r.PMINTENSET_EL1, pmu.inten)
        burst.msr(r.PMOVSCLR_EL0, ~pmu.ovs & MASK32)
        burst.msr(r.PMOVSSET_EL0, pmu.ovs)
        burst.msr(r.PMCR_EL0, pmu.pmcr)
        burst.msr(r.PMCCNTR_EL0, pmu.counter[CYCLE_COUNTER])
        burst.msr(r.PMSELR_EL0, pmu.selr)
        burst.msr(r.PMUSERENR_EL0, pmu.userenr)
        burst.msr(r.PMCCFILTR_EL0, pmu.typer[CYCLE_COUNTER])
        burst.msr(r.PMCNTENCLR_EL0, ~pmu.cnten & MASK32)
        burst.msr(r.PMCNTENSET_EL0, pmu.cnten)
        self.vcpu.kvm_irqs_off(burst)
        self._count(burst)
        self.swaps.loads += 1

    async def put(self) -> None:
        """The switch-out: thread_save_state, and what the switch to a thread that is no vCPU stops."""
        vcpu, pmu, burst = self.vcpu, self.pmu, Burst()
        counters = vcpu.spec.counters
        if self.resident:
            for register in (r.PMINTENSET_EL1, r.PMCNTENSET_EL0, r.PMCR_EL0, r.PMCCNTR_EL0, r.PMSELR_EL0):
                burst.mrs(register)
            for register in (r.PMUSERENR_EL0, r.PMCCFILTR_EL0):
                burst.mrs(register)
            for n in range(counters):
                burst.mrs(r.PMEVCNTR(n))
                burst.mrs(r.PMEVTYPER(n))
            burst.mrs(r.PMOVSSET_EL0)
        _disable(burst)
        burst.msr(r.MDCR_EL2, counters)
        if self.resident:
            burst.msr(r.PMUSERENR_EL0, vcpu.host_userenr)
        values = vcpu.kvm_irqs_off(burst)
        self._count(burst, len(values))
        if self.resident:
            pmu.inten, pmu.cnten, pmcr, cycles, pmu.selr, pmu.userenr, filter_, *rest, pmu.ovs = values
            pmu.pmcr = pmcr & PMCR_WRITABLE
            pmu.counter[:counters], pmu.typer[:counters] = rest[::2], rest[1::2]
            pmu.counter[CYCLE_COUNTER], pmu.typer[CYCLE_COUNTER] = cycles, filter_
            self.swaps.puts += 1
        self.resident = False

    def access(self, register: int, write: bool, value: int) -> Access:
        """The first of the time slice; whatever traps behind it is no register of the guest's."""
        if self.resident or register not in PMU_REGISTERS:
            raise InjectUndef
        account = self.vcpu.set_account(Account.SWAP)
        self.resident = True
        self._load_state()
        self.vcpu.set_account(Account(account))
        raise RetryAccess

    def pmu_interrupt(self) -> bool:
        pending = self._pending()
        if pending:
            self.asserted = True
        else:
            self.vcpu.deactivate_interrupt()
        return pending

    def _pending(self) -> bool:
        """platform_pmu_is_hw_irq_pending: PMCR_EL0.E is not asked for."""
        burst = Burst()
        burst.mrs(r.PMINTENSET_EL1)
        burst.mrs(r.PMOVSSET_EL0)
        inten, flags = self.vcpu.kvm_irqs_off(burst)
        return bool(inten & flags)

    def eoi(self) -> None:
        self.ended = True

    def level(self) -> bool:
        """As it was asserted, until the guest has ended it and nothing is pending: virq_check_pending."""
        if self.ended:
            self.ended = False
            self.asserted = self._pending()
            if not self.asserted:
                self.vcpu.deactivate_interrupt()
        return self.asserted

    def _count(self, burst: Burst, reads: int = 0) -> None:
        self.swaps.register_reads += reads
        self.swaps.register_writes += len(burst) - reads


def _disable(burst: Burst) -> None:
    """As for the idle thread, and for a vCPU that does not use its PMU."""
    burst.msr(r.PMINTENCLR_EL1, MASK32)
    burst.msr(r.PMCNTENCLR_EL0, MASK32)


@dataclass(frozen=True, kw_only=True)
class Gunyah(Design):
    """The Gunyah hypervisor's way with the PMU."""

    name = "gunyah"
    why = "trap the first access of a time slice, keep access at switch-in iff a counter runs; the host counts nothing"

    filters_events: ClassVar[bool] = False
    resets_unknown: ClassVar[bool] = False

    def nr_counters(self, cpus: Sequence[CpuSpec], wanted: int) -> int:
        """PMCR_EL0 does not trap, and HPMN is N."""
        return max(cpu.counters for cpu in cpus)

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        if cpu.pmuver >= r.PMUVER_P1:
            return []
        return [f"{cpu.model} has no FEAT_PMUv3p1: what a guest counts at EL2 is not prohibited there"]

    @property
    def declared(self) -> tuple[Declared, ...]:
        at_el2 = "its cycle counter is not stopped at EL2, where PMCCFILTR_EL0.NSH lets it count and overflow"
        return (
            *given_up(Victim.HOST, "the hypervisor counts nothing, and guests have every counter"),
            *given_up(Victim.GUEST, at_el2, ["I4", "I5", "I7", "I11"]),
            *given_up(Victim.GUEST, "it has every counter and register of the CPU's PMU, whatever is set", ["I8"]),
            *given_up(Victim.GUEST, "it counts what a filter of the VM's denies", ["I1", "I11"], filters),
        )

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        """The host has no counters, and no interrupt of theirs."""
        return HostPolicy(0, guest_flags=0, forwarded_irq=True)

    @property
    def set_n(self) -> SetN:
        return SetN.ATTRIBUTE

    def vpmu(self, vcpu: KvmVcpu) -> GunyahPmu:
        return GunyahPmu(self, vcpu)
