"""A vCPU's PMU under `partitioned` (`designs/partitioned.py`): on the CPU while resident, in memory otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from services import registers as r
from services._pmu import Burst
from services.cpu import Call
from services.experiment import CpuSpec
from services.kvm.bill import Account
from services.kvm.errors import InjectUndef
from services.kvm.guest_pmu import (
    CYCLE,
    CYCLE_BIT,
    MASK64,
    PMCR_WRITABLE,
    PMUVER_P1,
    PMUVER_P5,
    STALL_SLOTS,
    counter_of,
    is_typer,
)
from services.kvm.vpmu import Vpmu
from services.state import derived

if TYPE_CHECKING:
    from services.kvm.designs.partitioned import Partitioned

# What stays trapped under FEAT_FGT: overflow flags, for injection; event types, for the filter and to forbid
# counting at EL2; PMCEID and PMMIR, which would show the host's hardware.
TRAPPED_WRITES = r.HDFG_PMOVS | r.HDFG_PMEVTYPERN | r.HDFG_PMCCFILTR
TRAPPED_READS = TRAPPED_WRITES | r.HDFGRTR_PMCEIDN | r.HDFGRTR_PMMIR


@dataclass(eq=False)
class PartitionedPmu(Vpmu):
    """A vCPU's PMU: on the CPU while resident (GUEST_OWNED), in memory otherwise (FREE)."""

    owned: bool = False
    loaded: bool = False
    host_pmcr: int = 0  # as found at the load

    axes: dict[str, str] = derived(init=False)
    hpmn: int = derived(init=False)
    mask: int = derived(init=False)
    split: bool = derived(init=False)
    untrapped: bool = derived(init=False)
    hpmn_set: bool = derived(init=False)
    inert: bool = derived(init=False)
    by_hpme: bool = derived(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.owned = self.axes["swap"] == "eager"

    @property
    def partitioned(self) -> Partitioned:
        """The design."""
        return cast("Partitioned", self.design)

    def derive(self) -> None:
        super().derive()
        self.axes = self.partitioned.every_axis()
        self._fit()

    def _fit(self) -> None:
        """The guest's range on the CPU that the vCPU is on; CPUs may differ."""
        cpu = self.vcpu.spec
        self.hpmn = self.counters_owned(cpu)
        self.mask = ((1 << self.hpmn) - 1) | CYCLE_BIT
        self.split = self.hpmn > 0 or cpu.hpmn0  # else HPMN stays N and every access traps
        hidden = not cpu.icntr or cpu.fgt > 1  # PMICNTR_EL0 is, without trapping everything
        self.untrapped = self.axes["traps"] == "fgt" and cpu.fgt > 0 and hidden and self.split
        unsplit = not self.untrapped and self.axes["without_fgt"] == "unsplit"
        self.hpmn_set = self.split and not unsplit
        self.inert = not self.untrapped and self.axes["without_fgt"] == "never-resident"
        # While the guest is resident the host's enable is HPME, and its driver stops and starts by that.
        self.by_hpme = self.hpmn_set and self.axes["host_stop"] == "hpme"

    def counters_owned(self, cpu: CpuSpec) -> int:
        """MDCR_EL2.HPMN while resident: as userspace set it, or (v1) the host's one partition."""
        wanted = self.partitioned.partition if self.axes["n"] == "fixed" else self.pmu.counters
        return min(wanted, cpu.counters)

    @property
    def resident(self) -> bool:
        """Is the registers' live copy on the CPU?"""
        return self.owned and self.loaded

    # Load and put.

    async def load(self) -> None:
        self._fit()
        self.loaded = True
        if self.inert:
            self.owned = False
        elif self.axes["swap"] == "lazy":
            self.owned = self._in_use()
        if self.owned:
            await self._reside()
        else:
            blind = r.MDCR_EL2_HPMD | r.MDCR_EL2_HCCD if self.axes["free"] == "blind" else 0
            self._program(r.MDCR_EL2_TPM | r.MDCR_EL2_TPMCR | blind | self.vcpu.spec.counters)

    async def put(self) -> None:
        if self.owned:
            self._swap_out()
        self.loaded = False
        burst = Burst()
        burst.msr(r.MDCR_EL2, self.vcpu.spec.counters)
        if self.vcpu.spec.fgt:
            burst.msr(r.HDFGRTR_EL2, 0)
            burst.msr(r.HDFGWTR_EL2, 0)
        self.vcpu.kvm(burst)
        if self.owned:
            await self._host_counters(0)

    def _in_use(self) -> bool:
        """The debug registers' rule: decided from the saved state, afresh at each load."""
        pmu = self.pmu
        return bool(pmu.pmcr & r.PMCR_E and (pmu.cnten & self.mask or pmu.ovs & pmu.inten & self.mask))

    async def _reside(self) -> None:
        before = self.vcpu.set_account(Account.SWAP)
        await self._host_counters(self.mask)
        if self.axes["host_pmcr"] == "restored":
            self.host_pmcr = self._get(r.PMCR_EL0) & PMCR_WRITABLE
            self.swaps.register_reads += 1
        self._program(self._mdcr())
        self._swap_in()
        self.vcpu.set_account(Account(before))

    def _mdcr(self) -> int:
        cpu = self.vcpu.spec
        value = self.hpmn if self.hpmn_set else cpu.counters
        if self.by_hpme:
            value |= r.MDCR_EL2_HPME if self.host_pmcr & r.PMCR_E else 0
        elif self.axes["hpme"] == "set":
            value |= r.MDCR_EL2_HPME
        if cpu.pmuver >= PMUVER_P1 and self.split:
            value |= r.MDCR_EL2_HPMD  # nothing in the guest's range counts at EL2
        if cpu.pmuver >= PMUVER_P5:
            value |= r.MDCR_EL2_HCCD  # nor does the cycle counter
        if not self.untrapped:
            value |= r.MDCR_EL2_TPM | r.MDCR_EL2_TPMCR
        elif self.axes["pmcr"] == "trapped":
            value |= r.MDCR_EL2_TPMCR
        return value

    def _program(self, mdcr: int) -> None:
        """The trap controls: MDCR_EL2, and the fine-grained ones where there are any."""
        burst = Burst()
        burst.msr(r.MDCR_EL2, mdcr)
        if self.vcpu.spec.fgt:
            burst.msr(r.HDFGRTR_EL2, TRAPPED_READS)
            burst.msr(r.HDFGWTR_EL2, TRAPPED_WRITES)
        self.vcpu.kvm(burst)

    async def _host_counters(self, mask: int) -> None:
        """kvm_pmu_set_guest_counters: under dynamic reservation the host gives the range up only now.

        What that reschedules comes back with the host's EL0 filters.
        """
        if self.axes["reservation"] == "dynamic" or self.by_hpme:
            rows: list[int] = [Call.GUEST_COUNTERS, mask, int(bool(mask) and self.by_hpme), 0, 0]
            if mask and self.axes["filters"] == "kept" and self.el0_switched():
                rows += [Call.EL0_FILTER, 1, 0, 0, 0]
            await self.vcpu.call(rows, Account.RESERVE)

    def _swap_in(self) -> None:
        """kvm_pmu_load: 2h+9 writes for h event counters, one more with PMUSERENR_EL0."""
        pmu, burst = self.pmu, Burst()
        for n in range(self.hpmn):
            burst.msr(r.PMEVTYPER(n), self._hardware_typer(n))
        burst.msr(r.PMCCFILTR_EL0, self._hardware_typer(CYCLE))
        for n in range(self.hpmn):
            burst.msr(r.PMEVCNTR(n), pmu.counter[n])
        burst.msr(r.PMCCNTR_EL0, pmu.counter[CYCLE])
        burst.msr(r.PMSELR_EL0, pmu.selr)
        burst.msr(r.PMCR_EL0, pmu.pmcr if self.split else pmu.pmcr | r.PMCR_E)
        burst.msr(r.PMOVSCLR_EL0, self.mask)
        cnten = self._hardware_cnten()
        burst.msr(r.PMCNTENSET_EL0, cnten)
        burst.msr(r.PMCNTENCLR_EL0, ~cnten & self.mask)
        burst.msr(r.PMINTENSET_EL1, pmu.inten & self.mask)
        burst.msr(r.PMINTENCLR_EL1, ~pmu.inten & self.mask)
        if self.axes["userenr"] == "swapped":
            burst.msr(r.PMUSERENR_EL0, pmu.userenr)
        self.swaps.register_writes += len(burst)
        self.vcpu.kvm(burst)
        self.swaps.loads += 1

    def _swap_out(self) -> None:
        """kvm_pmu_put: h+6 reads and 3 writes; the range is left disabled and not overflowed."""
        pmu, burst, h = self.pmu, Burst(), self.hpmn
        for n in range(h):
            burst.mrs(r.PMEVCNTR(n))
        for register in (r.PMCCNTR_EL0, r.PMSELR_EL0, r.PMCR_EL0, r.PMCNTENSET_EL0, r.PMINTENSET_EL1, r.PMOVSSET_EL0):
            burst.mrs(register)
        if self.axes["userenr"] == "swapped":
            burst.mrs(r.PMUSERENR_EL0)
        self.swaps.register_reads += len(burst)
        self.swaps.register_writes += 3
        burst.msr(r.PMOVSCLR_EL0, self.mask)
        burst.msr(r.PMCNTENCLR_EL0, self.mask)
        burst.msr(r.PMINTENCLR_EL1, self.mask)
        if self.axes["userenr"] == "swapped":
            burst.msr(r.PMUSERENR_EL0, 0)
            self.swaps.register_writes += 1
        if self.axes["host_pmcr"] == "restored":
            if self.by_hpme:  # the host's enable was there meanwhile
                running = self._get(r.MDCR_EL2) & r.MDCR_EL2_HPME
                self.host_pmcr = self.host_pmcr & ~r.PMCR_E | (r.PMCR_E if running else 0)
            burst.msr(r.PMCR_EL0, self.host_pmcr)
            self.swaps.register_writes += 1
        values = self.vcpu.kvm(burst)
        pmu.counter[:h] = values[:h]
        pmu.counter[CYCLE], pmu.selr, pmcr, cnten, inten, ovs = values[h : h + 6]
        if self.split:
            pmu.pmcr, pmu.cnten = pmcr & PMCR_WRITABLE, cnten & self.mask
        pmu.inten = inten & self.mask
        pmu.ovs |= ovs & self.mask
        if self.axes["userenr"] == "swapped":
            pmu.userenr = values[h + 6]
        self.swaps.puts += 1

    def _hardware_typer(self, n: int) -> int:
        """What the CPU gets for an event type: no event at EL2 (but for v1), nowhere one that the filter denies."""
        value = self.pmu.typer[n]
        if self.axes["el2"] == "excluded":
            value &= ~r.PMEVTYPER_NSH
        return value | r.PMEVTYPER_P | r.PMEVTYPER_U if self.pmu.event(n) in self.pmu.denied else value

    def _hardware_cnten(self) -> int:
        """The enables for the CPU; without a split PMCR_EL0.E is the host's, so the guest's acts through these."""
        pmu = self.pmu
        return pmu.cnten & self.mask if self.split or pmu.pmcr & r.PMCR_E else 0

    # Interrupts.

    def level(self) -> bool:
        """kvm_pmu_part_overflow_status: the flags are in memory, the enables on the CPU while resident."""
        pmu = self.pmu
        if not pmu.ovs & self.mask:
            return False
        if not self.resident:
            return bool(pmu.pmcr & r.PMCR_E and pmu.ovs & pmu.inten & self.mask)
        burst = Burst()
        burst.mrs(r.PMINTENSET_EL1)
        burst.mrs(r.PMCR_EL0)
        inten, pmcr = self.vcpu.kvm(burst)
        return bool((pmcr if self.split else pmu.pmcr) & r.PMCR_E and pmu.ovs & inten & self.mask)

    def guest_overflow(self, mask: int) -> None:
        """kvm_pmu_handle_guest_irq: the flags, which the host's handler has cleared, go into memory."""
        if self.resident:
            self.pmu.ovs |= mask & self.mask

    # Trapped accesses.

    def fast(self, register: int, write: bool) -> bool:
        path = self.axes["without_fgt"] if self.axes["traps"] == "fgt" and not self.untrapped else self.axes["traps"]
        return path == "fast-path" and self.resident

    async def access(self, register: int, write: bool, value: int) -> int:
        if self.inert:
            return self._in_memory(register, write, value)
        if not self.resident:
            self.owned = True
            if self.axes["transition"] == "reload":
                await self._reside()
            else:
                self._program(self._mdcr())
        selected = register in (r.PMXEVCNTR_EL0, r.PMXEVTYPER_EL0)
        counter = counter_of(register, self._get(r.PMSELR_EL0) & 0x1F if selected else 0)
        if counter is not None:
            if counter != CYCLE and counter >= self.hpmn:
                raise InjectUndef
            return self._counter(counter, is_typer(register), write, value)
        return self._write(register, value) if write else self._read(register)

    def _in_memory(self, register: int, write: bool, value: int) -> int:
        """v5 without FEAT_FGT: kvm_pmu_load() returns early, and what the guest programs never reaches the CPU."""
        pmu = self.pmu
        counter = counter_of(register, pmu.selr)
        if counter is not None:
            if counter != CYCLE and counter >= self.hpmn:
                raise InjectUndef
            kept = pmu.typer if is_typer(register) else pmu.counter
            if write:
                kept[counter] = value & (pmu.event_mask if is_typer(register) else MASK64)
            return kept[counter]
        if not write:
            found = pmu.read(register)
            return self._read(register) if found is None else found
        if not pmu.write(register, value) and register not in (r.PMSWINC_EL0, r.PMMIR_EL1):
            raise InjectUndef
        return value

    def _counter(self, n: int, typer: bool, write: bool, value: int) -> int:
        pmu = self.pmu
        if typer:
            if write:
                pmu.typer[n] = value & (pmu.event_mask if n != CYCLE else pmu.event_mask & ~0xFFFF)
                if self.axes["typer"] == "write-through":
                    self._set(r.PMCCFILTR_EL0 if n == CYCLE else r.PMEVTYPER(n), self._hardware_typer(n))
            return pmu.typer[n]
        register = r.PMCCNTR_EL0 if n == CYCLE else r.PMEVCNTR(n)
        if write:
            self._set(register, value)
            return value
        return self._get(register)

    def _read(self, register: int) -> int:
        pmu = self.pmu
        if register == r.PMMIR_EL1:
            return 0
        if pmu.read(register) is None and register not in (r.PMCEID0_EL0, r.PMCEID1_EL0):
            raise InjectUndef
        value = self._get(register)
        match register:
            case r.PMOVSSET_EL0 | r.PMOVSCLR_EL0:
                return pmu.ovs | (value & self.mask if self.axes["pmovs"] == "folded" else 0)
            case r.PMCR_EL0:
                counters = self.hpmn if self.axes["n"] == "fixed" else pmu.counters
                return (value if self.split else pmu.pmcr) & ~r.PMCR_N | counters << r.PMCR_N_SHIFT
            case r.PMCNTENSET_EL0 | r.PMCNTENCLR_EL0:
                return value & self.mask if self.split else pmu.cnten
            case r.PMINTENSET_EL1 | r.PMINTENCLR_EL1:
                return value & self.mask
            case r.PMCEID0_EL0:
                return value | 1 << r.CHAIN
            case r.PMCEID1_EL0:
                return value & ~STALL_SLOTS
        return value

    def _write(self, register: int, value: int) -> int:
        pmu, valid = self.pmu, value & self.mask
        match register:
            case r.PMOVSCLR_EL0:
                pmu.ovs &= ~value
                if self.axes["pmovs"] == "folded":
                    self._set(register, valid)
            case r.PMOVSSET_EL0:
                pmu.ovs |= valid
            case r.PMCR_EL0:
                self._write_pmcr(value)
            case r.PMCNTENSET_EL0 | r.PMCNTENCLR_EL0 if not self.split:
                pmu.cnten = pmu.cnten | valid if register == r.PMCNTENSET_EL0 else pmu.cnten & ~valid
                self._apply_cnten()
            case r.PMCNTENSET_EL0 | r.PMCNTENCLR_EL0 | r.PMINTENSET_EL1 | r.PMINTENCLR_EL1 | r.PMSWINC_EL0:
                self._set(register, valid)
            case r.PMSELR_EL0:
                pmu.selr = value & 0x1F
                self._set(register, value)
            case r.PMUSERENR_EL0:
                self._set(register, value)
            case r.PMMIR_EL1:
                pass
            case _:
                raise InjectUndef
        return value

    def _write_pmcr(self, value: int) -> None:
        """P from EL2 would reset the host's counters too, so the guest's are written one by one."""
        plain = value & ~(r.PMCR_P | r.PMCR_C)
        if self.split:
            self._set(r.PMCR_EL0, plain)
        else:
            self.pmu.pmcr = plain & PMCR_WRITABLE
            self._apply_cnten()
        if value & r.PMCR_P:
            for n in range(self.hpmn):
                self._set(r.PMEVCNTR(n), 0)
        if value & r.PMCR_C:
            self._set(r.PMCCNTR_EL0, 0)

    def _apply_cnten(self) -> None:
        cnten = self._hardware_cnten()
        self._set(r.PMCNTENSET_EL0, cnten)
        self._set(r.PMCNTENCLR_EL0, ~cnten & self.mask)

    def _get(self, register: int) -> int:
        burst = Burst()
        burst.mrs(register)
        return self.vcpu.kvm(burst)[0]

    def _set(self, register: int, value: int) -> None:
        burst = Burst()
        burst.msr(register, value)
        self.vcpu.kvm(burst)
