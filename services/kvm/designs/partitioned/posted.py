"""What the designs of the posted versions have in common: the partition that the host's boot parameter makes."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from services import registers as r
from services.cpu import Eventual
from services.experiment import CpuSpec
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.guest_range import check_partition, clamped, left_to_guests
from services.kvm.designs.partitioned.trap_controls import Traps
from services.kvm.vpmu import Design, DesignError
from services.registers import CYCLE_BIT


@dataclass(frozen=True, kw_only=True)
class Posted(Design):
    """A version of the series."""

    # kvm_pmu_part_overflow_status() reads PMINTENSET_EL1 and PMCR_EL0.
    status_on_cpu: ClassVar[bool] = True

    parameter: ClassVar[bool] = True

    # kvm_pmu_hpmn gives 0 for a partition without event counters, on a CPU without FEAT_HPMN0, too.
    hpmn_unchecked: ClassVar[bool] = False

    traps: Traps = Traps.FGT  # an axis of each version

    def guest_counters(self, cpu: CpuSpec) -> int:
        """How many event counters guests are given of the PMU of `cpu`."""
        guests = left_to_guests(cpu, self.guest_range) if self.parameter else self.guest_range
        return (guests & ~CYCLE_BIT).bit_count()

    def nr_counters(self, cpus: Sequence[CpuSpec], wanted: int) -> int:
        return clamped(cpus, wanted) if self.parameter else wanted

    def host_keeps(self, cpu: CpuSpec, counters: int) -> int | None:
        return cpu.counters - min(self.guest_counters(cpu), cpu.counters)

    def fine_grained(self, cpu: CpuSpec, hpmn: int) -> bool:
        """kvm_vcpu_pmu_use_fgt, whatever the vCPU's state: HPMN can be the VM's number, and FEAT_FGT is there."""
        return self.traps is Traps.FGT and bool(cpu.fgt) and bool(hpmn or cpu.hpmn0)

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        if self.parameter:
            check_partition(cpu)
        if counters > cpu.counters:
            raise DesignError(
                f"HPMN {counters} is above the {cpu.counters} event counters of {cpu.model}",
                f"give the guest at most {cpu.counters} counters",
            )
        if self.traps is Traps.FAST_PATH and cpu.pmuver < r.PMUVER_P1:
            raise DesignError(f"traps=fast-path needs FEAT_PMUv3p1, which {cpu.model} lacks", "name a core that has it")
        fallbacks = []
        if self.traps is Traps.FGT and not cpu.fgt:
            fallbacks.append(f"{cpu.model} has no FEAT_FGT: every PMU access traps (MDCR_EL2.TPM)")
        if counters == 0 and not cpu.hpmn0:
            fallbacks.append(f"{cpu.model} has no FEAT_HPMN0: every PMU access traps")
        if self.hpmn_unchecked and not cpu.hpmn0 and not self.guest_counters(cpu):
            fallbacks.append(
                f"it sets MDCR_EL2.HPMN to 0 all the same, which is UNPREDICTABLE: this CPU takes it as {cpu.counters}"
            )
        return fallbacks


def status(pmcr: int, inten: int, flags: int) -> bool:
    """Do flags of a guest's counters make its PMU's interrupt, by PMCR_EL0 and PMINTENSET_EL1?"""
    return bool(pmcr & r.PMCR_E and inten & flags)


def status_on_cpu(context: PmuContext) -> Eventual[bool]:
    """kvm_pmu_part_overflow_status: the flags in memory by the CPU's registers, which are read in any case."""
    enables = context.enables()
    if not isinstance(enables, list):
        return _status_later(context, enables)
    inten, pmcr = enables
    return status(pmcr, inten, context.pmu.ovs & context.on.mask)


async def _status_later(context: PmuContext, enables: Coroutine[Any, Any, list[int]]) -> bool:
    inten, pmcr = await enables
    return status(pmcr, inten, context.pmu.ovs & context.on.mask)
