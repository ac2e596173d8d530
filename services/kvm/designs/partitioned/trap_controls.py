"""What traps while a vCPU with a partitioned PMU is loaded."""

from __future__ import annotations

from enum import Enum

from services import registers as r
from services.experiment import CpuSpec
from services.kvm.designs.partitioned.guest_range import GuestRange, unhidden
from services.kvm.trap_setup import NONE, FineGrained
from services.kvm.vpmu import DesignError

# What stays trapped under FEAT_FGT: overflow flags, for injection; event types, for the filter and to forbid
# counting at EL2; PMCEID and PMMIR, which would show the host's hardware.
TRAPPED_WRITES = r.HDFG_PMOVS | r.HDFG_PMEVTYPERN | r.HDFG_PMCCFILTR
TRAPPED_READS = TRAPPED_WRITES | r.HDFGRTR_PMCEIDN | r.HDFGRTR_PMMIR

FINE_GRAINED = FineGrained(TRAPPED_READS, TRAPPED_WRITES, hides=True)
WITH_PMICNTR = FINE_GRAINED._replace(hides=False)  # v1, whose guests may have it

# And until HPMN is the VM's number of counters, where it grows, whatever could meet one above it.
COUNTERS = r.HDFG_PMEVCNTRN | r.HDFG_PMCNTEN | r.HDFG_PMINTEN
UNTIL_FULL = FineGrained(COUNTERS, COUNTERS)

# And of a guest whose event counters are narrower than the CPU's, what reads them. Linux puts a pair that chains
# together with `|`, and bit 32 of the lower would count 2^32 that the upper counts too.
NARROW = FineGrained(r.HDFG_PMEVCNTRN)

NOTHING_AT_EL2 = r.MDCR_EL2_HPMD | r.MDCR_EL2_HCCD


class Traps(Enum):
    """How most accesses come not to trap, or who completes them if they do."""

    FGT = "fgt"
    FAST_PATH = "fast-path"
    SLOW_PATH = "slow-path"


TRAPS = "FEAT_FGT untraps most accesses; or TPM traps them all, completed in the hypervisor or in the host kernel"
TRAPS_OF_VERSION = "FEAT_FGT untraps most accesses; or what this version does where there is none"


def free(cpu: CpuSpec) -> int:
    """MDCR_EL2 of a vCPU whose registers are not on the CPU: everything traps, nothing is split off."""
    return r.PMU_TRAPS | cpu.counters


def owned(on: GuestRange) -> int:
    """MDCR_EL2 of a vCPU whose registers are on the CPU, but for HPME (kvm_arm_setup_mdcr_el2)."""
    value = on.hpmn if on.split else on.cpu.counters
    if on.cpu.pmuver >= r.PMUVER_P1 and on.split:
        value |= r.MDCR_EL2_HPMD  # nothing in the guest's range counts at EL2
    if on.cpu.pmuver >= r.PMUVER_P5:
        value |= r.MDCR_EL2_HCCD  # nor does the cycle counter
    return value if on.untrapped else value | r.PMU_TRAPS


def fine_grained(used: bool, more: FineGrained = NONE) -> FineGrained:
    """The fine-grained traps, and `more`, or none."""
    if not used:
        return NONE
    return FineGrained(TRAPPED_READS | more.reads, TRAPPED_WRITES | more.writes, hides=True)


def nothing_at_el2(cpu: CpuSpec) -> int:
    """HPMD and HCCD where the CPU has them."""
    value = r.MDCR_EL2_HPMD if cpu.pmuver >= r.PMUVER_P1 else 0
    return value | r.MDCR_EL2_HCCD if cpu.pmuver >= r.PMUVER_P5 else value


def check(traps: Traps, cpu: CpuSpec, counters: int) -> list[str]:
    """`Design.check` for a partition of `counters` event counters."""
    if counters > cpu.counters:
        raise DesignError(
            f"HPMN {counters} is above the {cpu.counters} event counters of {cpu.model}",
            f"give the guest at most {cpu.counters} counters",
        )
    fallbacks = []
    if traps is Traps.FGT and not cpu.fgt:
        fallbacks.append(f"{cpu.model} has no FEAT_FGT: every PMU access traps (MDCR_EL2.TPM)")
    elif traps is Traps.FGT and (shown := unhidden(cpu)):
        fallbacks.append(f"{cpu.model} has no FEAT_FGT2 to hide {shown} with: every PMU access traps")
    if traps is Traps.FAST_PATH and cpu.pmuver < r.PMUVER_P1:
        raise DesignError(f"traps=fast-path needs FEAT_PMUv3p1, which {cpu.model} lacks", "use traps=slow-path")
    if counters == 0 and not cpu.hpmn0:
        fallbacks.append(f"{cpu.model} has no FEAT_HPMN0: HPMN stays {cpu.counters} and every PMU access traps")
    return fallbacks
