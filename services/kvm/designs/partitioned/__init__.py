"""Partitioned vPMUs: MDCR_EL2.HPMN gives the guest [0, HPMN) and the cycle counter, the host keeps the rest.

After the posted series "ARM64 PMU Partitioning": a file for each of its versions, which is what that version does, its
faults included, as a list of shared steps; and `reviewed.py`, what its reviews asked for. They build upon

    guest_range.py    what of a CPU's PMU is a guest's
    trap_controls.py  what traps: MDCR_EL2, and what is left of it for want of a feature
    context.py        where the live copy of a guest's registers is
    swap.py           the steps of kvm_pmu_load() and kvm_pmu_put()
    posted.py         what the posted designs have in common
    up_to_v5.py       what v1 to v5 have, whose partition is the guests' from boot on
    backed.py         the kernel counters that a restored guest has besides
    growth.py         a range that grows as the guest uses its counters
    host_pmcr.py      the host's PMCR_EL0 meanwhile
    accesses.py       what trapped accesses do
    write_through.py, by_selr.py, accessors.py    the same up to v5, in v6 and v7, and from v8 on

`by_steps` is `partitioned` with steps of these versions in the place of its own.
"""

from services.kvm.designs.partitioned.by_steps import BySteps
from services.kvm.designs.partitioned.reviewed import Partitioned
from services.kvm.designs.partitioned.v1 import V1
from services.kvm.designs.partitioned.v2 import V2
from services.kvm.designs.partitioned.v3 import V3
from services.kvm.designs.partitioned.v4 import V4
from services.kvm.designs.partitioned.v5 import V5
from services.kvm.designs.partitioned.v6 import V6
from services.kvm.designs.partitioned.v7 import V7
from services.kvm.designs.partitioned.v8 import V8
from services.kvm.designs.partitioned.v9 import V9

VERSIONS = (V1, V2, V3, V4, V5, V6, V7, V8, V9)

UNLISTED = (BySteps,)  # there by name alone

__all__ = ["UNLISTED", "VERSIONS", "Partitioned"]
