"""What a guest loses where perf events of the host count in its stead, and when (arch/arm64/kvm/pmu-emul.c).

Each limit is KVM's own: what its guest misses it misses on a real host. Where the condition of none is met, a guest of
the emulated vPMU has all that a PMU of its own would give it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from services import registers as r
from services.core_pmus import core_pmus
from services.durations import NS_PER_S
from services.experiment import CpuSpec, Experiment, SessionSpec, StepSpec
from services.kvm.declared import Declared, Victim, given_up
from services.kvm.guest_pmu import OF_COUNTERS
from services.registers import CYCLE_BIT, MASK32, PMUVER_P5

HANDLER_NS = 10_000  # more than the handler of a PMU interrupt takes on average


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


def filters(experiment: Experiment) -> bool:
    """Has a VM an event filter?"""
    return any(guest.denied for guest in experiment.guests) or any(one.action == "filter" for one in experiment.steps)


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


def throttles(experiment: Experiment) -> bool:
    """May the host's perf throttle a backing event at its first overflow within a tick, or come to?

    It overflows no second time before its guest writes the counter, which has it made anew: its next period is what its
    count leaves of 2^32. So it is one sample a tick that counts, as the sysctls have it or as perf_sample_event_took()
    may lower it to.
    """
    hz, sysctls = experiment.host.hz, experiment.host.sysctls
    if -(-sysctls.max_sample_rate // hz) <= 1:
        return True
    budget = NS_PER_S // hz // 100 * sysctls.cpu_time_max_percent
    return sysctls.cpu_time_max_percent not in (0, 100) and budget < 2 * HANDLER_NS


class _Enabled:
    """What a vCPU may count by its own steps so far: what it starts with is UNKNOWN, but for PMCR_EL0."""

    def __init__(self) -> None:
        self.pmcr_e = False
        self.counters = MASK32

    def after(self, step: StepSpec) -> None:
        """A VMM's write counts as one that enables, and so does a program's, which may trap as well."""
        sure = step.action == "msr" and step.el != 0
        match step.register:
            case r.PMCR_EL0:
                self.pmcr_e = bool(step.value & r.PMCR_E) or (self.pmcr_e and not sure)
            case r.PMCNTENSET_EL0:
                self.counters |= step.value & MASK32
            case r.PMCNTENCLR_EL0 if sure:
                self.counters &= ~step.value
            case r.PMCNTENCLR_EL0 if step.action == "set_one_reg":
                self.counters |= step.value & MASK32

    def written(self, step: StepSpec) -> bool:
        """Does it write a counter that counts? Behind a write of its type kvm_vcpu_pmu_restore_guest() follows."""
        if step.action != "msr" or not self.pmcr_e or step.register not in OF_COUNTERS:
            return False
        n, is_type = OF_COUNTERS[step.register]
        return not is_type and bool(self.counters if n is None else self.counters >> n & 1)

    def written_at_all(self, step: StepSpec) -> bool:
        """Does it write a counter, be it one that stands still? Which of them have an event depends on their types."""
        return step.action == "msr" and step.register in OF_COUNTERS and not OF_COUNTERS[step.register][1]

    def reset(self, step: StepSpec) -> bool:
        """Does it reset counters that count?"""
        if step.action != "msr" or step.register != r.PMCR_EL0 or not step.value & r.PMCR_E:
            return False
        cycle = bool(step.value & r.PMCR_C and self.counters & CYCLE_BIT)
        return cycle or bool(step.value & r.PMCR_P and self.counters & ~CYCLE_BIT)


def _by_vcpu(experiment: Experiment) -> Iterator[list[StepSpec]]:
    """The steps of each vCPU and of its VMM about it, in order."""
    found: dict[int, list[StepSpec]] = {}
    for step in experiment.steps:
        if "/" in step.party and not step.party.startswith("host/"):
            found.setdefault(step.target, []).append(step)
    yield from found.values()


def _made_anew(experiment: Experiment, by: Callable[[_Enabled, StepSpec], bool], then_el0: bool) -> bool:
    """Does a vCPU write counters so while they count, and has it run at EL0 since?"""
    for steps in _by_vcpu(experiment):
        enabled, anew = _Enabled(), False
        for step in steps:
            if anew and step.el == 0:
                return True
            anew |= by(enabled, step)
            if anew and not then_el0:
                return True
            enabled.after(step)
    return False


def writes_running_counters(experiment: Experiment) -> bool:
    """May a guest write a counter that counts, and run at EL0 then? Linux stops it before."""
    return not experiment.linux_guests or _made_anew(experiment, _Enabled.written, then_el0=True)


def resets_running_counters(experiment: Experiment) -> bool:
    """Or reset it, and run at EL0 then? Linux does neither at once."""
    return not experiment.linux_guests or _made_anew(experiment, _Enabled.reset, then_el0=True)


def sets_registers(experiment: Experiment) -> bool:
    """May a VMM set the registers of a vCPU that has run? One that restores a VM does so before."""

    def sets(steps: list[StepSpec]) -> bool:
        ran = next((n for n, step in enumerate(steps) if step.action == "switch"), len(steps))
        return any(step.action == "set_one_reg" for step in steps[ran:])

    return not experiment.linux_guests or any(map(sets, _by_vcpu(experiment)))


def takes_sides_beside_writes(experiment: Experiment) -> bool:
    """Both: has the host such events, and may a guest write counters? perf_install_in_context() reschedules for the
    first event of a thread though it is off. Linux writes none at EL0, and enables it before it goes there."""
    writes = not experiment.linux_guests or _made_anew(experiment, _Enabled.written_at_all, then_el0=False)
    return writes and takes_sides(experiment)


# How it shows that a guest's event counts too little, or too late: in counts, flags and interrupts, as the guest reads
# them and as its VMM does, not in what KVM saves, or whose it is.
COUNTS = {
    "I3": ("event_count",),
    "I4": ("guest_read", "event_count"),
    "I5": ("late_interrupt", "lost_interrupt", "spurious_interrupt"),
    "I7": ("guest_read",),
    "I11": ("one_reg",),
}

LIMITS: tuple[Declared, ...] = (
    # perf_event_create_kernel_counter() with attr.pinned: merge_sched_in() leaves what has no counter in ERROR.
    *given_up(
        Victim.GUEST,
        "an event of the host's perf counts for each counter, and none where it gets no counter: pinned events of the "
        "host go before it, and without FEAT_PMUv3p5 a cycle counter may need two",
        ("I4", "I5", "I7", "I11"),
        loses_counters,
        COUNTS,
    ),
    # kvm_pmu_create_perf_event(): attr.type is that of the VM's arm_pmu.
    *given_up(
        Victim.GUEST,
        "the events are of one PMU of the host: on the CPUs of another nothing counts",
        ("I4", "I5", "I7", "I11"),
        leaves_its_pmu,
        COUNTS,
    ),
    # kvm_pmu_perf_overflow() sets PMOVSSET_EL0, and increments what chains; armv8pmu_disable_event_irq() clears the
    # flag of an event that goes off before.
    *given_up(
        Victim.GUEST,
        "a guest's overflow flag is set by the host's interrupt handler: late by what the interrupt takes (pmi_delay), "
        "and never if the event is off by then",
        ("I4", "I5", "I7", "I11"),
        overflow_takes_time,
        COUNTS,
    ),
    # kvm_pmu_set_counter_value() makes the event anew, and kvm_vcpu_pmu_restore_guest() does not follow.
    *given_up(
        Victim.GUEST,
        "a write of a counter that counts has its event made anew, which leaves out EL0 up to the next vcpu_load",
        ("I3", "I4", "I5", "I7", "I11"),
        writes_running_counters,
        COUNTS,
    ),
    # kvm_pmu_set_counter_value_user(), kvm_arm_sys_reg_set_reg(): neither releases an event; kvm_vcpu_reload_pmu().
    *given_up(
        Victim.GUEST,
        "what a VMM sets of a vCPU that has run: the events that it has count on, what they have counted is added to "
        "the value that is set (up to Linux 6.14), and another type is not theirs",
        ("I4", "I5", "I7", "I11"),
        sets_registers,
        COUNTS,
    ),
    # perf_event_create_kernel_counter() has ctx_resched() program the host's events as for the host.
    *given_up(
        Victim.HOST,
        "a write of a counter that counts, or that alone has an event, has that made anew, after which events of the "
        "host's that count EL0 of one side count that of the other up to the next vcpu_load",
        ("I3",),
        takes_sides_beside_writes,
        COUNTS,
    ),
    # armv8pmu_get_event_idx() keeps CPU_CYCLES off PMCCNTR_EL0 there.
    *given_up(
        Victim.GUEST,
        "the event of a cycle counter is on an event counter where PMCCNTR_EL0 counts in WFI, and does not count there",
        ("I4", "I5", "I7", "I11"),
        waits_at_el1,
        COUNTS,
    ),
    # __perf_event_account_interrupt(), perf_event_overflow(): armpmu_stop() up to perf_adjust_freq_unthr_events().
    *given_up(
        Victim.GUEST,
        "the host's perf throttles a backing event that overflows with one sample allowed a tick "
        "(perf_event_max_sample_rate): it stands still up to the next tick of the host",
        ("I3", "I4", "I5", "I7", "I11"),
        throttles,
        COUNTS,
    ),
)

# perf_event_create_kernel_counter() has ctx_resched() program the host's events as for the host; since
# kvm_pmu_handle_pmcr() leaves all to KVM_REQ_RELOAD_PMU, PMCR_EL0.P and C have no kvm_vcpu_pmu_restore_guest() follow.
UNRESTORED: tuple[Declared, ...] = (
    *given_up(
        Victim.HOST,
        "PMCR_EL0.P and C have the backing events made anew, after which those of the host that count EL0 of one side "
        "count that of the other up to the next vcpu_load or change of PMCR_EL0.E",
        ("I3",),
        takes_sides,
        COUNTS,
    ),
    *given_up(
        Victim.GUEST,
        "PMCR_EL0.P and C of counters that count have their events made anew, which leaves out EL0 up to the next "
        "vcpu_load or change of PMCR_EL0.E",
        ("I3", "I4", "I5", "I7", "I11"),
        resets_running_counters,
        COUNTS,
    ),
)
