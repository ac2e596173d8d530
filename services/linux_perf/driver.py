"""The PMUv3 driver of one CPU: its counters, and the access sequences that touch them.

drivers/perf/arm_pmuv3.c and arm_pmu.c. The fixed sequences are prepared once as `Burst` objects, for
the kernel repeats them by the million.
"""

from __future__ import annotations

from services._pmu import Burst
from services.costs import Cost
from services.linux_perf.attr import EXCLUDE_EL0, INCLUDE_EL2
from services.linux_perf.event import COUNTER_INDICES, MASK32, MASK64, THROTTLED, PerfEvent
from services.registers import (
    MDCR_EL2,
    MDCR_EL2_HPME,
    PMCCFILTR_EL0,
    PMCCNTR_EL0,
    PMCNTENCLR_EL0,
    PMCNTENSET_EL0,
    PMCR_EL0,
    PMEVCNTR,
    PMEVTYPER,
    PMICFILTR_EL0,
    PMICNTR_EL0,
    PMINTENCLR_EL1,
    PMINTENSET_EL1,
    PMOVSCLR_EL0,
    PMUSERENR_EL0,
)

CYCLE = 31  # index of PMCCNTR_EL0
INSTRUCTION = 32  # index of PMICNTR_EL0
CYCLE_BIT = 1 << CYCLE
INSTRUCTION_BIT = 1 << INSTRUCTION
GENERAL = CYCLE_BIT - 1  # the event counters

# PMCR_EL0
PMCR_E = 1 << 0
PMCR_P = 1 << 1
PMCR_C = 1 << 2
PMCR_LC = 1 << 6
PMCR_LP = 1 << 7
PMCR_MASK = 0xFF  # what the driver writes
PMCR_N_SHIFT, PMCR_N_MASK = 11, 0x1F

OVERFLOWED_MASK = (1 << 33) - 1
CHAIN = 0x1E
PMUVER_P4 = 5
PMUVER_P5 = 6  # ID_AA64DFR0_EL1.PMUVer from which event counters are 64 bits


Sequences = list[Burst | None]  # by counter, made when first used


