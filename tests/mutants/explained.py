"""What is no mutant, and what is not found: why."""

from __future__ import annotations

# Drawn, and not written.
NOT_A_MUTANT = {
    "B12": "PMICNTR_EL0 swapped by one capability at put and by another at load: no guest of `partitioned` has "
    "that register, and nobody swaps it",
    "B28": "UNDEFINED injected from the hypervisor's fast path before the vCPU's state is consistent: an exception"
    " of a guest is one event here, without ELR_EL1 and SPSR_EL1 that could be inconsistent",
    "B34": "PMSELR_EL0 is loaded at vcpu_load: so it is in `partitioned`. The host's driver does not use the "
    "register, and nothing of the host's is altered",
    "B64": "user access falls back unsafely: no more than that is known of it",
    "B65": "the attribute may be changed after the VM has run: a VM's vPMU is the machine's design, for its life, "
    "and its number of counters and filter are refused by KVM's common code once it has run",
    "B69": "emulated VMs are limited by the partition: all VMs of a machine have one design",
    "B70": "one predicate for VM and PMU, by which emulated VMs are treated as partitioned: likewise",
    "B73": "several problems under test: not described",
    "B75": "BRBE freezes on an overflow of the host's: BRBE is not modelled",
    "N12": "the status is asked while the host's driver has the PMU stopped, and so the handler kicks nobody: "
    "`partitioned` never kicks from there. The handler runs beside a vCPU that has left its guest, and the "
    "flush before the next entry finds the flag in memory; and HPME, not PMCR_EL0.E, is what the driver "
    "stops by",
    "N15": "put reads counters, then flags, then stops them: so does `partitioned`. Nothing of the guest's counts "
    "at EL2, so the window is empty: the negative control is that nothing is found in `partitioned` itself",
}

# Written, and not found by the search.
NOT_FOUND = {
    "B2": "a hole of the worlds. HPMN is above a CPU's N only where a VM has more counters than one of the CPUs "
    "that it may run on, and `partitioned` refuses such a machine (`check`): no world has one, as it would "
    "have to be the same for all designs. In those that there are the mutant is `partitioned`",
    "B19": "a hole of the simulated cores, none of which has AArch32: PMCR_EL0.LC is RES1 there, and the cycle "
    "counter overflows at bit 63 whatever is written",
    "B41": "no defect on top of `partitioned`. What the handler clears it has read, and hands to KVM before it "
    "ends; nothing of KVM's runs on that CPU in between, and a flag that does not interrupt goes back onto "
    "the CPU at the flush",
    "B47": "breaks no invariant. The host has one counter less, and multiplexes sooner, by perf's own rules: what "
    "it counts, the times it scales by and what it promises stay true. It is a price",
    "B51": "no defect on top of `partitioned`, whose host keeps pinned events out of the guests' range whatever "
    "the order (`HostPolicy.swaps_pinned`): the order moves flexible events alone, and more of them at each"
    " load. A price. With `pinned=error` it would put pinned events in ERROR sooner, which that design "
    "declares",
    "B56": "a hole of what can come where, and harmless in a kernel. `partitioned` reserves within "
    "local_irq_save(), so that no interrupt's handler would find the lock held. Here a step's interrupt "
    "comes before an operation of KVM's own, and is taken before the reservation; amid the operations of "
    "the host's perf none can be placed. A timer that expires there by itself hangs v7 "
    "(tests/kvm/test_context_lock.py)",
    "N3": "a hole of the judge. perf_event_open refuses a group that would fit, and says so to its user: the "
    "judge is told of events that are open, not of those that are refused",
    "N23": "no defect on top of `partitioned`, whose load makes a vCPU resident if its saved registers interrupt: "
    "one that is FREE has no overflow that does, up to its next load. It takes B40 beside it",
    "N25": "a hole of the simulated core, whose registers are 0 after a reset: what armv8pmu_reset() leaves out is"
    " as it would have made it. On cores whose PMCNTEN, PMINTEN and PMOVS are UNKNOWN then, stale enables "
    "would stay",
    "N27": "breaks no invariant. The host is squeezed at each load of a vCPU that does not count: a price, which "
    "`pmulab designs` has of `swap=lazy-sticky`",
}
