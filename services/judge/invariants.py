"""The twelve invariants that every run is judged by, each with what of a run decides it.

They are judged by what happened on the CPUs alone: register accesses, who ran at which exception level, the core's
truth, and what software says of itself (vcpu_load, perf events). What a design thinks of its own state decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Invariant:
    name: str  # "I1"
    claim: str  # what holds, in one line
    observed: str  # what is compared with what


_ALL = (
    Invariant(
        "I1",
        "a guest never sees counts or configuration but its own: not the host's, not another guest's, and nothing that "
        "was left there",
        "the value of each read at EL1 and EL0, completed by the CPU or by KVM, with what this guest's own writes and "
        "its own events allow",
    ),
    Invariant(
        "I2",
        "a guest never changes counters, enables or global bits of the host",
        "the host's registers as its driver next finds them, with what they were when it last let go of the CPU",
    ),
    Invariant(
        "I3",
        "a perf event of the host counts exactly what its filters admit",
        "the growth of its counter while it is on it, with what happened in the contexts that its filters admit",
    ),
    Invariant(
        "I4",
        "counts of a guest are conserved: none is lost and none is doubled over vcpu_put, vcpu_load and traps",
        "a counter as its guest reads it, with what the guest wrote to it and what happened since while it was enabled",
    ),
    Invariant(
        "I5",
        "the overflow condition is exact: no PMU interrupt is lost, late, spurious, or taken by the wrong party",
        "overflow flags and the interrupts that each party takes, with the overflows of its own counters",
    ),
    Invariant(
        "I6",
        "a register write of a guest has its effect by the next context synchronisation",
        "what counts at EL0 and EL1, and which event, behind an ISB or an exception, with what the guest wrote before "
        "it; a register that KVM accesses by PMSELR_EL0, with the ISB behind that; what the host's driver writes of a "
        "counter, with the ISB between that and what goes by it",
    ),
    Invariant(
        "I7",
        "each register of a guest has one canonical copy",
        "what KVM writes at vcpu_load, a trap or a restore, with what the guest last wrote or KVM last read out",
    ),
    Invariant(
        "I8",
        "the architected view holds: PMCR_EL0.N, checks of an index, RES0 bits, nothing UNPREDICTABLE",
        "what an access gives or which exception it takes, with what a PMU of the guest's own would do; MDCR_EL2.HPMN "
        "as KVM writes it, with the CPU's N and FEAT_HPMN0; whether an access of the host's kernel is UNDEFINED",
    ),
    Invariant(
        "I9",
        "all of it holds under preemption, interrupts and migration",
        "accesses for a vCPU on a pCPU that it is not loaded on, a swap that somebody finds half done, and any "
        "violation that vanishes without what a script injects",
    ),
    Invariant(
        "I10",
        "the contract of the host's perf holds: pinned events, groups, time_enabled, time_running, one event a counter",
        "what perf says of its events, with each other and with the counters that they are on; its times with each "
        "other, and of an event that is on, or off, from one read to the next how they grow",
    ),
    Invariant(
        "I11",
        "a VM that is saved and restored (KVM_GET_ONE_REG, KVM_SET_ONE_REG) goes on with the PMU that it had",
        "what is read out and written, with what the guest's registers were, and what it reads then",
    ),
    Invariant(
        "I12",
        "everybody makes progress",
        "PMU interrupts that are taken again and again without anything else done, a lock that its own CPU waits for, "
        "and an interrupt that is due where all wait",
    ),
)

INVARIANTS: Final = {one.name: one for one in _ALL}
