"""kvm_pmu_load() and kvm_pmu_put() step by step, each whose it is."""

from __future__ import annotations

from collections.abc import Callable

from services import registers as r
from services.kvm.designs.partitioned import swap
from services.kvm.designs.partitioned.by_steps.steps import OWN, V1_TO_V4, V1_TO_V5, V6_TO_V7, V8_TO_V9, Of, Steps
from services.kvm.designs.partitioned.swap import SwapIn, SwapOut

_HARDWARE_TYPE = {
    OWN: swap.enforced,
    **dict.fromkeys((Of.V2, Of.V3, Of.V4), swap.whole_type_denied_in_memory),
    **dict.fromkeys((Of.V5, *V8_TO_V9), swap.without_el2),
}


def load(steps: Steps, into: SwapIn, *, icntr: int, host_pmcr: int) -> None:
    """`host_pmcr`: the host's PMCR_EL0, as far as it is kept."""
    if steps.load_pmevtyper in _HARDWARE_TYPE:
        into.types(_HARDWARE_TYPE[steps.load_pmevtyper])
    elif steps.load_pmevtyper in V6_TO_V7:
        into.types_by_selr(_cycles_type(steps.load_pmevtyper))
    if steps.load_pmevcntr in V6_TO_V7:
        into.counters_by_selr(_cycles(steps.load_pmevcntr))
    elif steps.load_pmevcntr is OWN:
        into.counters(into.pmu.width)
    else:
        into.counters()
    if steps.reserve is Of.V1:
        into.icntr(icntr)
    if steps.pmuserenr in V1_TO_V5:
        into.userenr()
    into.selr()
    if steps.load_pmcr in V1_TO_V4:
        into.pmcr_raw()
    elif steps.load_pmcr is OWN:
        into.pmcr(host_pmcr, into.pmu.pmcr_writable)
    else:
        into.pmcr(host_pmcr)
    if steps.load_pmovs is OWN:
        into.overflows()
    elif steps.load_pmovs not in V1_TO_V5:
        into.clear_overflows()
    into.cnten()
    into.inten()
    if steps.pmuserenr is OWN:
        into.userenr()


def put(steps: Steps, out: SwapOut, *, keep_icntr: Callable[[int], None], host_userenr: int, host_pmcr: int) -> None:
    """Likewise; the host's PMUSERENR_EL0 and PMCR_EL0 are what it gets back here."""
    if steps.put_pmevcntr in V6_TO_V7:
        out.counters_by_selr(_cycles(steps.put_pmevcntr))
    else:
        out.counters()
    if steps.reserve is Of.V1:
        out.icntr(keep_icntr)
    if steps.pmuserenr in V1_TO_V5:
        out.userenr()
    out.selr()
    out.pmcr()
    out.cnten()
    out.inten()
    own = steps.put_pmovs is OWN
    if own:
        out.overflows()
    elif steps.put_pmovs in V8_TO_V9:
        out.drain()
    if steps.pmuserenr is OWN:
        out.userenr()
    if own:
        out.clear_overflows()
    if steps.put_pmcnten is OWN:
        out.disable()
    if steps.pmuserenr is OWN:
        out.host(r.PMUSERENR_EL0, host_userenr)
    if steps.host_pmcr is OWN:
        out.host(r.PMCR_EL0, host_pmcr)


def _cycles(version: Of) -> int:
    return r.PMXEVCNTR_EL0 if version is Of.V6 else r.PMCCNTR_EL0


def _cycles_type(version: Of) -> int:
    return r.PMXEVTYPER_EL0 if version is Of.V6 else r.PMCCNTR_EL0
