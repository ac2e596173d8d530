"""The trap set-up around a load, and MDCR_EL2 field by field, each whose it is."""

from __future__ import annotations

from services import registers as r
from services.cpu import Eventual
from services.kvm.designs.partitioned import trap_controls, up_to_v5
from services.kvm.designs.partitioned.by_steps.steps import OWN, V1_TO_V5, V6_TO_V7, V8_TO_V9, Of
from services.kvm.designs.partitioned.by_steps.versions import Composed
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.designs.partitioned.guest_range import GuestRange
from services.kvm.designs.partitioned.host_pmcr import HostPmcr
from services.kvm.designs.partitioned.reviewed import Pmcr
from services.kvm.trap_setup import FineGrained, HostTraps
from services.kvm.vpmu import KvmVcpu

ENABLE = r.MDCR_EL2_HPME | r.MDCR_EL2_HLP
AT_EL2 = r.MDCR_EL2_HPMD | r.MDCR_EL2_HCCD


def mdcr(steps: Composed, context: PmuContext, own: GuestRange, host: HostPmcr) -> int:
    """kvm_arm_setup_mdcr_el2. `own`: the range that `partitioned` has."""
    value = 0
    for whose, mask in ((steps.mdcr_hpmn, r.MDCR_EL2_HPMN), (steps.mdcr_tpm, r.PMU_TRAPS)):
        value |= mask & (_own(steps, context, own) if whose is OWN else _of(whose, steps, context))
    split = value & r.MDCR_EL2_HPMN < own.cpu.counters
    enable = steps.mdcr_hpme
    value |= ENABLE & (_enable(steps, context, host, split) if enable is OWN else _of(enable, steps, context))
    el2 = steps.mdcr_el2
    if el2 is OWN or not (split or el2 in V8_TO_V9):  # up to v7 HPMD goes with an HPMN that is not N
        return value | AT_EL2 & _own(steps, context, own)
    return value | AT_EL2 & _of(el2, steps, context)


def _own(steps: Composed, context: PmuContext, own: GuestRange) -> int:
    """`PartitionedPmu._mdcr`, and `_free_mdcr`."""
    if not context.owned:
        return trap_controls.free(own.cpu)
    pmcr = 0 if steps.pmcr is Pmcr.UNTRAPPED and context.full else r.MDCR_EL2_TPMCR
    return trap_controls.owned(own) | pmcr


def _enable(steps: Composed, context: PmuContext, host: HostPmcr, split: bool) -> int:
    """HPME and HLP: by the host's PMCR_EL0, and where that is not kept what the host's driver has there as it counts.
    `split`: a version's HPMN is not N, be the vCPU FREE."""
    if not (context.owned or split):
        return 0
    if steps.host_pmcr is OWN:
        return host.hpme(context) | host.hlp(context)
    return r.MDCR_EL2_HPME | (r.MDCR_EL2_HLP if context.on.cpu.pmuver >= r.PMUVER_P5 else 0)


def _of(version: Of, steps: Composed, context: PmuContext) -> int:
    """The version's."""
    design, cpu, n = steps.of(version), context.vcpu.spec, context.pmu.counters
    in_partition = min(design.guest_counters(cpu), cpu.counters)
    untrapped = context.owned and design.fine_grained(cpu, in_partition if version is Of.V1 else n)
    value = 0 if untrapped else r.PMU_TRAPS
    if version in V8_TO_V9:
        return value | r.MDCR_EL2_HPME | AT_EL2 | (n if untrapped else cpu.counters)
    value |= trap_controls.nothing_at_el2(cpu)
    if version is Of.V1:
        return value & ~r.MDCR_EL2_HCCD | in_partition
    if version in V6_TO_V7:
        return value | r.MDCR_EL2_HPME | (n if n or cpu.hpmn0 else cpu.counters)
    return value | up_to_v5.hpmn(cpu, n, in_partition) | (r.MDCR_EL2_HPME if version is Of.V5 else 0)


def activate(steps: Composed, vcpu: KvmVcpu, host: HostTraps, value: int, context: PmuContext) -> Eventual[None]:
    """__activate_traps_common of a version, with this MDCR_EL2."""
    userenr = steps.pmuserenr not in (OWN, Of.V5)
    if steps.trap_set_up in V8_TO_V9:
        return host.load_2026(vcpu, value, trap_controls.FINE_GRAINED, userenr=userenr)
    selr = steps.trap_set_up is not Of.V5
    return host.load_6_12(vcpu, value, _fine_grained(steps, vcpu, context), selr=selr, userenr=userenr)


def deactivate(steps: Composed, vcpu: KvmVcpu, host: HostTraps, context: PmuContext) -> Eventual[None]:
    """Its opposite."""
    userenr = steps.pmuserenr not in (OWN, Of.V5)
    if steps.trap_set_up in V8_TO_V9:
        return host.put_2026(vcpu, userenr=userenr)
    return host.put_6_12(vcpu, _fine_grained(steps, vcpu, context), userenr=userenr)


def _fine_grained(steps: Composed, vcpu: KvmVcpu, context: PmuContext) -> FineGrained:
    version = steps.trap_set_up
    if version not in V1_TO_V5 or version is Of.V5:
        return trap_controls.FINE_GRAINED
    of_version = steps.of(version)
    used = of_version.fine_grained(vcpu.spec, context.on.hpmn if version is Of.V1 else context.pmu.counters)
    if version is Of.V1 and used:
        return trap_controls.WITH_PMICNTR
    return trap_controls.fine_grained(used)
