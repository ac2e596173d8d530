"""What a vPMU design is to the rest of KVM, and what it may ask of the vCPU whose PMU it is.

A design is a frozen dataclass. Its axes, what people vary about it, are fields, each with an enum of its values:

    class Swap(Enum):
        EAGER = "eager"
        LAZY = "lazy"

    @dataclass(frozen=True, kw_only=True)
    class Mine(Design):
        name = "mine"
        why = "one line for `pmulab designs`"
        swap: Swap = axis(Swap.EAGER, "when the guest's registers go onto the CPU")

Its PMU for one vCPU is a `Vpmu`, a state dataclass (`services.state`): its fields are saved and restored, but for
those that are `derived`.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Protocol, Self, TypeAlias, TypeVar

from services._pmu import Burst
from services.boot import HostPolicy
from services.costs import Cost
from services.cpu import Call, Eventual, Row
from services.errors import UserError
from services.experiment import CpuSpec
from services.kvm.bill import Account
from services.kvm.declared import Declared
from services.kvm.errors import ProtocolError
from services.kvm.guest_pmu import GuestPmu
from services.kvm.irqs import Irqs
from services.state import derived
from services.tables import near

E = TypeVar("E", bound=Enum)


class DesignError(UserError):
    """A design that cannot be had as asked for: an unknown axis or value, or a feature that the CPU lacks."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__("", problem, remedy)


Access: TypeAlias = Eventual[int]  # what an access gives; of a write it counts for nothing


class KvmVcpu(Protocol):
    """`struct kvm_vcpu` as a design sees it. What is asked of the CPU concerns the pCPU that the vCPU is on."""

    @property
    def id(self) -> int:
        """Of its thread on the host; a kernel counter's handle is `id << COUNTER_SHIFT | counter` (`services.cpu`)."""
        ...

    @property
    def pmu(self) -> GuestPmu:
        """The guest's registers in memory."""
        ...

    @property
    def spec(self) -> CpuSpec:
        """The pCPU's features."""
        ...

    @property
    def arm_pmu(self) -> int:
        """Which of the host's PMUs covers the pCPU."""
        ...

    @property
    def host_has_events(self) -> bool:
        """Does the host's perf have events of its own on the pCPU?"""
        ...

    @property
    def host_userenr(self) -> int:
        """PMUSERENR_EL0 as the host's driver wants it on the pCPU for the host's EL0, whoever's is in the register."""
        ...

    # In the step under way, between two of its operations: one that is not to be preempted turns that off
    # (preempt_disable), and what is to be on behind a local_irq_save is put back.
    preemptible: bool
    irqs: Irqs

    def kvm(self, burst: Burst, again: Callable[[], Burst] | None = None) -> Eventual[list[int]]:
        """Execute KVM's own accesses, at EL2; the values read. What is pending, and not masked in the step that makes
        them, is taken between two of them.

        If the step is preempted, `again` gives the same accesses with what memory has then.
        """
        ...

    def kvm_irqs_off(self, burst: Burst) -> list[int]:
        """As `kvm`, with every interrupt masked from the first to the last, a pseudo-NMI too: `local_irq_save` is what
        leaves that one."""
        ...

    async def read(self, register: int) -> int:
        """Execute one MRS of KVM's own, at EL2, once what is pending has been taken; if the step is preempted, on the
        pCPU that the vCPU is on then."""
        ...

    async def write(self, register: int, value: int) -> None:
        """Execute one MSR of KVM's own likewise."""
        ...

    async def charge(self, cost: Cost) -> None:
        """Software time of KVM's own, at whose end what is pending is taken."""
        ...

    def local_irq_save(self) -> Irqs:
        """From here on interrupts are off in the step under way, pseudo-NMIs aside; which were on before."""
        ...

    def call(
        self, rows: list[Row], account: Account = Account.PERF, *, calls: int = 0, reads: int = 0
    ) -> Eventual[list[int]]:
        """Kernel-counter operations of the host's perf (`services.cpu.Call`) in one entry; the results of its READs.

        `calls` is how many there are, 0 for one a row; `reads` how many of them are READs.
        """
        ...

    def peek(self, register: int) -> int:
        """A register of the CPU, without an access that counts or takes time."""
        ...

    def set_account(self, account: Account) -> int:
        """The account to which the host's cycles are charged from now on; the one before."""
        ...

    def deactivate_interrupt(self) -> None:
        """Deactivate the PMU's interrupt on the pCPU (ICC_DIR_EL1), if it is active there: `Vpmu.pmu_interrupt`."""
        ...

    def kick(self) -> None:
        """kvm_vcpu_kick: have the vCPU look at what is pending."""
        ...


