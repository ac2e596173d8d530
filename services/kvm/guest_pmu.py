"""A vCPU's PMU registers in memory: `vcpu_sys_reg`, whichever design decides where the live copy is."""

from __future__ import annotations

from dataclasses import dataclass, field

from services import registers as r
from services.registers import CYCLE_COUNTER, MASK32, MASK64
from services.state import derived

# PMEVTYPER<n>_EL0.evtCount is 16 bits from FEAT_PMUv3p1 on, 10 bits before; P, U, NSK, NSU, NSH, M above it.
EVTYPER_FILTER = 0xFC00_0000

# What a register of UNKNOWN reset value starts with (reset_unknown).
UNKNOWN = 0x1DE7_EC7E_DBAD_C0DE

# What a guest may keep set in PMCR_EL0 and PMUSERENR_EL0 (ARMV8_PMU_PMCR_MASK, ARMV8_PMU_USERENR_MASK).
PMCR_WRITABLE = r.PMCR_E | r.PMCR_D | r.PMCR_X | r.PMCR_DP | r.PMCR_LC | r.PMCR_LP
PMCR_RESETS = r.PMCR_P | r.PMCR_C  # a VMM's stay in memory (set_pmcr), a guest's do not (kvm_pmu_handle_pmcr)
PMCR_MASK = PMCR_WRITABLE | PMCR_RESETS
STALL_SLOTS = 0b111 << (0x3D - 0x20)  # STALL_SLOT_BACKEND, _FRONTEND, STALL_SLOT in PMCEID1_EL0
USERENR_ALL = r.PMUSERENR_EN | r.PMUSERENR_SW | r.PMUSERENR_CR | r.PMUSERENR_ER


