"""What a user or KVM asks of perf: the `perf_event_attr` of one event, and what the driver makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from services.cpu import CounterFlag, TruthScope
from services.experiment import EventSpec

# PMEVTYPER<n>_EL0 and PMCCFILTR_EL0 (Arm ARM, register pages).
EXCLUDE_EL1 = 1 << 31  # P
EXCLUDE_EL0 = 1 << 30  # U
INCLUDE_EL2 = 1 << 27  # NSH

# As plain integers: KVM's counters are made by the ten thousand.
EXCLUDE_USER, EXCLUDE_KERNEL = CounterFlag.EXCLUDE_USER.value, CounterFlag.EXCLUDE_KERNEL.value
LONG, DISABLED = CounterFlag.LONG.value, CounterFlag.DISABLED.value


class State(IntEnum):
    """`enum perf_event_state`: what is below INACTIVE is not considered for the PMU."""

    ERROR = -2  # pinned, and could not be placed
    OFF = -1
    INACTIVE = 0
    ACTIVE = 1


class Overflow(IntEnum):
    """Which overflow handler an event has."""

    SAMPLE = 0  # perf's own: write a record to the ring buffer
    KVM = 1  # kvm_pmu_perf_overflow: the event backs a counter of a guest


@dataclass(frozen=True, slots=True)
class EventAttr:
    """The fields of `perf_event_attr` that the PMU and the scheduling of events depend on."""

    event: int  # PMUv3 event number
    name: str = ""
    frequency: int = 0  # attr.freq with sample_freq, per second; 0: not by frequency
    period: int = 0  # sample_period in events, as the kernel has it: 64 bits; 0: counting only
    pinned: bool = False
    exclude_user: bool = False
    exclude_kernel: bool = False
    exclude_hv: bool = False
    exclude_host: bool = False
    exclude_guest: bool = False
    long: bool = False  # config1 bit 0: 64-bit counting, by a pair of counters where the PMU has none
    disabled: bool = False
    enable_on_exec: bool = False
    inherit: bool = False
    overflow: Overflow = Overflow.SAMPLE
    handle: int = -1  # KVM's name of the counter that the event backs

    @classmethod
    def of_spec(
        cls, spec: EventSpec, *, disabled: bool, enable_on_exec: bool = False, inherit: bool = False
    ) -> EventAttr:
        """An event of a user's session. With `leader` not its own index, the caller names the group leader at open."""
        return cls(
            event=spec.event,
            name=spec.name,
            frequency=spec.frequency,
            period=spec.period,
            pinned=spec.pinned,
            exclude_user=spec.exclude_user,
            exclude_kernel=spec.exclude_kernel,
            exclude_hv=spec.exclude_hv,
            exclude_host=spec.exclude_host,
            exclude_guest=spec.exclude_guest,
            long=spec.long,
            disabled=disabled,
            enable_on_exec=enable_on_exec,
            inherit=inherit,
        )

    @classmethod
    def of_kernel_counter(cls, handle: int, event: int, flags: int, period: int) -> EventAttr:
        """What KVM passes to perf_event_create_kernel_counter for a guest's counter (a `Call.CREATE` row)."""
        return cls(
            event=event,
            period=period,
            pinned=True,
            exclude_user=bool(flags & EXCLUDE_USER),
            exclude_kernel=bool(flags & EXCLUDE_KERNEL),
            exclude_hv=True,
            exclude_host=True,
            long=bool(flags & LONG),
            disabled=bool(flags & DISABLED),
            overflow=Overflow.KVM,
            handle=handle,
        )

    def filter_bits(self, hyp: bool) -> int:
        """The filter bits of PMEVTYPER, as armv8pmu_set_event_filter sets them. `hyp`: a VHE kernel, running at EL2."""
        bits = 0
        if hyp:
            if not self.exclude_kernel and not self.exclude_host:
                bits |= INCLUDE_EL2
            if self.exclude_guest:
                bits |= EXCLUDE_EL1
            if self.exclude_host:
                bits |= EXCLUDE_EL0
        elif not self.exclude_hv and not self.exclude_host:
            bits |= INCLUDE_EL2
        if self.exclude_kernel:
            bits |= EXCLUDE_EL1
        if self.exclude_user:
            bits |= EXCLUDE_EL0
        return bits

    def truth_scope(self, hyp: bool) -> TruthScope:
        """The contexts that the filters admit; nothing for KVM's counters, whose truth is the guest's."""
        scope = TruthScope(0)
        if self.overflow is Overflow.KVM:
            return scope
        if not (hyp and self.exclude_guest):
            if not self.exclude_user:
                scope |= TruthScope.GUEST_EL0
            if not self.exclude_kernel:
                scope |= TruthScope.GUEST_EL1
        if hyp and not self.exclude_host:
            if not self.exclude_user:
                scope |= TruthScope.HOST_EL0
            if not self.exclude_kernel:
                scope |= TruthScope.HOST_EL2
        return scope

    def el0_switched(self) -> bool:
        """kvm_pmu_switch_needed on VHE: whether KVM flips the event's EL0 filter when a guest is loaded."""
        return not self.exclude_user and self.exclude_host != self.exclude_guest