@dataclass(slots=True)
class Swaps:
    """What loading and putting the guest's PMU context cost so far, in operations."""

    loads: int = 0
    puts: int = 0
    register_writes: int = 0
    register_reads: int = 0


@dataclass(eq=False)
class Vpmu(ABC):
    """One vCPU's PMU under a design. Called on the pCPU that the vCPU is on, at EL2."""

    # Whether KVM asks the guest's PMUSERENR_EL0 in memory if EL0 may make an access that has trapped. Elsewhere it is
    # the one on the CPU, which has let the access get as far as EL2.
    userenr_in_memory: ClassVar[bool] = False
    el0_checked_fast: ClassVar[bool] = True  # likewise of one that is `fast`

    # Registers whose writes load PMOVSSET_EL0 from memory and store it again as the last thing that an exit's cost
    # stands for: an interrupt in between is undone (`flags_loaded`).
    loads_flags: ClassVar[frozenset[int]] = frozenset()

    design: Design = derived()
    vcpu: KvmVcpu = derived()
    pmu: GuestPmu = derived(init=False)
    swaps: Swaps = field(default_factory=Swaps, init=False)
    fast_path: bool = derived(default=False, init=False)  # on this pCPU, while `fast`
    flags_loaded: int | None = derived(default=None, init=False)  # None: no interrupt has come since

    def __post_init__(self) -> None:
        self.derive()

    def derive(self) -> None:
        """Make anew what follows from the vCPU and the pCPU that it is on: after a restore, too."""
        self.pmu = self.vcpu.pmu

    def activate_traps(self) -> Eventual[None]:
        """What vcpu_load does before the EL0 filters of the host's events are switched (kvm_vcpu_load_vhe):
        `services.kvm.trap_setup`. A design may have it in its load."""
        return None

    @abstractmethod
    async def load(self) -> None:
        """vcpu_load, from there on."""

    def deactivate_traps(self) -> Eventual[None]:
        """What vcpu_put does before the EL0 filters of the host's events are switched (kvm_vcpu_put_vhe). A design may
        have it in its put."""
        return None

    @abstractmethod
    async def put(self) -> None:
        """vcpu_put, from there on."""

    def reload(self) -> Access:
        """KVM_REQ_RELOAD_PMU, at the first run and where the design `reloads_on_user_write`: what there is in the host
        for the guest's counters becomes what its registers in memory say."""
        return 0

    def user_read(self, n: int) -> Access:
        """Counter `n` as KVM_GET_ONE_REG finds it while the vCPU is not loaded (kvm_pmu_get_counter_value)."""
        return self.pmu.value(n)

    def user_wrote(self, n: int) -> None:  # noqa: B027 - most have no other copy
        """KVM_SET_ONE_REG has written counter `n` in memory."""

    def destroy(self) -> Access:
        """kvm_pmu_vcpu_destroy, after the last put: what there is in the host for it goes."""
        return 0

    async def enter(self) -> None:  # noqa: B027 - most have no more to do than at a load
        """Before each VM entry, under a design that is `at_entry`: interrupts are off."""

    async def leave(self) -> None:  # noqa: B027 - nor than at a put
        """And after each VM exit, before anything else."""

    @abstractmethod
    def access(self, register: int, write: bool, value: int) -> Access:
        """Emulate a trapped access; the value read. Raises InjectUndef, or RetryAccess to have it executed again."""

    @abstractmethod
    def level(self) -> Eventual[bool]:
        """Is the guest's PMU interrupt condition true (kvm_pmu_update_state)?

        Asked at every entry with a flag in `pmu.ovs`, with `HostPolicy.forwarded_irq` at every one, with interrupts on;
        under a design with `status_on_cpu` at every entry and exit, at that with interrupts masked.
        """

    def el0_disabled(self, register: int, write: bool) -> bool:
        """check_pmu_access_disabled, of an access that EL0 has made and that has trapped."""
        return self.userenr_in_memory and not self.pmu.el0_may(register, write=write)

    def el0_disabled_fast(self, register: int, write: bool) -> bool:
        """The same of one that is `fast`."""
        return self.el0_checked_fast and self.el0_disabled(register, write)

    def counter_overflow(self, counter: int) -> None:
        """A backing kernel counter overflowed. Raises ProtocolError where there is none."""
        raise ProtocolError(f"no kernel counter backs counter {counter} of a guest under {self.design.name}")

    def guest_overflow(self, mask: int) -> Eventual[None]:
        """The host's handler found overflow flags, some of its policy's `guest_flags`, on the pCPU that this vCPU is
        loaded on. Interrupts are masked."""
        raise NotImplementedError(f"{self.design.name} has guest_flags in its HostPolicy, and no guest_overflow")

    def pmu_interrupt(self) -> bool:
        """The PMU's interrupt has been acknowledged (`HostPolicy.forwarded_irq`): is it the guest's? Until the design
        deactivates it, it is active, and not taken again."""
        raise NotImplementedError(f"{self.design.name} has forwarded_irq in its HostPolicy, and no pmu_interrupt")

    def eoi(self) -> None:  # noqa: B027 - most ask for the level at every entry
        """The guest has ended a PMU interrupt whose level was high as of its last entry."""

    def el0_switched(self) -> bool:
        """Are there events whose EL0 filter has to differ between host and guest?"""
        return self.vcpu.host_has_events

    def restore_el0(self, *, guest: bool) -> Eventual[list[int]]:
        """kvm_vcpu_pmu_restore_guest and kvm_vcpu_pmu_restore_host, where filters are switched."""
        return self.vcpu.call([(Call.EL0_FILTER, int(guest), 0, 0, 0)])

    def fast(self, register: int, write: bool) -> bool:
        """With a `fast_path`: is this trapped access completed now without leaving the hypervisor's own code?"""
        return True


