"""What a user or KVM asks of perf: the `perf_event_attr` of one event, and what its filters mean."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from services.cpu import CounterFlag, TruthScope
from services.experiment import EventSpec
from services.registers import PMEVTYPER_NSH, PMEVTYPER_P, PMEVTYPER_U


class State(IntEnum):
    """`enum perf_event_state`: what is below INACTIVE is not considered for the PMU."""

    ERROR = -2  # pinned, and could not be placed
    OFF = -1
    INACTIVE = 0
    ACTIVE = 1


@dataclass(frozen=True, slots=True)
class EventAttr:
    """The fields of `perf_event_attr` that the PMU and the scheduling of events depend on."""

    event: int  # PMUv3 event number
    name: str = ""
    frequency: int = 0  # attr.freq with sample_freq, per second; 0: not by frequency
    period: int = 0  # sample_period in events, as the kernel has it: 64 bits; 0: counting only
    pinned: bool = False
    exclusive: bool = False
    sample_read: bool = False  # PERF_SAMPLE_READ, with PERF_FORMAT_GROUP for a group of several
    exclude_idle: bool = False
    exclude_user: bool = False
    exclude_kernel: bool = False
    exclude_hv: bool = False
    exclude_host: bool = False
    exclude_guest: bool = False
    long: bool = False  # config1 bit 0: 64-bit counting, by a pair of counters where the PMU has none
    rdpmc: bool = False  # config1 bit 1: user access
    disabled: bool = False
    enable_on_exec: bool = False
    inherit: bool = False
    software: bool = False  # PERF_TYPE_SOFTWARE: `event` is one of services.events.Software
    generic: bool = False  # PERF_TYPE_HARDWARE or PERF_TYPE_HW_CACHE

    @classmethod
    def of_spec(
        cls, spec: EventSpec, frequency: int, *, disabled: bool, enable_on_exec: bool = False, inherit: bool = False
    ) -> EventAttr:
        """An event of a user's session. With `leader` not its own index, the caller names the group leader at open."""
        return cls(
            event=spec.event,
            name=spec.name,
            frequency=frequency,
            period=spec.period,
            pinned=spec.pinned,
            exclusive=spec.exclusive,
            sample_read=spec.sample_read and bool(spec.frequency or spec.period),
            exclude_idle=spec.exclude_idle,
            exclude_user=spec.exclude_user,
            exclude_kernel=spec.exclude_kernel,
            exclude_hv=spec.exclude_hv,
            exclude_host=spec.exclude_host,
            exclude_guest=spec.exclude_guest,
            long=spec.long,
            rdpmc=spec.rdpmc,
            disabled=disabled,
            enable_on_exec=enable_on_exec,
            inherit=inherit,
            software=spec.software,
            generic=spec.generic,
        )

    @classmethod
    def of_kernel_counter(cls, event: int, flags: int) -> EventAttr:
        """What KVM passes to perf_event_create_kernel_counter for a guest's counter, its sample period aside.

        `flags` are `CounterFlag`s.
        """
        return cls(
            event=event,
            pinned=True,
            exclude_user=bool(flags & CounterFlag.EXCLUDE_USER),
            exclude_kernel=bool(flags & CounterFlag.EXCLUDE_KERNEL),
            exclude_hv=True,
            exclude_host=True,
            long=bool(flags & CounterFlag.LONG),
            disabled=bool(flags & CounterFlag.DISABLED),
        )

    def kernel_flags(self) -> int:
        """The `CounterFlag`s of which `of_kernel_counter` makes these attributes."""
        flags = CounterFlag(0)
        for given, flag in (
            (self.exclude_user, CounterFlag.EXCLUDE_USER),
            (self.exclude_kernel, CounterFlag.EXCLUDE_KERNEL),
            (self.long, CounterFlag.LONG),
            (self.disabled, CounterFlag.DISABLED),
        ):
            if given:
                flags |= flag
        return int(flags)

    def filter_bits(self, hyp: bool) -> int:
        """The filter bits of PMEVTYPER, as armv8pmu_set_event_filter sets them. `hyp`: a VHE kernel, running at EL2."""
        bits = 0
        if hyp:
            if not self.exclude_kernel and not self.exclude_host:
                bits |= PMEVTYPER_NSH
            if self.exclude_guest:
                bits |= PMEVTYPER_P
            if self.exclude_host:
                bits |= PMEVTYPER_U
        elif not self.exclude_hv and not self.exclude_host:
            bits |= PMEVTYPER_NSH
        if self.exclude_kernel:
            bits |= PMEVTYPER_P
        if self.exclude_user:
            bits |= PMEVTYPER_U
        return bits

    def truth_scope(self, hyp: bool) -> TruthScope:
        """The contexts that the filters admit."""
        scope = TruthScope(0)
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
