"""The cost model: what an action costs, in cycles, by name. The numbers are TOML beside this file."""

from __future__ import annotations

from enum import IntEnum, auto


class Cost(IntEnum):
    """What a cycle can be billed to. Order is the wire's and the core's cause number."""

    UNBILLED = 0  # ordinary execution
    MRS = auto()  # billed by the core
    MSR = auto()
    ISB = auto()
    EXIT_FULL_NULL = auto()  # exit to the host kernel's C code and back, no emulation
    EXIT_FULL_SYSREG = auto()  # the same with a trapped system register access
    EXIT_FAST = auto()  # handled without leaving the hypervisor's own code
    EXIT_USER = auto()  # exit to the VMM
    VIRQ_INJECT = auto()  # making a virtual interrupt pending and delivering it at the next entry
    SGI = auto()  # emulating a trapped ICC_SGI1R_EL1 write
    WFI_BLOCK = auto()  # blocking a vCPU: kvm_vcpu_halt, schedule
    CONTEXT_SWITCH = auto()  # a scheduler switch between two threads
    TICK = auto()  # the timer tick's own work, host or guest
    IRQ_ENTRY = auto()  # taking and finishing an interrupt within one kernel (vectors, GIC ack, EOI)
    PERF_RELEASE_CREATE = auto()  # software time of perf_event_release_kernel plus create
    PERF_CALL = auto()  # software time of one perf_event_enable/disable (function call, context lock)
    EVENT_OUT = auto()  # software time of event_sched_out
    EVENT_IN = auto()  # software time of event_sched_in
    PERF_READ = auto()  # software time of perf_event_read_value
    PERF_RESCHED = auto()  # software time of ctx_resched itself
    HOST_PMI = auto()  # software time of the PMU interrupt handler, no sample
    SAMPLE = auto()  # writing one sample record