class SetN(Enum):
    """How userspace sets PMCR_EL0.N."""

    ATTRIBUTE = "attribute"  # of the vCPU alone: KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS
    SETTABLE = "settable"  # by SET_ONE_REG too
    FIXED = "fixed"


@dataclass(frozen=True, slots=True)
class Axis:
    """One choice within a design."""

    values: tuple[Enum, ...]  # the default first
    why: str

    @property
    def texts(self) -> tuple[str, ...]:
        """The values as a user writes them."""
        return tuple(str(value.value) for value in self.values)


def axis(default: E, why: str, *, values: tuple[E, ...] = ()) -> E:
    """The field of a design that is an axis of it: `values` of the enum that it admits, all if none are named."""
    admitted = values or tuple(type(default))
    others = tuple(value for value in admitted if value is not default)
    found: E = field(default=default, metadata={"axis": Axis((default, *others), why)})
    return found


@dataclass(frozen=True, kw_only=True)
class Design(ABC):
    """A vPMU design with its axes chosen. Registered under the entry point group `pmulab.designs`."""

    name: ClassVar[str]
    why: ClassVar[str]

    # Its guests' interrupt condition is on the CPU: `Vpmu.level` is asked at every entry and exit, flag or no flag.
    status_on_cpu: ClassVar[bool] = False

    # Its PMU changes hands at every VM entry and exit (`Vpmu.enter`, `Vpmu.leave`); an access is always awaited.
    at_entry: ClassVar[bool] = False

    # Do registers that are UNKNOWN at reset start with KVM's pattern (reset_unknown), and not with 0?
    resets_unknown: ClassVar[bool] = True

    # Does it enforce the VM's event filter (KVM_ARM_VCPU_PMU_V3_FILTER)?
    filters_events: ClassVar[bool] = True

    # Does the host's driver read reserved_host_counters under it?
    parameter: ClassVar[bool] = False

    # Much of it is inferred: it is said wherever its name is printed.
    unverified: ClassVar[bool] = False

    guest_range: int = 0  # the counters that the machine's guests want, one bit each

    @classmethod
    def axes(cls) -> dict[str, Axis]:
        """The design's axes by name."""
        return {one.name: one.metadata["axis"] for one in dataclasses.fields(cls) if "axis" in one.metadata}

    @classmethod
    def make(cls, chosen: Mapping[str, str], guest_range: int = 0) -> Self:
        """The design with `chosen` axes, defaults for the others. Raises DesignError."""
        axes = cls.axes()
        values: dict[str, Any] = {}
        for name, text in chosen.items():
            if name not in axes:
                raise DesignError(f"design {cls.name!r} has no axis {name!r}", cls.known_axes())
            found = next((value for value in axes[name].values if value.value == text), None)
            if found is None:
                raise DesignError(*cls._refused(name, text))
            values[name] = found
        return cls(guest_range=guest_range, **values)

    @classmethod
    def _refused(cls, axis: str, text: str) -> tuple[str, str]:
        """Why it does not admit this value of an axis, and what would do: of a preset, the design that it is of."""
        texts = cls.axes()[axis].texts
        for wider in cls.__bases__:
            if issubclass(wider, Design) and axis in wider.axes() and text in wider.axes()[axis].texts:
                fixed = f"{axis}={'|'.join(texts)}"
                return (
                    f"{cls.name!r} is {wider.name!r} with {fixed}, which {axis}={text} contradicts",
                    f"write {wider.name},{axis}={text}",
                )
        return f"axis {axis!r} of design {cls.name!r} has no value {text!r}", near(text, texts)

    @classmethod
    def known_axes(cls) -> str:
        """What axes there are to choose from, as a remedy."""
        axes = {name: one for name, one in cls.axes().items() if len(one.texts) > 1}
        if not axes:
            return f"{cls.name} has no axes: write {cls.name} alone"
        return "its axes are " + ", ".join(f"{name}={'|'.join(one.texts)}" for name, one in axes.items())

    def chosen(self) -> dict[str, str]:
        """Every axis of the design with its value, as a user writes them."""
        return {name: getattr(self, name).value for name in self.axes()}

    def nr_counters(self, cpus: Sequence[CpuSpec], wanted: int) -> int:
        """The event counters that a VM gets which may run on `cpus`, where userspace wants `wanted`."""
        return wanted

    def host_keeps(self, cpu: CpuSpec, counters: int) -> int | None:
        """The event counters of `cpu` that are the host's while a guest with `counters` of them is loaded; None where
        the two have no parts of their own."""
        return None

    @abstractmethod
    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        """What it falls back on for a guest with `counters` event counters on `cpu`, in words. Raises DesignError."""

    @abstractmethod
    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        """What it asks of the host's PMU driver on `cpu`."""

    @property
    def declared(self) -> tuple[Declared, ...]:
        """The invariants that it gives up by its nature: found and printed all the same, and not counted."""
        return ()

    @property
    def set_n(self) -> SetN:
        """How userspace sets PMCR_EL0.N."""
        return SetN.SETTABLE

    @property
    def per_vcpu_traps(self) -> bool:
        """Is it of the kernels of 2026, which keep the fine-grained traps per vCPU (`services.kvm.trap_setup`)?"""
        return False

    @property
    def parameter_writable(self) -> bool:
        """Can an operator write `reserved_host_counters` while VMs run (`services.kvm.parameter`)?"""
        return False

    @property
    def any_pmu(self) -> bool:
        """Do its backing events count on the CPUs of all PMUs of the host, each made anew where the vCPU comes to
        another's, instead of on those of the VM's own?"""
        return False

    @property
    def one_pmu(self) -> bool:
        """Has the VMM to name the VM's PMU, so that its vCPUs run on the CPUs of that one alone?"""
        return False

    @property
    def user_views_assign(self) -> bool:
        """Is each view of PMCNTEN, PMINTEN and PMOVS assigned by KVM_SET_ONE_REG (6.15)? Up to 6.12 what sets bits for
        a guest does for the VMM, and what clears bits clears."""
        return True

    @property
    def reloads_on_user_write(self) -> bool:
        """Is KVM_REQ_RELOAD_PMU made by each KVM_SET_ONE_REG (6.15)? At the first run it is anyhow."""
        return True

    @abstractmethod
    def vpmu(self, vcpu: KvmVcpu) -> Vpmu:
        """This design's PMU for a vCPU."""