class Driver:
    """`arm_pmu` and this CPU's `pmu_hw_events`."""

    __slots__ = (
        "_el0_flips",
        "_sequences",
        "clear_flags",
        "cntr_mask",
        "counters",
        "disables",
        "events",
        "high_to_low",
        "long_counters",
        "off",
        "on",
        "off_range",
        "on_range",
        "on_vcpu",
        "out_cost",
        "outs",
        "registers",
        "stops",
        "types",
        "used",
        "write_masks",
    )

    def __init__(self, pmuver: int, high_to_low: bool, costs: dict[Cost, int]) -> None:
        self.long_counters = pmuver >= PMUVER_P5
        self.high_to_low = high_to_low
        self.cntr_mask = CYCLE_BIT  # counters that may be used; the event counters are known after the probe
        self.used = 0  # counters in use
        self.events: list[PerfEvent | None] = [None] * COUNTER_INDICES
        self.registers = [*(PMEVCNTR(n) for n in range(CYCLE)), PMCCNTR_EL0, PMICNTR_EL0]
        self.types = [*(PMEVTYPER(n) for n in range(CYCLE)), PMCCFILTR_EL0, PMICFILTR_EL0]
        # What armv8pmu_write_counter writes of -left. Where a counter is wider than the 32 bits of an
        # ordinary event, the upper half is all ones, so that it overflows with the lower.
        narrow = MASK64 if self.long_counters else MASK32
        self.write_masks = [*([narrow] * CYCLE), MASK64, MASK64]
        self.off, self.on, self.on_vcpu = _pmu_off(), _pmu_on(True), _pmu_on(False)
        self.off_range, self.on_range = _range(0), _range(MDCR_EL2_HPME)
        self.clear_flags = Burst()
        flags = self.clear_flags.mrs(PMOVSCLR_EL0)
        self.clear_flags.write_back(PMOVSCLR_EL0, flags, OVERFLOWED_MASK, 0)
        self._el0_flips: dict[tuple[int, int], Burst] = {}
        self._sequences: dict[tuple[int, bool], tuple[Sequences, Sequences]] = {}
        out = costs[Cost.EVENT_OUT]
        self.out_cost = out
        self.disables = [self._disable(Burst(), 1 << n, 1 << n) for n in range(COUNTER_INDICES)]
        self.stops = [self._stop(n, None) for n in range(COUNTER_INDICES)]
        self.outs = [self._stop(n, out) for n in range(COUNTER_INDICES)]

    # Sequences.

    @staticmethod
    def _disable(burst: Burst, counters: int, interrupts: int) -> Burst:
        """armv8pmu_disable_event."""
        burst.msr(PMCNTENCLR_EL0, counters)
        burst.isb()
        burst.msr(PMINTENCLR_EL1, interrupts)
        burst.isb()
        burst.msr(PMOVSCLR_EL0, interrupts)
        burst.isb()
        return burst

    def _stop(self, idx: int, cost: int | None, chained: bool = False) -> Burst:
        """armpmu_stop, and as part of event_sched_out with its cost; the upper half of a pair is read first."""
        burst = Burst()
        if cost is not None:
            burst.charge(Cost.EVENT_OUT, cost)
        self._disable(burst, counter_bits(idx, chained), 1 << idx)
        self.read(burst, idx, chained)
        return burst

    def read(self, burst: Burst, idx: int, chained: bool) -> int:
        """armv8pmu_read_counter; the slot of the value, with the lower half of a pair in the one after it."""
        slot = burst.mrs(self.registers[idx])
        if chained:
            burst.mrs(self.registers[idx - 1])
        return slot

    def write(self, burst: Burst, event: PerfEvent, left: int) -> None:
        """armv8pmu_write_counter with the counter `left` occurrences away from its overflow."""
        idx = event.idx
        if paired(event, idx):
            value = -left & MASK64
            burst.msr(self.registers[idx], value >> 32)
            burst.msr(self.registers[idx - 1], value & MASK32)
        else:
            burst.msr(self.registers[idx], -left & self.write_masks[idx])

    def enable(self, event: PerfEvent, idx: int, cost: int | None) -> Burst:
        """armv8pmu_enable_event, and as part of event_sched_in with the latter's cost."""
        pair = paired(event, idx)
        counters = counter_bits(idx, pair)
        burst = Burst()
        if cost is not None:
            burst.charge(Cost.EVENT_IN, cost)
        burst.msr(PMCNTENCLR_EL0, counters)
        burst.isb()
        if pair:
            burst.msr(self.types[idx - 1], event.evtype)
            burst.msr(self.types[idx], CHAIN | INCLUDE_EL2)
        else:
            burst.msr(self.types[idx], event.evtype)
        burst.msr(PMINTENSET_EL1, 1 << idx)
        burst.isb()
        burst.msr(PMCNTENSET_EL0, counters)
        return burst

    def out_of(self, event: PerfEvent) -> Burst:
        """What takes `event` off the counter that it is on."""
        if paired(event, event.idx):
            return self._stop(event.idx, self.out_cost, True)
        return self.outs[event.idx]

    def stop_of(self, event: PerfEvent) -> Burst:
        if paired(event, event.idx):
            return self._stop(event.idx, None, True)
        return self.stops[event.idx]

    def disable_of(self, event: PerfEvent) -> Burst:
        """Without reading the counter: what a throttled event gets."""
        if paired(event, event.idx):
            return self._disable(Burst(), counter_bits(event.idx, True), 1 << event.idx)
        return self.disables[event.idx]

    def adopt(self, event: PerfEvent) -> None:
        """Have `event` share the sequences of all events with its PMEVTYPER."""
        key = event.evtype, event.chained
        if key not in self._sequences:
            self._sequences[key] = [None] * COUNTER_INDICES, [None] * COUNTER_INDICES
        event.starts, event.restarts = self._sequences[key]

    def el0_switched(self) -> tuple[int, int]:
        """kvm_pmu_events: counters of enabled events that count in the guest only, and in the host only."""
        of_guest = of_host = 0
        left = self.used & (1 << CYCLE + 1) - 1
        while left:
            bit = left & -left
            left ^= bit
            event = self.events[bit.bit_length() - 1]
            if event is not None and event.el0_switched and event.interrupts != THROTTLED:
                if event.attr.exclude_host:
                    of_guest |= event.bits
                else:
                    of_host |= event.bits
        return of_guest, of_host

    def el0_flips(self, admitted: int, excluded: int) -> Burst:
        """kvm_vcpu_pmu_enable_el0 and _disable_el0: the read and write of each counter's PMEVTYPER."""
        burst = self._el0_flips.get((admitted, excluded))
        if burst is None:
            burst = self._el0_flips[admitted, excluded] = Burst()
            for counters, bits in ((admitted, 0), (excluded, EXCLUDE_EL0)):
                for idx in range(CYCLE + 1):
                    if counters >> idx & 1:
                        slot = burst.mrs(self.types[idx])
                        burst.write_back(self.types[idx], slot, MASK64 & ~EXCLUDE_EL0, bits)
        return burst

    # Counters.

    def allocate(self, event: PerfEvent) -> bool:
        """armv8pmu_get_event_idx: give `event` a counter, or a pair; False if there is none."""
        free = self.cntr_mask & ~self.used
        if event.on_pmccntr and free & CYCLE_BIT:
            idx = CYCLE
        elif event.on_pmicntr and free & INSTRUCTION_BIT:
            idx = INSTRUCTION
        elif event.chained:
            pairs = free & (free << 1) & GENERAL & 0xAAAAAAAA  # the odd counters of free pairs
            if not pairs:
                return False
            idx = self._first(pairs)
        else:
            free &= GENERAL
            if not free:
                return False
            idx = self._first(free)
        event.idx = idx
        event.bits = counter_bits(idx, paired(event, idx))
        self.used |= event.bits
        self.events[idx] = event
        return True

    def _first(self, free: int) -> int:
        return (free if self.high_to_low else free & -free).bit_length() - 1


