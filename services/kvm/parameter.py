"""`reserved_host_counters` in sysfs: what becomes of what an operator writes there while VMs run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from services.experiment import NO_PARTITION, CpuSpec, Experiment
from services.kvm.vpmu import Design


def with_reserved(cpu: CpuSpec, reserved: int | None) -> CpuSpec:
    """A CPU after that has been written."""
    return replace(cpu, reserved_host_counters=reserved)


def refused(design: Design, experiment: Experiment, reserved: Sequence[int]) -> str:
    """Why a write of `reserved`, one value for each pCPU, fails, errno first; empty if it takes effect.

    A VM's PMCR_EL0.N does not change once it has run (KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS is EBUSY then), and a counter
    that it says there is has to count whenever the guest enables it, which need not trap. So no write leaves guests of
    a pCPU fewer than a VM has that may run there.
    """
    if not design.parameter_writable:
        return "EACCES: it is read at boot only"
    for cpu, (spec, value) in enumerate(zip(experiment.cpus, reserved, strict=True)):
        if value > spec.counters:
            return f"EINVAL: pCPU {cpu} has {spec.counters} event counters"
        left = -1 if value == NO_PARTITION else spec.counters - value
        for guest in experiment.guests:
            counters = design.nr_counters(guest.allowed(experiment.cpus), guest.counters)
            if guest.pmuver and counters > left and guest.may_run_on(cpu):
                what = f"{left} of pCPU {cpu}'s" if left >= 0 else f"no partition of pCPU {cpu}'s"
                return f"EBUSY: {guest.name} has {counters} event counters, {what} would be left to it"
    return ""


def effective(design: Design, experiment: Experiment) -> Iterator[tuple[int, tuple[int, ...]]]:
    """When the scenario's operator writes, in cycles, and what, of the writes that take effect."""
    for write in experiment.host.parameter_writes:
        if not refused(design, experiment, write.reserved):
            yield write.time, write.reserved


def failures(design: Design, experiment: Experiment) -> Iterator[str]:
    """The others, in words."""
    for write in experiment.host.parameter_writes:
        why = refused(design, experiment, write.reserved)
        if why:
            values = write.reserved if len(set(write.reserved)) > 1 else write.reserved[:1]
            text, ms = ", ".join(map(str, values)), write.time * 1000 / experiment.frequency_hz
            yield f"reserved_host_counters is not {text} from {ms:g} ms on: {why}"
