"""What a vPMU design is to the rest of KVM."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from services.cpu import Call
from services.experiment import CpuSpec

if TYPE_CHECKING:
    from services.kvm.vcpu import VCpu


class DesignError(ValueError):
    """A design that cannot be had as asked for: an unknown axis or value, or a feature that the CPU lacks."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One choice within a design. The first value is the default."""

    values: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Swaps:
    """What loading and putting the guest's PMU context cost so far, in operations."""

    loads: int = 0
    puts: int = 0
    register_writes: int = 0
    register_reads: int = 0


class Vpmu(ABC):
    """One vCPU's PMU under a design. Called on the pCPU that the vCPU is on, at EL2."""

    def __init__(self, design: Design, vcpu: VCpu) -> None:
        self.design = design
        self.vcpu = vcpu
        self.pmu = vcpu.pmu
        self.loads = self.puts = self.register_writes = self.register_reads = 0

    def swaps(self) -> Swaps:
        return Swaps(self.loads, self.puts, self.register_writes, self.register_reads)

    @abstractmethod
    async def load(self) -> None:
        """vcpu_load."""

    @abstractmethod
    async def put(self) -> None:
        """vcpu_put."""

    @abstractmethod
    async def access(self, register: int, write: bool, value: int) -> int:
        """Emulate a trapped access; the value read. Raises InjectUndef."""

    @abstractmethod
    def level(self) -> bool:
        """Is the guest's PMU interrupt condition true? Asked at every entry (kvm_pmu_update_state)."""

    @abstractmethod
    def counter_overflow(self, counter: int) -> None:
        """A backing kernel counter overflowed."""

    @abstractmethod
    def guest_overflow(self, mask: int) -> None:
        """The host's handler found overflow flags in the guest's range, on the pCPU that this vCPU is loaded on."""

    def el0_switched(self) -> bool:
        """Are there events whose EL0 filter has to differ between host and guest?"""
        return self.vcpu.pcpu.host_has_events

    async def restore_el0(self, *, guest: bool) -> None:
        """kvm_vcpu_pmu_restore_guest and kvm_vcpu_pmu_restore_host."""
        if self.el0_switched():
            await self.vcpu.pcpu.call([Call.EL0_FILTER, int(guest), 0, 0, 0])

    def fast(self, register: int, write: bool) -> bool:
        """Is this trapped access completed without leaving the hypervisor's own code?"""
        return False

    def state(self) -> dict[str, Any]:
        return asdict(self.swaps())

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a state that `state()` gave; the vCPU's registers have been restored."""
        self.pmu = self.vcpu.pmu
        self.loads, self.puts = state["loads"], state["puts"]
        self.register_writes, self.register_reads = state["register_writes"], state["register_reads"]


@dataclass
class Design(ABC):
    """A vPMU design with its axes chosen. Subclasses are registered under the entry point group `pmulab.designs`."""

    name: ClassVar[str]
    why: ClassVar[str]
    axes: ClassVar[Mapping[str, Axis]] = {}
    host_events_exclude_guests: ClassVar[bool] = False  # host events that do not are refused

    chosen: dict[str, str] = field(default_factory=dict)  # every axis of the class, with its value
    guest_range: int = 0  # the counters that the machine's guests want, one bit each; set before any vpmu() is made

    @classmethod
    def make(cls, chosen: Mapping[str, str]) -> Design:
        """The design with `chosen` axes, defaults for the others. Raises DesignError."""
        for axis, value in chosen.items():
            if axis not in cls.axes:
                known = ", ".join(cls.axes) or "none"
                raise DesignError(f"design {cls.name} has no axis {axis!r}; it has: {known}")
            if value not in cls.axes[axis].values:
                raise DesignError(
                    f"{value!r} is no value of axis {axis!r} of design {cls.name}; use one of: "
                    + ", ".join(cls.axes[axis].values)
                )
        return cls({axis: chosen.get(axis, spec.values[0]) for axis, spec in cls.axes.items()})

    @abstractmethod
    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        """What it falls back on for a guest with `counters` event counters on `cpu`, in words. Raises DesignError."""

    @abstractmethod
    def host_counters(self, cpu: CpuSpec) -> int:
        """The counters that the host's driver may allocate while no vCPU is loaded, one bit each."""

    @property
    def high_to_low(self) -> bool:
        """Does the host's driver allocate its event counters from the highest index?"""
        return False

    @property
    def pmcr_n(self) -> str:
        """Who sets PMCR_EL0.N: "settable" by SET_ONE_REG, "attribute" (of the vCPU) alone, or "fixed"."""
        return "settable"

    @property
    def split_irq(self) -> bool:
        """Does the host's interrupt handler leave a guest's overflow flags to KVM?"""
        return False

    @abstractmethod
    def vpmu(self, vcpu: VCpu) -> Vpmu:
        """This design's PMU for a vCPU."""
