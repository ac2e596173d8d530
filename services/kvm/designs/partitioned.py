"""`partitioned`: MDCR_EL2.HPMN gives the guest [0, HPMN) and the cycle counter, the host keeps the rest.

After the posted series "ARM64 PMU Partitioning"; where its versions differ, this is what its reviews asked
for: one canonical copy per register, PMEVTYPER<n>_EL0 and PMOVSCLR_EL0 taking effect at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from services import registers as r
from services._pmu import Burst
from services.costs import Cost
from services.cpu import Call
from services.experiment import CpuSpec
from services.kvm.designs.base import Axis, Design, DesignError, Vpmu
from services.kvm.errors import InjectUndef
from services.kvm.guest_pmu import CYCLE, CYCLE_BIT, EVTYPER_NSH, PMUVER_P5

if TYPE_CHECKING:
    from services.kvm.vcpu import VCpu

PMUVER_P1 = 4

# What stays trapped under FEAT_FGT: overflow flags, for injection; event types, for the filter and to forbid
# counting at EL2; PMCEID and PMMIR, which would show the host's hardware.
TRAPPED_READS = (
    r.HDFGRTR_EL2_PMOVS
    | r.HDFGRTR_EL2_PMEVTYPERn_EL0
    | r.HDFGRTR_EL2_PMCCFILTR_EL0
    | r.HDFGRTR_EL2_PMCEIDn_EL0
    | r.HDFGRTR_EL2_PMMIR_EL1
)
TRAPPED_WRITES = r.HDFGWTR_EL2_PMOVS | r.HDFGWTR_EL2_PMEVTYPERn_EL0 | r.HDFGWTR_EL2_PMCCFILTR_EL0


class PartitionedPmu(Vpmu):
    """A vCPU's PMU, on the CPU while resident and in memory otherwise."""

    design: Partitioned

    def __init__(self, design: Partitioned, vcpu: VCpu) -> None:
        super().__init__(design, vcpu)
        cpu = vcpu.pcpu.spec
        self.hpmn = min(vcpu.pmu.counters, cpu.counters)
        self.mask = ((1 << self.hpmn) - 1) | CYCLE_BIT
        self.resident = False  # the registers' canonical copy is on the CPU

    # Load and put.

    async def load(self) -> None:
        pcpu = self.vcpu.pcpu
        burst = Burst()
        burst.msr(r.MDCR_EL2, self._mdcr())
        if self._fgt():
            burst.msr(r.HDFGRTR_EL2, TRAPPED_READS)
            burst.msr(r.HDFGWTR_EL2, TRAPPED_WRITES)
        burst.msr(r.PMUSERENR_EL0, self.pmu.userenr)
        pcpu.kvm(burst)
        await self._host_counters(self.mask)
        self._swap_in()

    async def put(self) -> None:
        self._swap_out()
        pcpu = self.vcpu.pcpu
        burst = Burst()
        slot = burst.mrs(r.PMUSERENR_EL0)
        burst.msr(r.PMUSERENR_EL0, 0)
        burst.msr(r.MDCR_EL2, pcpu.spec.counters)
        if self._fgt():
            burst.msr(r.HDFGRTR_EL2, 0)
            burst.msr(r.HDFGWTR_EL2, 0)
        self.pmu.userenr = pcpu.kvm(burst)[slot]
        await self._host_counters(0)

    def _mdcr(self) -> int:
        cpu = self.vcpu.pcpu.spec
        value = self.hpmn | r.MDCR_EL2_HPME
        if cpu.pmuver >= PMUVER_P1:
            value |= r.MDCR_EL2_HPMD  # nothing in the guest's range counts at EL2
        if cpu.pmuver >= PMUVER_P5:
            value |= r.MDCR_EL2_HCCD  # nor does the cycle counter
        if not self._fgt():
            value |= r.MDCR_EL2_TPM | r.MDCR_EL2_TPMCR
        return value

    def _fgt(self) -> bool:
        return self.vcpu.pcpu.spec.fgt > 0

    async def _host_counters(self, mask: int) -> None:
        """kvm_pmu_set_guest_counters: under dynamic reservation the host gives the range up only now."""
        pcpu = self.vcpu.pcpu
        if self.design.chosen["reservation"] == "dynamic":
            await pcpu.call([Call.GUEST_COUNTERS, mask, 0, 0, 0])

    def _swap_in(self) -> None:
        """kvm_pmu_load: 2h+9 writes for h event counters."""
        pmu, burst = self.pmu, Burst()
        for n in range(self.hpmn):
            burst.msr(r.PMEVTYPER(n), pmu.typer[n] & ~EVTYPER_NSH)
        burst.msr(r.PMCCFILTR_EL0, pmu.typer[CYCLE] & ~EVTYPER_NSH)
        for n in range(self.hpmn):
            burst.msr(r.PMEVCNTR(n), pmu.counter[n])
        burst.msr(r.PMCCNTR_EL0, pmu.counter[CYCLE])
        burst.msr(r.PMSELR_EL0, pmu.selr)
        burst.msr(r.PMCR_EL0, pmu.pmcr)
        burst.msr(r.PMOVSCLR_EL0, self.mask)
        burst.msr(r.PMCNTENSET_EL0, pmu.cnten & self.mask)
        burst.msr(r.PMCNTENCLR_EL0, ~pmu.cnten & self.mask)
        burst.msr(r.PMINTENSET_EL1, pmu.inten & self.mask)
        burst.msr(r.PMINTENCLR_EL1, ~pmu.inten & self.mask)
        self.vcpu.pcpu.kvm(burst)
        self.loads += 1
        self.register_writes += 2 * self.hpmn + 9
        self.resident = True

    def _swap_out(self) -> None:
        """kvm_pmu_put: h+6 reads and 3 writes; the range is left disabled and not overflowed."""
        pmu, burst, h = self.pmu, Burst(), self.hpmn
        for n in range(h):
            burst.mrs(r.PMEVCNTR(n))
        for register in (r.PMCCNTR_EL0, r.PMSELR_EL0, r.PMCR_EL0, r.PMCNTENSET_EL0, r.PMINTENSET_EL1, r.PMOVSSET_EL0):
            burst.mrs(register)
        burst.msr(r.PMOVSCLR_EL0, self.mask)
        burst.msr(r.PMCNTENCLR_EL0, self.mask)
        burst.msr(r.PMINTENCLR_EL1, self.mask)
        values = self.vcpu.pcpu.kvm(burst)
        pmu.counter[:h] = values[:h]
        pmu.counter[CYCLE], pmu.selr, pmcr, cnten, inten, ovs = values[h:]
        pmu.pmcr = pmcr & r.PMCR_WRITABLE
        pmu.cnten, pmu.inten = cnten & self.mask, inten & self.mask
        pmu.ovs |= ovs & self.mask
        self.puts += 1
        self.register_reads += h + 6
        self.register_writes += 3
        self.resident = False

    # Interrupts.

    def level(self) -> bool:
        """kvm_pmu_part_overflow_status: the flags are in memory, the enables on the CPU."""
        if not self.pmu.ovs:
            return False
        burst = Burst()
        burst.mrs(r.PMINTENSET_EL1)
        burst.mrs(r.PMCR_EL0)
        inten, pmcr = self.vcpu.pcpu.kvm(burst)
        return bool(pmcr & r.PMCR_E and self.pmu.ovs & inten & self.mask)

    def counter_overflow(self, counter: int) -> None:
        raise AssertionError("no counter of a partitioned guest is backed by a perf event")

    def guest_overflow(self, mask: int) -> None:
        """kvm_pmu_handle_guest_irq: the flags go from the CPU into memory."""
        burst = Burst()
        burst.msr(r.PMOVSCLR_EL0, mask & self.mask)
        self.vcpu.pcpu.kvm(burst)
        self.pmu.ovs |= mask & self.mask

    # Trapped accesses.

    async def access(self, register: int, write: bool, value: int) -> int:
        counter = r.counter_of(register, self.pmu.selr)
        if counter is not None:
            if counter != CYCLE and counter >= self.hpmn:
                raise InjectUndef
            return self._counter(counter, r.is_typer(register), write, value)
        return self._write(register, value) if write else self._read(register)

    def _counter(self, n: int, typer: bool, write: bool, value: int) -> int:
        pmu, burst = self.pmu, Burst()
        if typer:
            if not write:
                return pmu.typer[n]
            pmu.typer[n] = value & (pmu.event_mask if n != CYCLE else pmu.event_mask & ~0xFFFF)
            burst.msr(r.PMCCFILTR_EL0 if n == CYCLE else r.PMEVTYPER(n), pmu.typer[n] & ~EVTYPER_NSH)
            self.vcpu.pcpu.kvm(burst)
            return value
        register = r.PMCCNTR_EL0 if n == CYCLE else r.PMEVCNTR(n)
        if write:
            burst.msr(register, value)
            self.vcpu.pcpu.kvm(burst)
            return value
        burst.mrs(register)
        return self.vcpu.pcpu.kvm(burst)[0]

    def _read(self, register: int) -> int:
        burst = Burst()
        burst.mrs(register)
        (value,) = self.vcpu.pcpu.kvm(burst)
        if register in (r.PMOVSSET_EL0, r.PMOVSCLR_EL0):
            return self.pmu.ovs | value & self.mask
        if register == r.PMCR_EL0:
            return value & ~r.PMCR_N_MASK | self.hpmn << r.PMCR_N_SHIFT
        if register in (r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0, r.PMINTENSET_EL1, r.PMINTENCLR_EL1):
            return value & self.mask
        if register == r.PMMIR_EL1:
            return 0
        return value

    def _write(self, register: int, value: int) -> int:
        pmu, burst = self.pmu, Burst()
        match register:
            case r.PMOVSCLR_EL0:
                pmu.ovs &= ~value
                burst.msr(register, value & self.mask)
            case r.PMOVSSET_EL0:
                pmu.ovs |= value & self.mask
            case r.PMCR_EL0:
                burst.msr(register, value & ~(r.PMCR_P | r.PMCR_C))  # P from EL2 would reset the host's counters too
                if value & r.PMCR_P:
                    for n in range(self.hpmn):
                        burst.msr(r.PMEVCNTR(n), 0)
                if value & r.PMCR_C:
                    burst.msr(r.PMCCNTR_EL0, 0)
            case r.PMCNTENSET_EL0 | r.PMCNTENCLR_EL0 | r.PMINTENSET_EL1 | r.PMINTENCLR_EL1 | r.PMSWINC_EL0:
                burst.msr(register, value & self.mask)
            case r.PMSELR_EL0 | r.PMUSERENR_EL0:
                burst.msr(register, value)
            case _:
                raise InjectUndef
        if register == r.PMSELR_EL0:
            pmu.selr = value & 0x1F
        if len(burst):
            self.vcpu.pcpu.kvm(burst)
        return value

    def trap_cost(self, register: int, write: bool) -> Cost:
        return Cost.EXIT_FULL_SYSREG

    def state(self) -> dict[str, Any]:
        return {"resident": self.resident, "loads": self.loads, "puts": self.puts,
                "register_writes": self.register_writes, "register_reads": self.register_reads}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.pmu = self.vcpu.pmu
        self.resident = state["resident"]
        self.loads, self.puts = state["loads"], state["puts"]
        self.register_writes, self.register_reads = state["register_writes"], state["register_reads"]


