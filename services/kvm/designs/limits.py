"""What a guest loses where perf events of the host count in its stead, and when (arch/arm64/kvm/pmu-emul.c).

Each limit is KVM's own: what its guest misses it misses on a real host. Where the condition of none is met, a guest of
the emulated vPMU has all that a PMU of its own would give it.
"""

from __future__ import annotations

from collections.abc import Iterator

from services.core_pmus import core_pmus
from services.experiment import CpuSpec, Experiment, SessionSpec, StepSpec
from services.kvm.declared import Declared, Victim, given_up
from services.kvm.guest_pmu import OF_COUNTERS
from services.registers import PMCR_C, PMCR_EL0, PMCR_P, PMUVER_P5


def _host_sessions(experiment: Experiment) -> Iterator[SessionSpec]:
    yield from experiment.host_sessions()
    for step in experiment.steps:
        if step.session is not None:
            yield step.session


def _beside(cpu: CpuSpec) -> int:
    """The event counters that a guest's cycle counter may take on a CPU."""
    if cpu.pmuver < PMUVER_P5:
        return 2
    return 1 if cpu.pmccntr_in_wfi else 0


def pins(experiment: Experiment) -> bool:
    """Has the host pinned events?"""
    return any(event.pinned for session in _host_sessions(experiment) for event in session.events)


def takes_sides(experiment: Experiment) -> bool:
    """Has the host events that count EL0 of guests alone, or of the host alone?"""
    events = (event for session in _host_sessions(experiment) for event in session.events)
    return any(event.exclude_guest is not event.exclude_host and not event.exclude_user for event in events)


def loses_counters(experiment: Experiment) -> bool:
    """May a backing event be in ERROR: for the host's pinned events, or as the guest's own do not all fit?

    They may not where an event counter counts cycles and so has PMCCNTR_EL0: its cycle counter, which counts 64 bits,
    then needs two of 32, and where no event of the host's is on PMCCNTR_EL0 one of its own.
    """
    return pins(experiment) or any(
        guest.pmuver and guest.counters + _beside(cpu) > cpu.counters
        for guest in experiment.guests
        for cpu in guest.allowed(experiment.cpus)
    )


def leaves_its_pmu(experiment: Experiment) -> bool:
    """May a vCPU run on CPUs of several PMUs of the host?"""
    return any(
        sum(any(guest.may_run_on(cpu) for cpu in pmu.cpus) for pmu in core_pmus(experiment.cpus)) > 1
        for guest in experiment.guests
        if guest.pmuver
    )


def overflow_takes_time(experiment: Experiment) -> bool:
    """Does an overflow take time to interrupt the host?"""
    return any(cpu.pmi_delay for cpu in experiment.cpus)


def waits_at_el1(experiment: Experiment) -> bool:
    """May a guest wait on a CPU of which PMCCNTR_EL0 goes on, and CPU_CYCLES does not?"""
    return not experiment.traps_wfi and any(cpu.pmccntr_in_wfi for cpu in experiment.cpus)


def _writes_a_counter(step: StepSpec) -> bool:
    if step.action != "msr":
        return False
    return step.register in OF_COUNTERS or (step.register == PMCR_EL0 and bool(step.value & (PMCR_P | PMCR_C)))


def writes_running_counters(experiment: Experiment) -> bool:
    """May a guest write a counter that counts, or its type, or reset it? Linux stops it before."""
    return not experiment.linux_guests or any(map(_writes_a_counter, experiment.steps))


def sets_registers(experiment: Experiment) -> bool:
    """May a VMM set the registers of a vCPU that has run? One that restores a VM does so before."""
    return not experiment.linux_guests or any(step.action == "set_one_reg" for step in experiment.steps)


def takes_sides_beside_writes(experiment: Experiment) -> bool:
    """Both: has the host such events, and may a guest write such counters?"""
    return takes_sides(experiment) and writes_running_counters(experiment)


LIMITS: tuple[Declared, ...] = (
    # perf_event_create_kernel_counter() with attr.pinned: merge_sched_in() leaves what has no counter in ERROR.
    *given_up(
        Victim.GUEST,
        "an event of the host's perf counts for each counter, and none where it gets no counter: pinned events of the "
        "host go before it, and without FEAT_PMUv3p5 a cycle counter may need two",
        ("I4", "I5", "I7"),
        loses_counters,
    ),
    # kvm_pmu_create_perf_event(): attr.type is that of the VM's arm_pmu.
    *given_up(
        Victim.GUEST,
        "the events are of one PMU of the host: on the CPUs of another nothing counts",
        ("I4", "I5", "I7"),
        leaves_its_pmu,
    ),
    # kvm_pmu_perf_overflow() sets PMOVSSET_EL0, and increments what chains; armv8pmu_disable_event_irq() clears the
    # flag of an event that goes off before.
    *given_up(
        Victim.GUEST,
        "a guest's overflow flag is set by the host's interrupt handler: late by what the interrupt takes (pmi_delay), "
        "and never if the event is off by then",
        ("I4", "I5", "I7"),
        overflow_takes_time,
    ),
    # kvm_pmu_set_counter_value() makes the event anew, and kvm_vcpu_pmu_restore_guest() does not follow.
    *given_up(
        Victim.GUEST,
        "a write of a counter that counts has its event made anew, which leaves out EL0 up to the next vcpu_load",
        ("I3", "I4", "I5", "I7"),
        writes_running_counters,
    ),
    # kvm_pmu_set_counter_value_user(), kvm_arm_sys_reg_set_reg(): neither releases an event; kvm_vcpu_reload_pmu().
    *given_up(
        Victim.GUEST,
        "what a VMM sets of a vCPU that has run: the events that it has count on, what they have counted is added to "
        "the value that is set (up to Linux 6.14), and another type is not theirs",
        ("I4", "I5", "I7", "I11"),
        sets_registers,
    ),
    # perf_event_create_kernel_counter() has ctx_resched() program the host's events as for the host.
    *given_up(
        Victim.HOST,
        "a write of a counter that counts has its event made anew, after which events of the host's that count EL0 of "
        "one side count that of the other up to the next vcpu_load",
        ("I3",),
        takes_sides_beside_writes,
    ),
    # armv8pmu_get_event_idx() keeps CPU_CYCLES off PMCCNTR_EL0 there.
    *given_up(
        Victim.GUEST,
        "the event of a cycle counter is on an event counter where PMCCNTR_EL0 counts in WFI, and does not count there",
        ("I4", "I5", "I7"),
        waits_at_el1,
    ),
)

# perf_event_create_kernel_counter() has ctx_resched() program the host's events as for the host; since
# kvm_pmu_handle_pmcr() leaves all to KVM_REQ_RELOAD_PMU, PMCR_EL0.P and C have no kvm_vcpu_pmu_restore_guest() follow.
UNRESTORED: tuple[Declared, ...] = given_up(
    Victim.HOST,
    "PMCR_EL0.P and C have the backing events made anew, after which those of the host that count EL0 of one side "
    "count that of the other up to the next vcpu_load or change of PMCR_EL0.E",
    ("I3",),
    takes_sides,
)
