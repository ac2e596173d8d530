"""What kvm boots an actor's software with, on each CPU: the payload of the BOOT entry, typed, read at both ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.experiment import CpuSpec, GuestSpec, PerfSysctls, SessionSpec
from services.registers import MASK64

NO_PROCESS: Final = -1


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """What a vPMU design asks of the host's PMU driver on one CPU."""

    counters: int  # that it may allocate while no vCPU is loaded, one bit each, the cycle counter bit 31
    guest_flags: int  # the overflow flags that it may find to be a guest's, one bit each; 0: no guest has a counter
    high_to_low: bool = False  # it allocates its event counters from the highest index
    forwarded_irq: bool = False  # it has no interrupt: the hypervisor forwards that to the vCPU that is loaded
    split_irq: bool = False  # its interrupt handler leaves a guest's overflow flags to KVM
    own_flags: int = MASK64  # and of the others clears these only
    fixed_flags: bool = False  # whether or not a guest is resident: it leaves all of `guest_flags` to KVM
    hpmn_flags: bool = False  # a guest's are those of counters below MDCR_EL2.HPMN as its handler finds it
    shared_counters: bool = False  # what a guest takes on one CPU is taken on every CPU of that PMU
    hpme: bool = False  # it starts and stops the PMU by MDCR_EL2.HPME, too
    resync_in_process: bool = False  # kvm_vcpu_pmu_resync_el0() does its work out of interrupt context, too
    resched_irqs_on: bool = False  # perf_pmu_resched_update() takes the lock of perf's contexts with interrupts on
    # Pinned events have counters out of the guests' range as long as there are any, and where a guest has taken what
    # one would need it waits for that, and is not in ERROR.
    swaps_pinned: bool = False
    refuses_guests: bool = False  # it refuses events that do not exclude guests


@dataclass(frozen=True, slots=True)
class ArmPmu:
    """One of the host's PMUs, as its kernel knows it when perf's tools begin."""

    cpus: tuple[int, ...]  # that it covers
    features: CpuSpec  # of the first of them, on which it is probed
    pmceid0: int
    pmceid1: int
    cntr_mask: int  # counters that the driver uses, one bit each, the cycle counter bit 31


@dataclass(frozen=True, slots=True)
class CpuSession:
    """A perf session on a whole CPU, and the thread of the perf that reads it at intervals, NO_PROCESS if none does."""

    session: SessionSpec
    process: int
    cpus: tuple[int, ...]  # all on which it opens its events, in order


@dataclass(frozen=True, slots=True)
class ThreadSession:
    """Likewise on one thread: a task's own, or the host's on a vCPU's thread (`perf stat -t`)."""

    thread: int
    session: SessionSpec
    process: int
    cpus: tuple[int, ...]  # perf stat opens on none: its events count wherever the thread runs


@dataclass(frozen=True, slots=True)
class HostBoot:
    """The host's perf on pCPU `cpu`. Times are cycles."""

    cpu: int
    frequency_hz: int
    costs: dict[str, int]  # cycles, by the names of services.costs.Cost
    hz: int
    mux_interval: int  # 0: one tick
    sysctls: PerfSysctls
    group_throttle: bool
    observed: bool  # whoever judges the run is told of perf's events
    features: CpuSpec
    arm_pmu: int  # which of the host's PMUs covers it
    pmus: tuple[ArmPmu, ...]  # all of them
    policy: HostPolicy
    sessions: tuple[CpuSession, ...]  # cpu_wide ones on this CPU
    threads: tuple[ThreadSession, ...]
    vcpu_threads: tuple[int, ...]  # the threads that are vCPUs', of all CPUs
    vcpu_pmus: tuple[int, ...]  # the PMU of each one's VM, by thread; ANY_PMU: of the CPU that it is on


@dataclass(frozen=True, slots=True)
class GuestBoot:
    """A guest's kernel on vCPU `vcpu`."""

    vcpu: int
    frequency_hz: int
    costs: dict[str, int]  # cycles, by the names of services.costs.Cost
    guest: GuestSpec
    observed: bool  # whoever judges the run is told of perf's events
    pmuver: int  # ID_AA64DFR0_EL1.PMUVer as it reads it