class Partitioned(Design):
    """MDCR_EL2.HPMN gives the guest a range of the real counters."""

    name = "partitioned"
    why = "the guest owns counters [0, HPMN) of the hardware; most of its accesses need no trap"
    axes: ClassVar[Mapping[str, Axis]] = {
        "reservation": Axis(("static", "dynamic"), "when the host gives the guest's range up: at boot, or while a vCPU is resident"),
    }

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        if counters > cpu.counters:
            raise DesignError(f"HPMN {counters} is above the {cpu.counters} event counters of {cpu.model}")
        if counters == 0 and not cpu.hpmn0:
            raise DesignError(f"HPMN 0 needs FEAT_HPMN0, which {cpu.model} lacks")
        if not cpu.fgt:
            return [f"{cpu.model} has no FEAT_FGT: every access traps (MDCR_EL2.TPM)"]
        return []

    def host_counters(self, cpu: CpuSpec) -> int:
        everything = ((1 << cpu.counters) - 1) | CYCLE_BIT
        if self.chosen["reservation"] == "dynamic":
            return everything
        return everything & ~self.reserved

    @property
    def reserved(self) -> int:
        """The guests' range under static reservation, set when the machine is put together."""
        return self.guest_range

    guest_range: int = 0

    def vpmu(self, vcpu: VCpu) -> PartitionedPmu:
        return PartitionedPmu(self, vcpu)
