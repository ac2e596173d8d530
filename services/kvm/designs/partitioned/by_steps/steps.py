"""The steps in which the posted versions differ from `partitioned`, each an axis: whose is it?

What a version does in a step is told in a few words, which is what a search says of a cause. Of PMCCNTR_EL0 and
PMCCFILTR_EL0 that is said with PMEVCNTR<n>_EL0 and PMEVTYPER<n>_EL0, and of PMX* too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from services.kvm.designs.partitioned.reviewed import Partitioned
from services.kvm.vpmu import Axis


class Of(Enum):
    """Whose a step is."""

    PARTITIONED = "partitioned"
    V1 = "v1"
    V2 = "v2"
    V3 = "v3"
    V4 = "v4"
    V5 = "v5"
    V6 = "v6"
    V7 = "v7"
    V8 = "v8"
    V9 = "v9"

    def up_to(self, last: Of) -> tuple[Of, ...]:
        every = tuple(Of)
        return every[every.index(self) : every.index(last) + 1]


OWN = Of.PARTITIONED
V1_TO_V3, V1_TO_V4, V1_TO_V5 = Of.V1.up_to(Of.V3), Of.V1.up_to(Of.V4), Of.V1.up_to(Of.V5)
V1_TO_V6, V1_TO_V7 = Of.V1.up_to(Of.V6), Of.V1.up_to(Of.V7)
V2_TO_V4, V2_TO_V5, V4_TO_V5 = Of.V2.up_to(Of.V4), Of.V2.up_to(Of.V5), Of.V4.up_to(Of.V5)
V6_TO_V7, V6_TO_V9, V7_TO_V8 = Of.V6.up_to(Of.V7), Of.V6.up_to(Of.V9), Of.V7.up_to(Of.V8)
V7_TO_V9, V8_TO_V9, V1_TO_V9 = Of.V7.up_to(Of.V9), Of.V8.up_to(Of.V9), Of.V1.up_to(Of.V9)

_SELR = "by PMSELR_EL0 and PMX*, PMSELR_EL0 put back"
_UNCHECKED = "any counter that is named, in the hypervisor's fast path"
_ALL_BITS = "all bits, in the hypervisor's fast path"


def step(what: str, does: Mapping[tuple[Of, ...], str]) -> Of:
    """`does`: what the versions do in it that do not what `partitioned` does."""
    told = {version: text for versions, text in does.items() for version in versions}
    values = (Of.PARTITIONED, *(version for version in Of if version in told))
    found: Of = field(default=Of.PARTITIONED, metadata={"axis": Axis(values, what), "does": told})
    return found


@dataclass(frozen=True, kw_only=True)
class Steps(Partitioned):
    """The design as a list of steps."""

    # What of a CPU's PMU is a guest's.

    nr_pmu_counters: Of = step(
        "nr_pmu_counters", {(Of.V7, Of.V9): "as many as the VM asks for, however few the PMU's partition has"}
    )
    set_nr_counters: Of = step(
        "PMCR_EL0.N as userspace may set it", {(Of.V1,): "fixed", V2_TO_V5: "by KVM_SET_ONE_REG, too"}
    )
    partition: Of = step(
        "mask of the guest's counters",
        {
            V1_TO_V5: "all but the host's part of the PMU, counters among it that do not exist",
            (Of.V6, Of.V8): "the PMU's partition, not the VM's number of counters",
            (Of.V7,): "the PMU's partition, without event counters every bit",
            (Of.V9,): "the VM's number of counters, split off without FEAT_HPMN0, too",
        },
    )
    pmcr_n: Of = step(
        "PMCR_EL0.N as a handler has it",
        {(Of.V1,): "the CPU's", V2_TO_V5: "the VM's, at most the partition's", V6_TO_V9: "the VM's"},
    )

    # The host's driver.

    reserve: Of = step(
        "kvm_pmu_set_guest_counters",
        {
            V1_TO_V6: "none: the host gives up the partition at boot",
            V7_TO_V8: "the PMU's partition; PMICNTR_EL0 stays the host's",
            (Of.V9,): "at each put, and PMICNTR_EL0 stays the host's",
        },
    )
    irq_masks: Of = step(
        "armv8pmu_handle_irq",
        {
            V1_TO_V5: "clears every overflow flag",
            V6_TO_V7: "leaves KVM the partition's flags, whoever has the counters",
            (Of.V8,): "leaves KVM the partition's flags, whoever has the counters",
            (Of.V9,): "leaves KVM the flags of the vCPU that runs, FREE or not",
        },
    )
    allocation: Of = step("armv8pmu_get_event_idx", {V1_TO_V7: "from the lowest counter up"})
    cntr_mask: Of = step("arm_pmu.cntr_mask", {V7_TO_V8: "one for all CPUs of the PMU"})
    pinned_events: Of = step("the host's pinned events", {V1_TO_V9: "on any counter, in ERROR without one"})
    resync: Of = step("kvm_vcpu_pmu_resync_el0", {(Of.V9,): "in process context, too"})
    resched: Of = step("perf_pmu_resched_update", {(Of.V7,): "takes the lock of the contexts with interrupts on"})
    el0_filters: Of = step(
        "kvm_vcpu_pmu_restore_guest", {V1_TO_V9: "before the reservation alone, not of the events that it moves"}
    )
    host_pmcr: Of = step(
        "the host's PMCR_EL0",
        {
            (Of.V1, Of.V2): "the guest's is left at put, and the host's driver starts and stops by it",
            Of.V3.up_to(Of.V6): "the guest's is left at put; the driver starts and stops by E and by HPME",
            V7_TO_V9: "the guest's is left at put, and the host's driver starts and stops by it",
        },
    )

    # The trap set-up.

    trap_set_up: Of = step(
        "__activate_traps_common and its opposite",
        {
            V1_TO_V7: "first at vcpu_load and at vcpu_put, as in 6.12",
            V8_TO_V9: "first at vcpu_load and at vcpu_put, as in the kernels of 2026",
        },
    )
    mdcr_hpmn: Of = step(
        "MDCR_EL2.HPMN",
        {
            (Of.V1,): "the partition's",
            V2_TO_V5: "the VM's, at most the partition's, FREE or not; 0 without FEAT_HPMN0, too",
            V6_TO_V7: "the VM's number, FREE or not, without FEAT_FGT, too",
            V8_TO_V9: "the VM's number, N without FEAT_FGT",
        },
    )
    mdcr_tpm: Of = step("MDCR_EL2.TPM and TPMCR", {V1_TO_V9: "clear with FEAT_FGT, HPMN0 or counters"})
    mdcr_hpme: Of = step(
        "MDCR_EL2.HPME and HLP",
        {V1_TO_V4: "clear", Of.V5.up_to(Of.V9): "HPME set whether or not the host counts, HLP clear"},
    )
    mdcr_el2: Of = step(
        "MDCR_EL2.HPMD and HCCD",
        {(Of.V1,): "HPMD alone", Of.V2.up_to(Of.V7): "set, FREE or not", V8_TO_V9: "set, FREE or not"},
    )
    pmuserenr: Of = step(
        "PMUSERENR_EL0 at vcpu_load and vcpu_put",
        {
            V1_TO_V4: "swapped, and the host's again before kvm_pmu_put() reads it",
            (Of.V5,): "swapped, and never the host's again",
            V6_TO_V9: "all ones while the vCPU is loaded",
        },
    )

    # When the guest's registers are on the CPU.

    owned: Of = step(
        "state of the vCPU",
        {
            V1_TO_V3: "swapped at each load, but without FEAT_FGT",
            V4_TO_V5: "GUEST_OWNED for good, swapped at each load, but without FEAT_FGT",
            (Of.V6,): "swapped at each load, FREE or not",
            V7_TO_V9: "GUEST_OWNED for good, swapped at each load",
        },
    )
    transition: Of = step(
        "first access",
        {
            V1_TO_V3: "loads nothing",
            (Of.V4,): "sets MDCR_EL2 and loads nothing",
            (Of.V5,): "loads the registers after the access, preemptible",
            (Of.V6,): "sets MDCR_EL2 in the hypervisor and loads nothing",
            (Of.V7,): "sets MDCR_EL2 and loads nothing, and reads do not even that",
            V8_TO_V9: "sets MDCR_EL2 and loads nothing (kvm_pmu_set_guest_owned)",
        },
    )
    backing: Of = step("KVM_REQ_RELOAD_PMU", {V8_TO_V9: "makes backing perf events all the same"})

    # kvm_pmu_load() and kvm_pmu_put().

    load_pmevtyper: Of = step(
        "PMEVTYPER<n>_EL0 in kvm_pmu_load",
        {
            (Of.V1,): "not written",
            V2_TO_V4: "INCLUDE_EL2 stays, and the filter looks the whole type up",
            (Of.V5,): "the filter heeds U and P, not NSU and NSK",
            (Of.V6,): "by PMSELR_EL0 and PMXEVTYPER_EL0 without an ISB",
            (Of.V7,): "by PMSELR_EL0 and PMXEVTYPER_EL0 without an ISB; PMCCFILTR_EL0's value goes to PMCCNTR_EL0",
            V8_TO_V9: "the filter heeds U and P, not NSU and NSK",
        },
    )
    load_pmevcntr: Of = step(
        "PMEVCNTR<n>_EL0 in kvm_pmu_load", {V6_TO_V7: "by PMSELR_EL0 and PMXEVCNTR_EL0 without an ISB"}
    )
    load_pmcr: Of = step("PMCR_EL0 in kvm_pmu_load", {V1_TO_V4: "raw, with P and C"})
    load_pmovs: Of = step(
        "PMOVSCLR_EL0 in kvm_pmu_load",
        {V1_TO_V5: "not written", V6_TO_V9: "cleared, and no flag of the guest's is set"},
    )
    put_pmevcntr: Of = step(
        "PMEVCNTR<n>_EL0 in kvm_pmu_put", {V6_TO_V7: "by PMSELR_EL0, before that is read, without an ISB"}
    )
    put_pmovs: Of = step(
        "PMOVSSET_EL0 in kvm_pmu_put",
        {V1_TO_V7: "neither read nor cleared", V8_TO_V9: "drained with interrupts off"},
    )
    put_pmcnten: Of = step("PMCNTENCLR_EL0 and PMINTENCLR_EL1 in kvm_pmu_put", {V1_TO_V7: "not written"})

    # The guest's interrupt.

    overflow_status: Of = step(
        "kvm_pmu_part_overflow_status",
        {
            V1_TO_V5: "memory's flags by the CPU's enables, in whatever state",
            V6_TO_V7: "memory's flags by the CPU's enables, never of a vCPU that is FREE",
            V8_TO_V9: "memory's flags by the CPU's enables; of a FREE vCPU by memory, and it is GUEST_OWNED then",
        },
    )
    guest_irq: Of = step(
        "kvm_pmu_handle_guest_irq",
        {V1_TO_V7: "in whatever state the vCPU is, and not kicked", V8_TO_V9: "in whatever state the vCPU is"},
    )

    # The handlers of trapped accesses.

    fast_path: Of = step(
        "kvm_hyp_handle_pmu_regs",
        {V2_TO_V5: "completes most accesses", (Of.V6,): "completes what it does not refuse"},
    )
    el0: Of = step(
        "check_pmu_access_disabled",
        {(Of.V1, Of.V5): "by PMUSERENR_EL0 in memory", V2_TO_V4: "by memory, and not in the fast path"},
    )
    preemption: Of = step("preempt_disable in the handlers", {V1_TO_V7: "none"})
    read_pmevcntr: Of = step(
        "reads of PMEVCNTR<n>_EL0",
        {
            (Of.V1, Of.V5): "by PMCR_EL0.N",
            V2_TO_V4: _UNCHECKED,
            V6_TO_V7: _SELR,
            V8_TO_V9: "by the VM's number of counters",
        },
    )
    write_pmevcntr: Of = step(
        "writes of PMEVCNTR<n>_EL0",
        {
            (Of.V1, Of.V5): "into memory, too",
            V2_TO_V4: _UNCHECKED,
            V6_TO_V7: _SELR,
            V8_TO_V9: "by the VM's number of counters",
        },
    )
    read_pmevtyper: Of = step(
        "reads of PMEVTYPER<n>_EL0", {V1_TO_V5: "by PMCR_EL0.N", V6_TO_V9: "by the VM's number of counters"}
    )
    write_pmevtyper: Of = step(
        "writes of PMEVTYPER<n>_EL0",
        {
            (Of.V1,): "through to the CPU, whatever the filter denies",
            V2_TO_V4: "through to the CPU; INCLUDE_EL2 stays, the filter looks the whole type up, memory has its bits",
            (Of.V5,): "through to the CPU; the filter heeds U and P, not NSU and NSK",
            Of.V6.up_to(Of.V8): "into memory alone, onto the CPU at the next load",
            (Of.V9,): "through to the CPU; the filter heeds U and P, not NSU and NSK",
        },
    )
    read_pmcr: Of = step(
        "reads of PMCR_EL0",
        {V1_TO_V5: "as on the CPU", (Of.V6,): "as on the CPU", (Of.V7,): "N as EL2 reads it", V8_TO_V9: "by the CPU"},
    )
    write_pmcr: Of = step(
        "writes of PMCR_EL0",
        {
            V1_TO_V4: "P and C reach the CPU, where P resets the host's counters, too",
            (Of.V5,): "P and C reach the CPU, where P resets the host's counters, too",
            (Of.V6,): "P and C reach the CPU, where P resets the host's counters, too",
            (Of.V7,): "P and C reach the CPU, where P resets the host's counters, too",
            V8_TO_V9: "C reaches the CPU, P resets as many counters as the VM has",
        },
    )
    read_pmovs: Of = step("reads of PMOVSSET_EL0 and PMOVSCLR_EL0", {V1_TO_V9: "of memory alone"})
    write_pmovsset: Of = step(
        "writes of PMOVSSET_EL0",
        {
            V1_TO_V5: "into memory and onto the CPU, interrupts on",
            (Of.V6,): "by the VM's number of counters",
            (Of.V7,): "into memory, interrupts on",
            V8_TO_V9: "into memory with interrupts off",
        },
    )
    write_pmovsclr: Of = step(
        "writes of PMOVSCLR_EL0",
        {
            V1_TO_V5: "in memory first, interrupts on, then on the CPU",
            (Of.V6,): "in memory alone",
            (Of.V7,): "in memory alone, interrupts on",
            (Of.V8,): "in memory alone",
            (Of.V9,): "in memory first, then on the CPU",
        },
    )
    read_pmcnten: Of = step(
        "reads of PMCNTENSET_EL0",
        {(Of.V1, Of.V5): "by the VM's mask", V2_TO_V4: _ALL_BITS, (Of.V6,): "by the VM's mask"}
        | {(Of.V7,): "with the host's bits", V8_TO_V9: "by the partition's mask"},
    )
    write_pmcnten: Of = step(
        "writes of PMCNTENSET_EL0",
        {(Of.V1, Of.V5): "into memory, too", V2_TO_V4: _ALL_BITS, V6_TO_V9: "by the VM's mask"},
    )
    read_pminten: Of = step(
        "reads of PMINTENSET_EL1",
        {(Of.V1, Of.V5): "by the VM's mask", V2_TO_V4: _ALL_BITS, (Of.V6,): "by the VM's mask"}
        | {(Of.V7,): "with the host's bits", V8_TO_V9: "by the partition's mask"},
    )
    write_pminten: Of = step(
        "writes of PMINTENSET_EL1",
        {(Of.V1, Of.V5): "into memory, too", V2_TO_V4: _ALL_BITS, V6_TO_V9: "by the VM's mask"},
    )
    write_pmswinc: Of = step(
        "writes of PMSWINC_EL0",
        {V6_TO_V7: "with a read of PMUSERENR_EL0", V8_TO_V9: "of the counters in memory"},
    )
    read_pmselr: Of = step("reads of PMSELR_EL0", {V6_TO_V9: "its five bits"})
    write_pmselr: Of = step("writes of PMSELR_EL0", {V1_TO_V5: "five bits", V6_TO_V9: "onto the CPU alone"})
    read_pmuserenr: Of = step("reads of PMUSERENR_EL0", {V6_TO_V9: "of the CPU's, all ones"})
    write_pmuserenr: Of = step(
        "writes of PMUSERENR_EL0", {V1_TO_V5: "into memory, too", V6_TO_V9: "onto the CPU alone"}
    )
    read_pmceid: Of = step("reads of PMCEID<n>_EL0", {V6_TO_V9: "with a read of PMUSERENR_EL0"})

    def whose(self) -> dict[str, Of]:
        """The steps that are not `partitioned`'s."""
        return {name: of for name in NAMES if (of := getattr(self, name)) is not Of.PARTITIONED}


def _does() -> dict[str, Mapping[Of, str]]:
    return {one.name: one.metadata["does"] for one in dataclasses.fields(Steps) if "does" in one.metadata}


DOES = _does()  # by step, what each version does in it that does not do what `partitioned` does
NAMES = tuple(DOES)


def steps_of(version: Of) -> tuple[str, ...]:
    """Those in which a version differs from `partitioned`."""
    return tuple(name for name in NAMES if version in DOES[name])
