"""Which interrupts are taken between two of KVM's own operations."""

from __future__ import annotations

from enum import IntEnum


class Irqs(IntEnum):
    """Numbered as `Machine.execute` has them.

    kvm_sched_in, vcpu_load and vcpu_put, the flush and the trap handlers have interrupts on; kvm_sched_out, which
    prepare_task_switch calls with the run queue locked, has them off (include/linux/preempt.h, Linux 6.12).
    """

    MASKED = 0  # none: the ways into and out of a guest, and the fast path, which mask pseudo-NMIs, too
    ON = 1  # all
    OFF = 2  # local_irq_disable() where there are pseudo-NMIs, which are taken
