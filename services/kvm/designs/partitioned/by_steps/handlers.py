"""The handlers of trapped accesses, by step: what a version has of them in its table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services import registers as r
from services.kvm.designs.partitioned import accessors, by_selr, v1, v2, v5, v9
from services.kvm.designs.partitioned.accesses import Accesses
from services.kvm.designs.partitioned.by_steps.steps import Of

_COUNTERS = (*map(r.PMEVCNTR, range(r.EVENT_COUNTERS)), r.PMCCNTR_EL0, r.PMXEVCNTR_EL0)
_TYPES = (*map(r.PMEVTYPER, range(r.EVENT_COUNTERS)), r.PMCCFILTR_EL0, r.PMXEVTYPER_EL0)
_CNTEN, _INTEN = (r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0), (r.PMINTENSET_EL1, r.PMINTENCLR_EL1)

READS: Mapping[str, tuple[int, ...]] = {
    "read_pmevcntr": _COUNTERS,
    "read_pmevtyper": _TYPES,
    "read_pmcr": (r.PMCR_EL0,),
    "read_pmovs": (r.PMOVSSET_EL0, r.PMOVSCLR_EL0),
    "read_pmcnten": _CNTEN,
    "read_pminten": _INTEN,
    "read_pmselr": (r.PMSELR_EL0,),
    "read_pmuserenr": (r.PMUSERENR_EL0,),
    "read_pmceid": (r.PMCEID0_EL0, r.PMCEID1_EL0),
}
WRITES: Mapping[str, tuple[int, ...]] = {
    "write_pmevcntr": _COUNTERS,
    "write_pmevtyper": _TYPES,
    "write_pmcr": (r.PMCR_EL0,),
    "write_pmovsset": (r.PMOVSSET_EL0,),
    "write_pmovsclr": (r.PMOVSCLR_EL0,),
    "write_pmcnten": _CNTEN,
    "write_pminten": _INTEN,
    "write_pmswinc": (r.PMSWINC_EL0,),
    "write_pmselr": (r.PMSELR_EL0,),
    "write_pmuserenr": (r.PMUSERENR_EL0,),
}

# The handlers of sys_regs.c, but those that kvm_hyp_handle_pmu_regs() has for the same registers; of v6 these are HYP.
_TABLES = {
    Of.V1: v1.ACCESSES,
    Of.V2: v2.ACCESSES,
    Of.V3: v2.ACCESSES,
    Of.V4: v2.ACCESSES,
    Of.V5: v5.ACCESSES,
    Of.V6: by_selr.V6,
    Of.V7: by_selr.V7,
    Of.V8: accessors.V8,
    Of.V9: v9.ACCESSES,
}


def handlers(own: Accesses, whose: Mapping[str, Of], *, fast: bool = False) -> Accesses:
    """`own`, and of each step that is a version's that one's; `fast`: as its hypervisor completes them (v6)."""
    return own | Accesses(
        {register: table.reads[register] for table, register in _of(READS, whose, fast) if register in table.reads},
        {register: table.writes[register] for table, register in _of(WRITES, whose, fast) if register in table.writes},
    )


def _of(steps: Mapping[str, tuple[int, ...]], whose: Mapping[str, Of], fast: bool) -> Iterable[tuple[Accesses, int]]:
    for step, registers in steps.items():
        if step in whose:
            version = whose[step]
            table = _TABLES[version] | by_selr.HYP if fast and version is Of.V6 else _TABLES[version]
            yield from ((table, register) for register in registers)
