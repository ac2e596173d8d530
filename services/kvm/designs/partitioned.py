"""`partitioned`: MDCR_EL2.HPMN gives the guest [0, HPMN) and the cycle counter, the host keeps the rest.

After the posted series "ARM64 PMU Partitioning". The default of each axis is what the series' reviews asked
for; the other values are what posted versions did (`designs/presets.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from services.boot import HostPolicy
from services.experiment import CpuSpec
from services.kvm.designs.partitioned_pmu import PartitionedPmu
from services.kvm.guest_pmu import CYCLE_BIT, PMUVER_P1
from services.kvm.vpmu import Design, DesignError, KvmVcpu, SetN, axis


class Swap(Enum):
    EAGER = "eager"
    LAZY = "lazy"
    LAZY_STICKY = "lazy-sticky"


class Traps(Enum):
    FGT = "fgt"
    FAST_PATH = "fast-path"
    SLOW_PATH = "slow-path"


class WithoutFgt(Enum):
    SLOW_PATH = "slow-path"
    FAST_PATH = "fast-path"
    UNSPLIT = "unsplit"
    NEVER_RESIDENT = "never-resident"


class Reservation(Enum):
    STATIC = "static"
    DYNAMIC = "dynamic"


class Pmcr(Enum):
    UNTRAPPED = "untrapped"
    TRAPPED = "trapped"


class Typer(Enum):
    WRITE_THROUGH = "write-through"
    AT_LOAD = "at-load"


class El2(Enum):
    EXCLUDED = "excluded"
    AS_WRITTEN = "as-written"


class Pmovs(Enum):
    FOLDED = "folded"
    MEMORY = "memory"


class Userenr(Enum):
    SWAPPED = "swapped"
    LEFT = "left"


class HostPmcr(Enum):
    RESTORED = "restored"
    LEFT = "left"


class HostStop(Enum):
    HPME = "hpme"
    PMCR = "pmcr"


class Filters(Enum):
    KEPT = "kept"
    UNDONE = "undone"


class Hpme(Enum):
    SET = "set"
    MISSING = "missing"


class Free(Enum):
    CLEAN = "clean"
    BLIND = "blind"


class Transition(Enum):
    RELOAD = "reload"
    NONE = "none"


class Irq(Enum):
    SPLIT = "split"
    WHOLE = "whole"


class Allocation(Enum):
    LOW_TO_HIGH = "low-to-high"
    HIGH_TO_LOW = "high-to-low"


@dataclass(frozen=True, kw_only=True)
class Partitioned(Design):
    """MDCR_EL2.HPMN gives the guest a range of the real counters."""

    name = "partitioned"
    why = "the guest owns counters [0, HPMN) of the hardware; most of its accesses need no trap"
    swap: Swap = axis(
        Swap.EAGER,
        "when the guest's registers go onto the CPU: at each load; at a load if in use, else at the first "
        "access since; from the first access on, for the vCPU's life",
    )
    traps: Traps = axis(
        Traps.FGT,
        "FEAT_FGT untraps most accesses; or TPM traps them all, completed in the hypervisor or in the host kernel",
    )
    without_fgt: WithoutFgt = axis(
        WithoutFgt.SLOW_PATH,
        "what traps=fgt falls back to: the host kernel (v7), the hypervisor (v2-v6), HPMN stays N too (v8), "
        "or nothing that reaches the CPU (v5)",
    )
    reservation: Reservation = axis(
        Reservation.STATIC, "when the host gives the guest's range up: at boot, or while a vCPU is resident"
    )
    pmcr: Pmcr = axis(Pmcr.UNTRAPPED, "PMCR_EL0.N as HPMN has it, or by TPMCR as userspace set it")
    typer: Typer = axis(
        Typer.WRITE_THROUGH, "when a PMEVTYPER write reaches the CPU: at once (v1-v5), at the next load (v6-v8)"
    )
    el2: El2 = axis(El2.EXCLUDED, "a guest's wish to count at EL2 is masked, or not (v1)")
    pmovs: Pmovs = axis(
        Pmovs.FOLDED, "a trapped PMOVS access sees the CPU's flags too, or only those in memory (v6-v8)"
    )
    userenr: Userenr = axis(Userenr.SWAPPED, "PMUSERENR_EL0 is part of the swap (v1-v5) or not (v6-v8)")
    host_pmcr: HostPmcr = axis(
        HostPmcr.RESTORED,
        "at put PMCR_EL0 is what the host had, or stays the guest's, whose E=0 then stops the host (v1-v8)",
    )
    host_stop: HostStop = axis(
        HostStop.HPME,
        "while a guest is resident the host's driver stops its range by MDCR_EL2.HPME, or all by PMCR_EL0.E",
    )
    filters: Filters = axis(
        Filters.KEPT, "the EL0 filters of host events that a reservation reschedules: flipped again, or not (v7, v8)"
    )
    hpme: Hpme = axis(Hpme.SET, "MDCR_EL2.HPME while loaded: without it the host's counters stop (v1-v4)")
    free: Free = axis(Free.CLEAN, "while not resident the host counts at EL2, or HPMD and HCCD forbid it (v5-v8)")
    transition: Transition = axis(
        Transition.RELOAD, "does a lazy transition load the guest's state, or only change the traps (v7, v8)?"
    )
    n: SetN = axis(
        SetN.ATTRIBUTE,
        "PMCR_EL0.N: by the number-of-counters attribute (v6-v8), also by SET_ONE_REG (v2-v5), or the host's "
        "one partition (v1)",
    )
    irq: Irq = axis(
        Irq.SPLIT, "the host's handler clears the guest's flags after its own events (v6-v8), or all at once (v1-v5)"
    )
    allocation: Allocation = axis(
        Allocation.LOW_TO_HIGH, "the order in which the host's driver allocates its event counters (v8)"
    )

    def every_axis(self) -> dict[str, str]:
        """Every axis of this design; those that a design built on it does not offer are at their defaults."""
        return {name: getattr(self, name).value for name in Partitioned.axes()}

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        if counters > cpu.counters:
            raise DesignError(
                f"HPMN {counters} is above the {cpu.counters} event counters of {cpu.model}",
                f"give the guest at most {cpu.counters} counters",
            )
        fallbacks = []
        if self.traps is Traps.FGT and not cpu.fgt:
            fallbacks.append(f"{cpu.model} has no FEAT_FGT: every PMU access traps (MDCR_EL2.TPM)")
        elif self.traps is Traps.FGT and cpu.icntr and cpu.fgt < 2:
            fallbacks.append(f"{cpu.model} has no FEAT_FGT2 to hide PMICNTR_EL0 with: every PMU access traps")
        if self.traps is Traps.FAST_PATH and cpu.pmuver < PMUVER_P1:
            raise DesignError(f"traps=fast-path needs FEAT_PMUv3p1, which {cpu.model} lacks", "use traps=slow-path")
        if counters == 0 and not cpu.hpmn0:
            fallbacks.append(f"{cpu.model} has no FEAT_HPMN0: HPMN stays {cpu.counters} and every PMU access traps")
        return fallbacks

    @property
    def partition(self) -> int:
        """Event counters in the range that the guests want."""
        return (self.guest_range & ~CYCLE_BIT).bit_count()

    def host_counters(self, cpu: CpuSpec) -> int:
        """The counters that the host's driver may allocate while no vCPU is loaded, one bit each."""
        everything = ((1 << cpu.counters) - 1) | CYCLE_BIT
        return everything if self.reservation is Reservation.DYNAMIC else everything & ~self.guest_range

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        return HostPolicy(
            self.host_counters(cpu),
            high_to_low=self.allocation is Allocation.HIGH_TO_LOW,
            split_irq=self.irq is Irq.SPLIT,
        )

    @property
    def set_n(self) -> SetN:
        return self.n

    def vpmu(self, vcpu: KvmVcpu) -> PartitionedPmu:
        return PartitionedPmu(self, vcpu)
