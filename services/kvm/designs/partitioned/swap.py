"""The steps of kvm_pmu_load() and kvm_pmu_put(): a guest's registers onto the CPU, and off it.

Each step posts its accesses; `done()` has all of them executed, in the order of the steps.
"""

from __future__ import annotations

from collections.abc import Callable

from services import registers as r
from services._pmu import Burst
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.guest_pmu import PMCR_WRITABLE, GuestPmu
from services.registers import CYCLE_COUNTER

NOT_EL2 = ~r.PMEVTYPER_NSH

HardwareType = Callable[[GuestPmu, int], int]


def as_written(pmu: GuestPmu, n: int) -> int:
    """What the CPU gets for an event type of the guest: nowhere an event that the VM's filter denies."""
    value = pmu.typer[n]
    if pmu.denied and pmu.event(n) in pmu.denied:
        value |= r.PMEVTYPER_P | r.PMEVTYPER_U
    return value


def whole_type_denied(pmu: GuestPmu, n: int) -> int:
    """The same in v2 to v4, which look up the whole type, filter bits included; only what is denied is not at EL2."""
    value = pmu.typer[n]
    if (r.CPU_CYCLES if n == CYCLE_COUNTER else value) in pmu.denied:
        return (value | r.PMEVTYPER_P | r.PMEVTYPER_U) & NOT_EL2
    return value


def whole_type_denied_in_memory(pmu: GuestPmu, n: int) -> int:
    """The same, and the guest reads it back, filter bits that it did not write among it (v2 to v4)."""
    pmu.typer[n] = value = whole_type_denied(pmu, n)
    return value


def without_el2(pmu: GuestPmu, n: int) -> int:
    """What the CPU gets for an event type of the guest: no event at EL2, nowhere one that the VM's filter denies."""
    return as_written(pmu, n) & NOT_EL2


def enforced(pmu: GuestPmu, n: int) -> int:
    """The same, and of a denied event neither in Non-secure state: there NSU and NSK would undo U and P, which no
    posted version heeds."""
    value = without_el2(pmu, n)
    if pmu.denied and pmu.event(n) in pmu.denied:
        value &= ~(r.PMEVTYPER_NSK | r.PMEVTYPER_NSU)
    return value


def enables(context: PmuContext) -> int:
    """PMCNTEN for the CPU: without a split PMCR_EL0.E is the host's, so the guest's acts through these."""
    pmu = context.pmu
    return pmu.cnten & context.on.mask if context.on.split or pmu.pmcr & r.PMCR_E else 0


def quiet(pmu: GuestPmu, mask: int) -> int:
    """Overflow flags in memory, of `mask`, that do not interrupt as PMINTENSET_EL1 and PMCR_EL0.E are there."""
    return pmu.ovs & mask & ~(pmu.inten if pmu.pmcr & r.PMCR_E else 0)