@dataclass(slots=True, eq=False)
class GuestPmu:
    """The registers as the guest wrote them, and what userspace has configured."""

    counters: int  # PMCR_EL0.N as userspace set it
    pmuver: int  # ID_AA64DFR0_EL1.PMUVer as the guest reads it
    denied: list[int] = field(default_factory=list)  # events that the VM's filter denies (KVM_ARM_VCPU_PMU_V3_FILTER)
    pmcr: int = 0
    cnten: int = 0
    inten: int = 0
    ovs: int = 0
    selr: int = 0
    userenr: int = 0
    typer: list[int] = field(default_factory=lambda: [0] * 32)  # [31] is PMCCFILTR_EL0
    counter: list[int] = field(default_factory=lambda: [0] * 32)  # [31] is PMCCNTR_EL0

    mask: int = derived(init=False)  # the counters that exist for the guest, one bit each
    event_mask: int = derived(init=False)  # what PMEVTYPER<n>_EL0 keeps of a write (kvm_pmu_evtyper_mask)
    width: int = derived(init=False)  # the bits of an event counter (kvm_pmc_is_64bit)
    pmcr_writable: int = derived(init=False)  # what the guest may keep set in PMCR_EL0: LP from PMUv3p5 on

    def __post_init__(self) -> None:
        self.derive()

    def derive(self) -> None:
        """Make anew what follows from the number of counters and the version: after a restore, too."""
        self.mask = r.counter_mask(self.counters)
        self.event_mask = EVTYPER_FILTER | (r.PMEVTYPER_EVTCOUNT if self.pmuver > 1 else 0x3FF)
        long = self.pmuver >= r.PMUVER_P5
        self.width = MASK64 if long else MASK32
        self.pmcr_writable = PMCR_WRITABLE if long else PMCR_WRITABLE & ~r.PMCR_LP

    def reset(self) -> None:
        """KVM_ARM_VCPU_INIT (kvm_reset_sys_regs). PMCR_EL0, PMUSERENR_EL0 and PMCCFILTR_EL0 are 0."""
        self.cnten = self.inten = self.ovs = UNKNOWN & self.mask
        self.selr = UNKNOWN & 0x1F
        self.typer = [UNKNOWN & self.event_mask] * CYCLE_COUNTER + [0]
        self.counter = [UNKNOWN & MASK32] * CYCLE_COUNTER + [UNKNOWN]

    def set_counters(self, counters: int) -> None:
        """Userspace sets the number of event counters, before or after a reset."""
        self.counters = counters
        self.derive()
        self.cnten &= self.mask
        self.inten &= self.mask
        self.ovs &= self.mask

    def read(self, register: int) -> int | None:
        """What a read of `register` finds in memory; None if it is not kept here, or is a counter or its type."""
        match register:
            case r.PMCR_EL0:
                return self.pmcr & self.pmcr_writable | self.counters << r.PMCR_N_SHIFT
            case r.PMOVSCLR_EL0 | r.PMOVSSET_EL0:
                return self.ovs
            case r.PMCNTENSET_EL0 | r.PMCNTENCLR_EL0:
                return self.cnten
            case r.PMINTENSET_EL1 | r.PMINTENCLR_EL1:
                return self.inten
            case r.PMSELR_EL0:
                return self.selr
            case r.PMUSERENR_EL0:
                return self.userenr
        return None

    def write(self, register: int, value: int) -> bool:
        """Keep what is written to a register that `read` knows; False if it is not one of these."""
        valid = value & self.mask
        match register:  # those that a driver writes most often first
            case r.PMOVSCLR_EL0:
                self.ovs &= ~valid
            case r.PMINTENCLR_EL1:
                self.inten &= ~valid
            case r.PMINTENSET_EL1:
                self.inten |= valid
            case r.PMUSERENR_EL0:
                self.userenr = value & USERENR_ALL
            case r.PMCNTENCLR_EL0:
                self.cnten &= ~valid
            case r.PMCNTENSET_EL0:
                self.cnten |= valid
            case r.PMCR_EL0:
                self.pmcr = value & self.pmcr_writable
            case r.PMSELR_EL0:
                self.selr = value & 0x1F
            case r.PMOVSSET_EL0:
                self.ovs |= valid
            case _:
                return False
        return True

    def el0_may(self, register: int, *, write: bool) -> bool:
        """pmu_access_el0_disabled and its siblings: does PMUSERENR_EL0 let EL0 make an access that has trapped?"""
        if register == r.PMUSERENR_EL0:
            return not write
        allowing = r.PMUSERENR_EN
        if register == r.PMSWINC_EL0:
            allowing |= r.PMUSERENR_SW
        elif register == r.PMSELR_EL0:
            allowing |= r.PMUSERENR_ER
        elif not write and register == r.PMCCNTR_EL0:
            allowing |= r.PMUSERENR_CR
        elif not write and register in OF_COUNTERS and not is_typer(register):
            allowing |= r.PMUSERENR_ER
        return bool(self.userenr & allowing)

    def increment(self, mask: int, event: int) -> None:
        """kvm_pmu_counter_increment: those of the counters in `mask` that are enabled and have `event`, SW_INCR or
        CHAIN, which KVM counts itself."""
        if not self.pmcr & r.PMCR_E:
            return
        for n in r.bits(mask & self.cnten & self.mask & ~r.CYCLE_BIT):
            if self.event(n) != event:
                continue
            self.counter[n] = self.counter[n] + 1 & self.width
            if self.counter[n] & (MASK64 if self._overflows_long(n) else MASK32):
                continue
            self.ovs |= 1 << n
            if self.can_chain(n):
                self.increment(1 << (n + 1), r.CHAIN)

    def value(self, n: int) -> int:
        """Counter `n`, of what is in memory, where a VMM may have set more than an event counter has."""
        return self.counter[n] if n == CYCLE_COUNTER else self.counter[n] & self.width

    def can_chain(self, n: int) -> bool:
        """kvm_pmu_counter_can_chain: an even one that overflows from bit 31, into an event counter."""
        return n % 2 == 0 and n + 1 < CYCLE_COUNTER and not self._overflows_long(n)

    def _overflows_long(self, n: int) -> bool:
        return bool(self.pmcr & self.pmcr_writable & (r.PMCR_LC if n == CYCLE_COUNTER else r.PMCR_LP))

    def pmceid(self, half: int, hardware: int, *, slots: bool = False) -> int:
        """kvm_pmu_get_pmceid: PMCEID<half>_EL0 for the guest, of what `hardware` has.

        KVM counts CHAIN itself, hides what makes no sense without PMMIR_EL1.SLOTS, and masks by the VM's filter.
        """
        value = hardware & (MASK64 if slots else ~STALL_SLOTS) if half else hardware | 1 << r.CHAIN
        if self.denied and not self.event_mask >> 14 & 1:
            value &= r.MASK32  # the filter's bitmap has 10-bit events only
        for event in self.denied:
            base = event & ~0x3F
            if base in (0, 0x4000) and event >> 5 & 1 == half:
                value &= ~(1 << (event & 31) + (32 if base else 0))
        return value

    def event(self, n: int) -> int:
        """What counter `n` is programmed to count."""
        return r.CPU_CYCLES if n == CYCLE_COUNTER else self.typer[n] & self.event_mask & r.PMEVTYPER_EVTCOUNT


# By register: the counter that it belongs to, None for the one that PMSELR_EL0 selects, and whether it is its type.
OF_COUNTERS: dict[int, tuple[int | None, bool]] = {
    r.PMCCNTR_EL0: (CYCLE_COUNTER, False),
    r.PMCCFILTR_EL0: (CYCLE_COUNTER, True),
    r.PMXEVCNTR_EL0: (None, False),
    r.PMXEVTYPER_EL0: (None, True),
    **{r.PMEVCNTR(n): (n, False) for n in range(r.EVENT_COUNTERS)},
    **{r.PMEVTYPER(n): (n, True) for n in range(r.EVENT_COUNTERS)},
}
_NONE = (0, False)


def is_typer(register: int) -> bool:
    """Does the register say what a counter counts?"""
    return OF_COUNTERS.get(register, _NONE)[1]


def counter_of(register: int, selr: int) -> int | None:
    """The counter that the register belongs to, CYCLE_COUNTER for PMCCNTR_EL0, or None. `selr`: PMSELR_EL0.SEL."""
    of = OF_COUNTERS.get(register)
    if of is None:
        return None
    return selr if of[0] is None else of[0]