def counter_bits(idx: int, pair: bool) -> int:
    return 3 << idx - 1 if pair else 1 << idx


def paired(event: PerfEvent, idx: int) -> bool:
    """armv8pmu_event_is_chained on the counter `idx`: the upper of a pair."""
    return event.chained and idx < CYCLE


def _pmu_off() -> Burst:
    """armv8pmu_stop."""
    burst = Burst()
    pmcr = burst.mrs(PMCR_EL0)
    burst.isb()
    burst.write_back(PMCR_EL0, pmcr, PMCR_MASK & ~PMCR_E, 0)
    return burst


def _range(hpme: int) -> Burst:
    """Stop or start a host's own range, [HPMN, N): PMCR_EL0.E is the guest's, which owns the other."""
    burst = Burst()
    mdcr = burst.mrs(MDCR_EL2)
    burst.isb()
    burst.write_back(MDCR_EL2, mdcr, MASK64 & ~MDCR_EL2_HPME, hpme)
    return burst


def _pmu_on(user_access: bool) -> Burst:
    """armv8pmu_start. While a vCPU is loaded, kvm_set_pmuserenr keeps the host's PMUSERENR_EL0: no access is made."""
    burst = Burst()
    if user_access:
        burst.msr(PMUSERENR_EL0, 0)
    pmcr = burst.mrs(PMCR_EL0)
    burst.isb()
    burst.write_back(PMCR_EL0, pmcr, PMCR_MASK, PMCR_E)
    return burst