class SwapIn:
    """A guest's registers from memory onto the CPU."""

    def __init__(self, context: PmuContext) -> None:
        self.context = context
        self.pmu = context.pmu
        self.burst = Burst()

    def types(self, hardware_type: HardwareType = without_el2) -> None:
        """PMEVTYPER<n>_EL0 and PMCCFILTR_EL0 (kvm_pmu_apply_event_filter)."""
        pmu, burst = self.pmu, self.burst
        for n, register in enumerate(self.context.on.types):
            burst.msr(register, hardware_type(pmu, n))
        burst.msr(r.PMCCFILTR_EL0, hardware_type(pmu, CYCLE_COUNTER))

    def counters(self, width: int = r.MASK64) -> None:
        """PMEVCNTR<n>_EL0, of what is in memory these bits, and PMCCNTR_EL0."""
        burst, counter = self.burst, self.pmu.counter
        for register, value in zip(self.context.on.counters, counter, strict=False):
            burst.msr(register, value & width)
        burst.msr(r.PMCCNTR_EL0, counter[CYCLE_COUNTER])

    def types_by_selr(self, cycles: int) -> None:
        """PMSELR_EL0 and PMXEVTYPER_EL0 for each counter without a barrier; the cycle counter's type goes to `cycles`.

        That is PMXEVTYPER_EL0 with SEL = 31 in v6, and in v7, where it does not go through PMSELR_EL0, PMCCNTR_EL0.
        """
        pmu, burst = self.pmu, self.burst
        for n in range(self.context.on.hpmn):
            burst.msr(r.PMSELR_EL0, n)
            burst.msr(r.PMXEVTYPER_EL0, without_el2(pmu, n))
        if cycles == r.PMXEVTYPER_EL0:
            burst.msr(r.PMSELR_EL0, CYCLE_COUNTER)
        burst.msr(cycles, without_el2(pmu, CYCLE_COUNTER))

    def counters_by_selr(self, cycles: int) -> None:
        """PMSELR_EL0 and PMXEVCNTR_EL0 for each counter; the cycle counter by PMXEVCNTR_EL0 (v6) or PMCCNTR_EL0."""
        burst, counter = self.burst, self.pmu.counter
        for n in range(self.context.on.hpmn):
            burst.msr(r.PMSELR_EL0, n)
            burst.msr(r.PMXEVCNTR_EL0, counter[n])
        if cycles == r.PMXEVCNTR_EL0:
            burst.msr(r.PMSELR_EL0, CYCLE_COUNTER)
        burst.msr(cycles, counter[CYCLE_COUNTER])

    def selr(self) -> None:
        self.burst.msr(r.PMSELR_EL0, self.pmu.selr)

    def pmcr(self, host: int = 0, writable: int = PMCR_WRITABLE) -> None:
        """Without P and C, which a VMM may have set. Without a split all event counters are the `host`'s, whose
        PMCR_EL0.E and LP they need."""
        value = self.pmu.pmcr & writable
        if not self.context.on.split:
            value = value & ~r.PMCR_LP | r.PMCR_E | host & r.PMCR_LP
        self.burst.msr(r.PMCR_EL0, value)

    def pmcr_raw(self) -> None:
        """P and C, if they are in memory, too."""
        self.burst.msr(r.PMCR_EL0, self.pmu.pmcr)

    def icntr(self, value: int) -> None:
        """PMICNTR_EL0, where there is one."""
        if self.context.on.cpu.icntr:
            self.burst.msr(r.PMICNTR_EL0, value)

    def clear_overflows(self) -> None:
        self.burst.msr(r.PMOVSCLR_EL0, self.context.on.mask)

    def overflows(self) -> None:
        """PMOVSCLR_EL0, and PMOVSSET_EL0 of the flags that do not interrupt: a guest that then lets them does so by
        accesses that do not trap, and has its interrupt at once. Those that do stay in memory, for injection."""
        self.clear_overflows()
        pmu = self.pmu
        if self.context.on.split:
            flags = quiet(pmu, self.context.on.mask)
            if flags:
                self.burst.msr(r.PMOVSSET_EL0, flags)
                pmu.ovs &= ~flags

    def cnten(self) -> None:
        """PMCNTENSET_EL0 and PMCNTENCLR_EL0."""
        value = enables(self.context)
        self.burst.msr(r.PMCNTENSET_EL0, value)
        self.burst.msr(r.PMCNTENCLR_EL0, ~value & self.context.on.mask)

    def inten(self) -> None:
        """PMINTENSET_EL1 and PMINTENCLR_EL1."""
        self.burst.msr(r.PMINTENSET_EL1, self.pmu.inten & self.context.on.mask)
        self.burst.msr(r.PMINTENCLR_EL1, ~self.pmu.inten & self.context.on.mask)

    def userenr(self) -> None:
        self.burst.msr(r.PMUSERENR_EL0, self.pmu.userenr)

    async def done(self, again: Callable[[], SwapIn] | None = None) -> None:
        """`again`: if it may be preempted, the same steps anew, for the rest of them."""
        context = self.context
        context.swaps.loads += 1
        context.swaps.register_writes += len(self.burst)
        values = context.vcpu.kvm(self.burst, None if again is None else lambda: again().burst)
        if not isinstance(values, list):
            await values


