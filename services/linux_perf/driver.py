"""The PMUv3 driver of one CPU: its counters, and the access sequences that touch them.

drivers/perf/arm_pmuv3.c and arm_pmu.c. The fixed sequences are prepared once as `Burst` objects, for
the kernel repeats them by the million.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services._pmu import NOTE_HOST_PMUSERENR, Burst
from services.costs import Cost
from services.cpu import Notice
from services.linux_perf.attr import EventAttr
from services.linux_perf.event import SWEVENT, THROTTLED, HwEvent, PerfEvent
from services.registers import (
    CHAIN,
    CPU_CYCLES,
    CYCLE_BIT,
    CYCLE_COUNTER,
    INST_RETIRED,
    INSTRUCTION_BIT,
    INSTRUCTION_COUNTER,
    MASK32,
    MASK64,
    MDCR_EL2,
    MDCR_EL2_HPME,
    PMCCFILTR_EL0,
    PMCCNTR_EL0,
    PMCNTENCLR_EL0,
    PMCNTENSET_EL0,
    PMCR_E,
    PMCR_EL0,
    PMEVCNTR,
    PMEVTYPER,
    PMEVTYPER_NSH,
    PMEVTYPER_U,
    PMICFILTR_EL0,
    PMICNTR_EL0,
    PMINTENCLR_EL1,
    PMINTENSET_EL1,
    PMOVSCLR_EL0,
    PMUSERENR_EL0,
    PMUVER_P5,
    bits,
)
from services.state import derived, link

GENERAL: Final = CYCLE_BIT - 1  # the event counters
INDICES: Final = INSTRUCTION_COUNTER + 1
FLAG_BITS: Final = 4  # of a CounterFlag

PMCR_WRITTEN: Final = 0xFF  # ARMV8_PMU_PMCR_MASK: what the driver writes back
OVERFLOWED: Final = (1 << INDICES) - 1  # ARMV8_PMU_OVERFLOWED_MASK

REGISTERS: Final = (*(PMEVCNTR(n) for n in range(CYCLE_COUNTER)), PMCCNTR_EL0, PMICNTR_EL0)
TYPES: Final = (*(PMEVTYPER(n) for n in range(CYCLE_COUNTER)), PMCCFILTR_EL0, PMICFILTR_EL0)


class El0Flips(dict[tuple[int, int], Burst]):
    """kvm_vcpu_pmu_enable_el0 and kvm_vcpu_pmu_disable_el0, each with its counters: PMEVTYPER read and written."""

    def __missing__(self, counters: tuple[int, int]) -> Burst:
        burst = self[counters] = Burst()
        for mask, added in zip(counters, (0, PMEVTYPER_U), strict=True):
            for idx in range(INDICES):
                if mask >> idx & 1:
                    slot = burst.mrs(TYPES[idx])
                    burst.write_back(TYPES[idx], slot, MASK64 & ~PMEVTYPER_U, added)
        return burst


class UserStarts(dict[tuple[int, int, bool, bool, bool, bool, bool], Burst]):
    """armv8pmu_start where EL0 may be let in (kernel.perf_user_access).

    By: PMUSERENR_EL0 as it is to be, the unused counters that armv8pmu_enable_user_access clears, whether that is not
    what it was, whether the register is a guest's, whether it is the host's range alone that starts, whether a vCPU is
    loaded beside the interrupt's context, and whether somebody observes.
    """

    def __init__(self, hpme: bool) -> None:
        super().__init__()
        self.hpme = hpme

    def __missing__(self, key: tuple[int, int, bool, bool, bool, bool, bool]) -> Burst:
        userenr, unused, changed, kept, range_only, resync, observed = key
        burst = Burst()
        for idx in bits(unused):
            burst.msr(REGISTERS[idx], 0)
        if changed:
            burst.notify(Notice.HOST_PMUSERENR, userenr)
            if kept and observed:
                burst.note(NOTE_HOST_PMUSERENR, userenr)
        if not kept:
            burst.msr(PMUSERENR_EL0, userenr)
        if resync:
            burst.extend(_resync_el0())
        self[key] = burst = _range(burst, MDCR_EL2_HPME) if range_only else _pmu_on(burst, False, self.hpme)
        return burst


@dataclass(slots=True, eq=False)
class Driver:
    """`arm_pmu` and this CPU's `pmu_hw_events`."""

    pmuver: int = derived()  # ID_AA64DFR0_EL1.PMUVer as this kernel reads it
    hyp: bool = derived()  # is_kernel_in_hyp_mode()
    icntr: bool = derived()  # it has PMICNTR_EL0
    avoid_pmccntr: bool = derived()
    high_to_low: bool = derived()  # event counters are allocated from the highest index
    costs: dict[Cost, int] = derived()
    arm_pmu: int = derived(default=0)  # which of the kernel's this is, on the CPUs of several drivers
    group_throttle: bool = derived(default=False)  # groups are throttled, not events
    hpme: bool = derived(default=False)  # MDCR_EL2.HPME starts and stops with PMCR_EL0.E
    denied: tuple[int, ...] = derived(default=())  # by the VM's filter, as reports say it
    resync_in_process: bool = derived(default=False)
    none: bool = derived(default=False)  # there is no PMU of this kernel's: it accesses none
    counters: int = 0  # PMCR_EL0.N, as probed
    pmceid0: int = 0  # PMCEID0_EL0 and PMCEID1_EL0, as probed
    pmceid1: int = 0
    cntr_mask: int = CYCLE_BIT  # counters that may be used; the event counters are known after the probe
    used: int = 0  # counters in use
    guests: int = 0  # of these, what pinned events keep out of while there are others
    userenr: int = 0  # PMUSERENR_EL0 as it was last set for this kernel's own EL0
    guest_only: int = 0  # of these, those whose event has its EL0 filter flipped by KVM and counts in the guest
    host_only: int = 0  # likewise in the host
    throttled: bool = False  # may an event on a counter be throttled?
    stopped: bool = False  # may one be stopped, with its counter disabled and read?
    events: list[PerfEvent | None] = link(default_factory=lambda: [None] * INDICES)

    long_counters: bool = derived(init=False)
    write_masks: list[int] = derived(init=False)
    off: Burst = derived(init=False)
    on: Burst = derived(init=False)
    on_vcpu: Burst = derived(init=False)
    on_vcpu_irq: Burst = derived(init=False)
    off_range: Burst = derived(init=False)
    on_range: Burst = derived(init=False)
    on_range_irq: Burst = derived(init=False)
    clear_flags: Burst = derived(init=False)
    # Software time alone.
    call: Burst = derived(init=False)
    read: Burst = derived(init=False)
    recreate: Burst = derived(init=False)
    host_pmi: Burst = derived(init=False)
    sample: Burst = derived(init=False)
    disables: list[Burst] = derived(init=False)
    stops: list[Burst] = derived(init=False)
    outs: list[Burst] = derived(init=False)
    _hw: dict[EventAttr, HwEvent] = derived(default_factory=dict)
    _kernel_counters: dict[int, HwEvent] = derived(default_factory=dict)
    el0_flips: El0Flips = derived(init=False)
    user_starts: UserStarts = derived(init=False)

    def __post_init__(self) -> None:
        self.long_counters = self.pmuver >= PMUVER_P5
        # What armv8pmu_write_counter writes of -left. Where a counter is wider than the 32 bits of an
        # ordinary event, the upper half is all ones, so that it overflows with the lower.
        narrow = MASK64 if self.long_counters else MASK32
        self.write_masks = [*([narrow] * CYCLE_COUNTER), MASK64, MASK64]
        self.el0_flips = El0Flips()
        self.user_starts = UserStarts(self.hpme)
        self.off, self.on = _pmu_off(self.hpme), _pmu_on(Burst(), True, self.hpme)
        self.off_range = _range(Burst(), 0)
        self.on_vcpu = _pmu_on(_resync_el0() if self.resync_in_process else Burst(), False, self.hpme)
        self.on_vcpu_irq = _pmu_on(_resync_el0(), False, self.hpme)
        self.on_range, self.on_range_irq = _range(Burst(), MDCR_EL2_HPME), _range(_resync_el0(), MDCR_EL2_HPME)
        if self.none:
            self.off = self.on = self.on_vcpu = self.on_vcpu_irq = Burst()
        self.clear_flags = Burst()
        flags = self.clear_flags.mrs(PMOVSCLR_EL0)
        self.clear_flags.write_back(PMOVSCLR_EL0, flags, OVERFLOWED, 0)
        self.call, self.read = self._charge(Cost.PERF_CALL), self._charge(Cost.PERF_READ)
        self.host_pmi, self.sample = self._charge(Cost.HOST_PMI), self._charge(Cost.SAMPLE)
        cost = self.costs[Cost.PERF_RELEASE_CREATE]
        self.recreate = Burst()
        self.recreate.charge(Cost.PERF_RELEASE_CREATE, cost // 2)
        self.recreate.charge(Cost.PERF_RELEASE_CREATE, cost - cost // 2)
        self.disables = [_disable(Burst(), 1 << n, 1 << n) for n in range(INDICES)]
        self.stops = [self._stop(n, None) for n in range(INDICES)]
        self.outs = [self._stop(n, self.costs[Cost.EVENT_OUT]) for n in range(INDICES)]

    # Events.

    def hw_event(self, attr: EventAttr) -> HwEvent:
        """__hw_perf_event_init: what becomes of an event's attributes."""
        hw = self._hw.get(attr)
        if hw is None:
            hw = self._hw[attr] = _software(attr) if attr.software else self._init(attr, reported=True)
        return hw

    def hw_kernel_counter(self, event: int, flags: int) -> HwEvent:
        """The same for a counter of KVM's (`EventAttr.of_kernel_counter`): its truth is the guest's."""
        key = event << FLAG_BITS | flags
        hw = self._kernel_counters.get(key)
        if hw is None:
            hw = self._kernel_counters[key] = self._init(EventAttr.of_kernel_counter(event, flags), reported=False)
        return hw

    def _init(self, attr: EventAttr, *, reported: bool) -> HwEvent:
        evtype = attr.event | attr.filter_bits(self.hyp)
        chained = attr.long and not self.long_counters and not attr.rdpmc
        on_pmccntr = attr.event == CPU_CYCLES and not self.avoid_pmccntr  # armv8pmu_can_use_pmccntr
        on_pmicntr = self.icntr and attr.event == INST_RETIRED and not attr.rdpmc
        still = self.hyp and not evtype & PMEVTYPER_NSH
        cost = self.costs[Cost.EVENT_IN]
        return HwEvent(
            attr=attr,
            config=attr.event,
            evtype=evtype,
            pmu=self.arm_pmu,
            scope=int(attr.truth_scope(self.hyp)) if reported else 0,
            mask=MASK64 if attr.long else MASK32,
            chained=chained,
            on_pmccntr=on_pmccntr,
            on_pmicntr=on_pmicntr,
            pmccntr_alone=on_pmccntr and attr.rdpmc and attr.long and not self.long_counters,
            user_read=attr.rdpmc,
            guest_only=OVERFLOWED if attr.el0_switched() and attr.exclude_host else 0,
            host_only=OVERFLOWED if attr.el0_switched() and attr.exclude_guest else 0,
            still=still,
            software=False,
            exclusive=attr.exclusive,
            alone=still and not reported and (on_pmccntr or not (chained or on_pmicntr)),
            reported=reported,
            starts=[_enable(evtype, idx, chained, cost) for idx in range(INDICES)],
            restarts=[_enable(evtype, idx, chained, None) for idx in range(INDICES)],
        )

    # Sequences.

    def _charge(self, cost: Cost) -> Burst:
        burst = Burst()
        burst.charge(cost, self.costs[cost])
        return burst

    def _stop(self, idx: int, cost: int | None, chained: bool = False) -> Burst:
        """armpmu_stop, and as part of event_sched_out with its cost; the upper half of a pair is read first."""
        burst = Burst()
        if cost is not None:
            burst.charge(Cost.EVENT_OUT, cost)
        _disable(burst, counter_bits(idx, chained), 1 << idx)
        burst.mrs(REGISTERS[idx])
        if chained:
            burst.mrs(REGISTERS[idx - 1])
        return burst

    def write(self, burst: Burst, event: PerfEvent, left: int) -> None:
        """armv8pmu_write_counter with the counter `left` occurrences away from its overflow."""
        idx = event.idx
        if paired(event, idx):
            value = -left & MASK64
            burst.msr(REGISTERS[idx], value >> 32)
            burst.msr(REGISTERS[idx - 1], value & MASK32)
        else:
            burst.msr(REGISTERS[idx], -left & self.write_masks[idx])

    def out_of(self, event: PerfEvent) -> Burst:
        """What takes `event` off the counter that it is on."""
        if paired(event, event.idx):
            return self._stop(event.idx, self.costs[Cost.EVENT_OUT], True)
        return self.outs[event.idx]

    def stop_of(self, event: PerfEvent) -> Burst:
        if paired(event, event.idx):
            return self._stop(event.idx, None, True)
        return self.stops[event.idx]

    def disable_of(self, event: PerfEvent) -> Burst:
        """Without reading the counter: what a throttled event gets."""
        if paired(event, event.idx):
            return _disable(Burst(), counter_bits(event.idx, True), 1 << event.idx)
        return self.disables[event.idx]

    def throttled_counters(self) -> int:
        """Those that are disabled as their events are throttled: kvm_clr_pmu_events in armv8pmu_disable_event."""
        counters = 0
        for event in self.events:
            if event is None:
                continue
            if event.stopped if self.group_throttle else event.interrupts == THROTTLED and not event.restarted:
                counters |= event.bits
        self.throttled = counters != 0
        return counters

    # Counters.

    def probed(self, counters: int, pmceid0: int, pmceid1: int) -> None:
        """What __armv8pmu_probe_pmu keeps: PMCR_EL0.N, PMCEID0_EL0 and PMCEID1_EL0."""
        self.counters, self.pmceid0, self.pmceid1 = counters, pmceid0, pmceid1

    def implements(self, event: int) -> bool:
        """Is a common event (0 to 0x3f) one of the PMU's?"""
        return bool((self.pmceid1 if event >> 5 else self.pmceid0) >> (event & 31) & 1)

    def index(self, hw: HwEvent, free: int) -> int:
        """armv8pmu_get_event_idx: the counter that an event gets of those that are free, the upper of a pair; or -1."""
        if hw.on_pmccntr and free & CYCLE_BIT:
            return CYCLE_COUNTER
        if hw.on_pmicntr and free & INSTRUCTION_BIT:
            return INSTRUCTION_COUNTER
        if hw.pmccntr_alone:
            return -1
        # Of pairs, the odd counters.
        free = free & (free << 1) & GENERAL & 0xAAAAAAAA if hw.chained else free & GENERAL
        return self._first(free) if free else -1

    def allocate(self, event: PerfEvent) -> bool:
        """Give `event` a counter, or a pair; False if there is none."""
        hw = event.hw
        free = self.cntr_mask & ~self.used
        idx = self.index(hw, free & ~self.guests) if self.guests and hw.keeps_out else -1
        if idx < 0:
            idx = self.index(hw, free)
        if idx < 0:
            return False
        event.idx = idx
        event.bits = bits = counter_bits(idx, paired(event, idx))
        self.used |= bits
        self.guest_only |= bits & hw.guest_only
        self.host_only |= bits & hw.host_only
        self.events[idx] = event
        return True

    def free(self, event: PerfEvent) -> None:
        """armv8pmu_clear_event_idx."""
        bits = event.bits
        self.used &= ~bits
        self.guest_only &= ~bits
        self.host_only &= ~bits
        self.events[event.idx] = None

    def _first(self, free: int) -> int:
        return (free if self.high_to_low else free & -free).bit_length() - 1


def _software(attr: EventAttr) -> HwEvent:
    """An event that no driver knows of."""
    return HwEvent(
        attr=attr,
        config=attr.event,
        evtype=0,
        pmu=SWEVENT,
        scope=0,
        mask=MASK64,
        chained=False,
        on_pmccntr=False,
        on_pmicntr=False,
        pmccntr_alone=False,
        user_read=False,
        guest_only=0,
        host_only=0,
        still=False,
        software=True,
        exclusive=attr.exclusive,
        alone=False,
        reported=True,
        starts=[],
        restarts=[],
    )


def counter_bits(idx: int, pair: bool) -> int:
    return 3 << idx - 1 if pair else 1 << idx


def paired(event: PerfEvent, idx: int) -> bool:
    """armv8pmu_event_is_chained on the counter `idx`: the upper of a pair."""
    return paired_on(event.hw, idx)


def paired_on(hw: HwEvent, idx: int) -> bool:
    return hw.chained and idx < CYCLE_COUNTER


def read_of(burst: Burst, event: PerfEvent) -> int:
    """armv8pmu_read_counter; the slot of the value, with the lower half of a pair in the one after it."""
    idx = event.idx
    slot = burst.mrs(REGISTERS[idx])
    if event.hw.chained and idx < CYCLE_COUNTER:
        burst.mrs(REGISTERS[idx - 1])
    return slot


def _disable(burst: Burst, counters: int, interrupts: int) -> Burst:
    """armv8pmu_disable_event."""
    burst.msr(PMCNTENCLR_EL0, counters)
    burst.isb()
    burst.msr(PMINTENCLR_EL1, interrupts)
    burst.isb()
    burst.msr(PMOVSCLR_EL0, interrupts)
    burst.isb()
    return burst


def _enable(evtype: int, idx: int, chained: bool, cost: int | None) -> Burst:
    """armv8pmu_enable_event, and as part of event_sched_in with the latter's cost."""
    pair = chained and 0 < idx < CYCLE_COUNTER
    counters = counter_bits(idx, pair)
    burst = Burst()
    if cost is not None:
        burst.charge(Cost.EVENT_IN, cost)
    burst.msr(PMCNTENCLR_EL0, counters)
    burst.isb()
    if pair:
        burst.msr(TYPES[idx - 1], evtype)
        burst.msr(TYPES[idx], CHAIN | PMEVTYPER_NSH)
    else:
        burst.msr(TYPES[idx], evtype)
    burst.msr(PMINTENSET_EL1, 1 << idx)
    burst.isb()
    burst.msr(PMCNTENSET_EL0, counters)
    return burst


def _set_hpme(burst: Burst, hpme: int) -> None:
    """kvm_pmu_host_counters_enable and kvm_pmu_host_counters_disable."""
    mdcr = burst.mrs(MDCR_EL2)
    burst.write_back(MDCR_EL2, mdcr, MASK64 & ~MDCR_EL2_HPME, hpme)


def _pmu_off(hpme: bool) -> Burst:
    """armv8pmu_stop."""
    burst = Burst()
    if hpme:
        _set_hpme(burst, 0)
    pmcr = burst.mrs(PMCR_EL0)
    burst.isb()
    burst.write_back(PMCR_EL0, pmcr, PMCR_WRITTEN & ~PMCR_E, 0)
    return burst


def _resync_el0() -> Burst:
    """kvm_vcpu_pmu_resync_el0, which armv8pmu_start calls: KVM asks the vCPU, if it is called in interrupt context. In
    v9 it asks in any."""
    burst = Burst()
    burst.notify(Notice.RESYNC_EL0, 0)
    return burst


def _range(burst: Burst, hpme: int) -> Burst:
    """Stop or start a host's own range, [HPMN, N): PMCR_EL0.E is the guest's, which owns the other."""
    mdcr = burst.mrs(MDCR_EL2)
    burst.isb()
    burst.write_back(MDCR_EL2, mdcr, MASK64 & ~MDCR_EL2_HPME, hpme)
    return burst


def _pmu_on(burst: Burst, user_access: bool, hpme: bool) -> Burst:
    """armv8pmu_start. While a vCPU is loaded, kvm_set_pmuserenr keeps the host's PMUSERENR_EL0: no access is made."""
    if user_access:
        burst.msr(PMUSERENR_EL0, 0)
    if hpme:
        _set_hpme(burst, MDCR_EL2_HPME)
    pmcr = burst.mrs(PMCR_EL0)
    burst.isb()
    burst.write_back(PMCR_EL0, pmcr, PMCR_WRITTEN, PMCR_E)
    return burst
