"""What says so: for each kind of violation the page of the Arm ARM, or Linux's file and function, that has its rule."""

from __future__ import annotations

import re
from typing import Final

_ARM: Final = "Arm ARM (DDI 0487)"
_KVM: Final = "Linux arch/arm64/kvm"
_DRIVER: Final = "Linux drivers/perf/arm_pmuv3.c"
_PERF: Final = "Linux kernel/events/core.c"

_INTERRUPT: Final = (
    f"{_ARM}, PMU overflow interrupts, in finite time: PMOVSSET_EL0 and PMINTENSET_EL1, with PMCR_EL0.E or, from "
    f"MDCR_EL2.HPMN on, MDCR_EL2.HPME; {_KVM}/pmu-emul.c, kvm_pmu_update_state()"
)
_LOADED: Final = f"{_KVM}/arm.c, kvm_arch_vcpu_load() and kvm_arch_vcpu_put(); Linux virt/kvm/kvm_main.c, vcpu_load()"
_SYNCHRONISED: Final = f"{_ARM}, synchronization requirements for AArch64 System registers"
_OF_HOST: Final = (
    f"{_ARM}, {{register}}; fields HPMN, HPMD and HPME of MDCR_EL2; {_DRIVER}, armv8pmu_enable_event() and "
    "armv8pmu_start()"
)

# By kind; `{register}` is the page of the violation's register.
SOURCES: Final = {
    "guest_read": f"{_ARM}, {{register}}",
    "guest_entry": f"{_ARM}, {{register}}",
    "undefined": f"{_ARM}, {{register}}, accessibility; {_KVM}/sys_regs.c, check_pmu_access_disabled()",
    "late_interrupt": _INTERRUPT,
    "lost_interrupt": _INTERRUPT,
    "spurious_interrupt": _INTERRUPT,
    "misattributed_interrupt": f"{_INTERRUPT}; {_DRIVER}, armv8pmu_handle_irq()",
    "host_read": _OF_HOST,
    "host_state": _OF_HOST,
    "one_reg": "Linux Documentation/virt/kvm/api.rst, KVM_GET_ONE_REG and KVM_SET_ONE_REG; "
    f"{_KVM}/sys_regs.c, set_pmreg(), set_pmcr(); {_ARM}, {{register}}",
    "restored": f"{_ARM}, {{register}}; one copy of each register, on the CPU or in memory: {_KVM}/sys_regs.c, "
    "vcpu_read_sys_reg() and vcpu_write_sys_reg()",
    "unsynchronised": f"{_SYNCHRONISED}; PMSELR_EL0",
    "driver_order": f"{_SYNCHRONISED}; {{register}}; {_DRIVER}, armv8pmu_enable_event() and armv8pmu_disable_event()",
    "without_effect": f"{_SYNCHRONISED}; {{register}}",
    "host_placement": f"{_ARM}, MDCR_EL2.HPMN: EL1 and EL0 reach the event counters below it; {_DRIVER}, "
    "armv8pmu_get_event_idx()",
    "unpredictable_hpmn": f"{_ARM}, MDCR_EL2.HPMN: 0 without FEAT_HPMN0, or more than the CPU's N",
    "event_count": "perf_event_open(2), exclude_user, exclude_kernel, exclude_host and exclude_guest; "
    f"{_DRIVER}, armv8pmu_set_event_filter()",
    "event_times": "perf_event_open(2), PERF_FORMAT_TOTAL_TIME_ENABLED and PERF_FORMAT_TOTAL_TIME_RUNNING; "
    f"{_PERF}, perf_event_update_time()",
    "event_placement": f"{_DRIVER}, armv8pmu_get_event_idx()",
    "event_group": f"perf_event_open(2), group_fd: a group is put onto the CPU as a unit; {_PERF}, group_sched_in()",
    "event_pinned": f"perf_event_open(2), pinned: always on the CPU if at all possible; {_PERF}, merge_sched_in()",
    "event_flexible": f"{_PERF}, merge_sched_in(): what is flexible waits only where it does not fit",
    "not_loaded": _LOADED,
    "loaded_twice": _LOADED,
    "half_swapped": f"{_LOADED}, amid which interrupts are taken; {_DRIVER}, armv8pmu_handle_irq()",
    "livelock": "Linux kernel/irq/spurious.c, note_interrupt()",
    "deadlock": f"Linux Documentation/locking/spinlocks.rst; {_PERF}, perf_ctx_lock()",
    "never_woken": f"{_ARM}, Wait for Interrupt, WFI wake-up events; {_KVM}/arm.c, kvm_arch_vcpu_runnable()",
}

_COUNT: Final = ", and CountPMUEvents(), which counts"
_BELOW_HPMN: Final = ", whose bits from MDCR_EL2.HPMN on are RAZ/WI at EL1 and EL0"
_NUMBERED: Final = re.compile(r"(PMEVCNTR|PMEVTYPER)\d+")
_VALUES: Final = ("guest_read", "guest_entry")
# Of what a guest finds in a register, the part of its page that says most about it.
_FIELDS: Final = {
    "PMCR_EL0": ", E, D, X, DP, LC, LP and FZO as written; N, which at EL1 and EL0 is MDCR_EL2.HPMN",
    **dict.fromkeys(("PMEVCNTR<n>_EL0", "PMXEVCNTR_EL0", "PMCCNTR_EL0", "PMICNTR_EL0"), _COUNT),
    **dict.fromkeys(("PMCNTENSET_EL0", "PMCNTENCLR_EL0", "PMINTENSET_EL1", "PMINTENCLR_EL1"), _BELOW_HPMN),
    **dict.fromkeys(("PMOVSSET_EL0", "PMOVSCLR_EL0"), _BELOW_HPMN),
    **dict.fromkeys(("PMCEID0_EL0", "PMCEID1_EL0"), f"; {_KVM}/pmu-emul.c, kvm_pmu_get_pmceid()"),
    "PMMIR_EL1": f"; {_KVM}/sys_regs.c, which has it RAZ/WI",
}


def source(kind: str, register: str | None) -> str:
    """Of the rule that is broken in a violation of this kind, about this register or none."""
    page = _NUMBERED.sub(r"\1<n>", register or "the Performance Monitors Extension")
    text = SOURCES.get(kind, f"{_ARM}, {{register}}").format(register=page)
    return text + _FIELDS.get(page, "") if kind in _VALUES else text