class SwapOut:
    """A guest's registers from the CPU into memory, and the CPU as the host is to find it."""

    def __init__(self, context: PmuContext) -> None:
        self.context = context
        self.pmu = context.pmu
        self.burst = Burst()
        self._keep: list[tuple[Callable[[list[int], int], None], int]] = []  # what becomes of a value, and its slot

    def counters(self) -> None:
        """PMEVCNTR<n>_EL0 and PMCCNTR_EL0."""
        for register in self.context.on.counters:
            self.burst.mrs(register)
        self._read(r.PMCCNTR_EL0, self._keep_counters)

    def counters_by_selr(self, cycles: int) -> None:
        """As `SwapIn.counters_by_selr`: what PMSELR_EL0 was is lost."""
        burst = self.burst
        for n in range(self.context.on.hpmn):
            burst.msr(r.PMSELR_EL0, n)
            burst.mrs(r.PMXEVCNTR_EL0)
        if cycles == r.PMXEVCNTR_EL0:
            burst.msr(r.PMSELR_EL0, CYCLE_COUNTER)
        self._read(cycles, self._keep_counters)

    def selr(self) -> None:
        self._read(r.PMSELR_EL0, self._keep_selr)

    def pmcr(self) -> None:
        self._read(r.PMCR_EL0, self._keep_pmcr)

    def cnten(self) -> None:
        self._read(r.PMCNTENSET_EL0, self._keep_cnten)

    def inten(self) -> None:
        self._read(r.PMINTENSET_EL1, self._keep_inten)

    def overflows(self) -> None:
        self._read(r.PMOVSSET_EL0, self._keep_overflows)

    def userenr(self) -> None:
        self._read(r.PMUSERENR_EL0, self._keep_userenr)

    def clear_overflows(self) -> None:
        self.burst.msr(r.PMOVSCLR_EL0, self.context.on.mask)

    def drain(self) -> None:
        """PMOVSSET_EL0 into memory, PMOVSCLR_EL0 of what was set: with interrupts off."""
        slot = self.burst.mrs(r.PMOVSSET_EL0)
        self._keep.append((self._keep_overflows, slot))
        self.burst.write_back(r.PMOVSCLR_EL0, slot, self.context.on.mask, 0)

    def disable(self) -> None:
        """PMCNTENCLR_EL0 and PMINTENCLR_EL1."""
        self.burst.msr(r.PMCNTENCLR_EL0, self.context.on.mask)
        self.burst.msr(r.PMINTENCLR_EL1, self.context.on.mask)

    def icntr(self, keep: Callable[[int], None]) -> None:
        """PMICNTR_EL0, where there is one."""
        if self.context.on.cpu.icntr:
            self._read(r.PMICNTR_EL0, lambda values, slot: keep(values[slot]))

    def host(self, register: int, value: int) -> None:
        """A register that the host gets back."""
        self.burst.msr(register, value)

    async def done(self) -> None:
        context = self.context
        values = context.vcpu.kvm(self.burst)
        if not isinstance(values, list):
            values = await values
        context.swaps.puts += 1
        context.swaps.register_reads += len(values)
        context.swaps.register_writes += len(self.burst) - len(values)
        for keep, slot in self._keep:
            keep(values, slot)

    def _read(self, register: int, keep: Callable[[list[int], int], None]) -> None:
        self._keep.append((keep, self.burst.mrs(register)))

    def _keep_counters(self, values: list[int], slot: int) -> None:
        """`slot` is the cycle counter's, the event counters' are before it."""
        counter, h = self.pmu.counter, self.context.on.hpmn
        counter[:h] = values[slot - h : slot]
        counter[CYCLE_COUNTER] = values[slot]

    def _keep_selr(self, values: list[int], slot: int) -> None:
        self.pmu.selr = values[slot]

    def _keep_pmcr(self, values: list[int], slot: int) -> None:
        if self.context.on.split:  # else what is on the CPU is the host's
            self.pmu.pmcr = values[slot] & PMCR_WRITABLE

    def _keep_cnten(self, values: list[int], slot: int) -> None:
        if self.context.on.split:
            self.pmu.cnten = self.pmu.cnten & self.context.beyond | values[slot] & self.context.on.mask

    def _keep_inten(self, values: list[int], slot: int) -> None:
        self.pmu.inten = self.pmu.inten & self.context.beyond | values[slot] & self.context.on.mask

    def _keep_overflows(self, values: list[int], slot: int) -> None:
        self.pmu.ovs |= values[slot] & self.context.on.mask

    def _keep_userenr(self, values: list[int], slot: int) -> None:
        self.pmu.userenr = values[slot]
