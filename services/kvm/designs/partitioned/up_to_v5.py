"""What v1 to v5 have in common: the partition is the guests' from boot on; most of what a load and a put consist of."""

from __future__ import annotations

from collections.abc import Callable

from services import registers as r
from services.boot import HostPolicy
from services.experiment import CpuSpec
from services.kvm.designs.partitioned import trap_controls
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.guest_range import every_counter, guest_flags, partition
from services.kvm.designs.partitioned.swap import SwapIn, SwapOut


def host_policy(cpu: CpuSpec, counters: int, *, hpme: bool) -> HostPolicy:
    """The host's handler clears all overflow flags at once. `hpme`: its driver starts and stops by that, too (v3)."""
    guests = partition(cpu, counters).mask
    return HostPolicy(every_counter(cpu) & ~guests, guest_flags(cpu, guests), hpme=hpme)


def hpmn(cpu: CpuSpec, counters: int, in_partition: int) -> int:
    """kvm_pmu_hpmn: a VM's number of counters, but no more than the partition has; all of it where 0 cannot be."""
    at_most = min(counters, in_partition)
    return at_most if at_most or cpu.hpmn0 else in_partition


def mdcr(context: PmuContext, *, untrapped: bool) -> int:
    """kvm_arm_setup_mdcr_el2 of v2 to v5, but for HPME, which v5 is the first to set: up to v4 the host's counters
    stop."""
    cpu = context.vcpu.spec
    traps = 0 if untrapped else r.PMU_TRAPS
    return hpmn(cpu, context.pmu.counters, context.on.hpmn) | traps | trap_controls.nothing_at_el2(cpu)


def registers_in(swap_in: SwapIn, pmcr: Callable[[SwapIn], None]) -> None:
    """What kvm_pmu_load() ends with, behind the counters."""
    swap_in.userenr()
    swap_in.selr()
    pmcr(swap_in)
    swap_in.cnten()
    swap_in.inten()


def swap_out(context: PmuContext, keep_icntr: Callable[[int], None] | None = None) -> SwapOut:
    """The list of kvm_pmu_put(), which up to v4 finds the host's PMUSERENR_EL0. PMCNTEN and PMINTEN stay as the guest
    had them. In v1 PMICNTR_EL0 is in it."""
    out = SwapOut(context)
    out.counters()
    if keep_icntr is not None:
        out.icntr(keep_icntr)
    out.userenr()
    out.selr()
    out.pmcr()
    out.cnten()
    out.inten()
    return out
