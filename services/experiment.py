"""One run as data: what `pmulab.scenario` resolves a scenario to, and what every actor is booted with.

Everything is already resolved: times are cycles of the one CPU clock, event names are PMUv3 event
numbers, workloads are phases of a profile. kvm is given the whole experiment and hands each actor
its part in the BOOT entry, so that an actor in a process of its own needs only an address.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

ANY_PMU: Final = -1  # whichever covers the CPU


@dataclass(frozen=True, slots=True)
class EventSpec:
    """One perf event of a session, as its `perf_event_attr` would have it."""

    name: str  # as the user wrote it, modifiers included
    event: int  # PMUv3 event number
    leader: int  # index within the session of the group leader; its own index if alone
    frequency: int = 0  # samples per second (attr.freq = 1), 0: not by frequency
    period: int = 0  # events per sample, 0: counting only
    pinned: bool = False
    exclusive: bool = False
    weak: bool = False  # of a group that perf breaks up where it cannot be opened as one
    sample_read: bool = False  # PERF_SAMPLE_READ, of the whole group where there is one
    bpf: bool = False  # perf stat has BPF programs count it (bperf); perf record does not look at that
    exclude_idle: bool = False
    exclude_user: bool = False
    exclude_kernel: bool = False
    exclude_hv: bool = False
    exclude_host: bool = False
    exclude_guest: bool = False
    names_side: bool = False  # `G` or `H` says whether it counts guests or the host (exclude_GH)
    long: bool = False  # config1 bit 0: 64-bit overflow
    rdpmc: bool = False  # config1 bit 1: its task may read the counter
    pmu: int = ANY_PMU  # of the host's (`core_pmus`), the one that it is bound to; a guest has one
    software: bool = False  # PERF_TYPE_SOFTWARE: `event` is one of services.events.Software
    generic: bool = False  # PERF_TYPE_HARDWARE or _HW_CACHE, which the PMU looks up among its events; else a raw number
    sysfs: bool = False  # named as the PMU's events are in sysfs, where those that it lacks are not


MMAP_PAGES: Final = 128  # of perf record, by the default of perf_event_mlock_kb


@dataclass(frozen=True, slots=True)
class SessionSpec:
    """One `perf stat` or `perf record`."""

    verb: str  # "stat" or "record"
    events: tuple[EventSpec, ...]
    cpu_wide: bool = False  # -a / -C: per-CPU events, for as long as the run lasts
    interval: int = 0  # perf stat -I, in cycles; 0: it prints at its end alone
    name: str = ""  # one session on several CPUs has one name, and its events are reported as one; "": it stands alone
    mmap_pages: int = MMAP_PAGES  # of 4 KiB, of the ring buffer on each CPU (record)
    warned: tuple[str, ...] = ()  # of what the tool has warned, as it prints it

    @property
    def bpf(self) -> bool:
        """Do BPF programs count some of its events, each by one event of every CPU?"""
        return self.verb == "stat" and any(event.bpf for event in self.events)

    def excluding_guests(self) -> list[int]:
        """The events that perf_event_open admits while VMs own the whole PMU: the places in `events`."""
        return [i for i, event in enumerate(self.events) if event.exclude_guest or event.software]


@dataclass(frozen=True, slots=True)
class PhaseSpec:
    """A stretch of work whose events come at constant rates."""

    profile: int  # index into Experiment.profiles
    cycles: int
    el: int = 0  # 0 user, 1 the guest's kernel, 2 the host's


# How a kernel accounts CPU time (Linux 6.12, kernel/sched/cputime.c).
ACCOUNTING: Final = ("tick", "tick+irq", "vtime", "vtime+irq")
IRQTIME: Final = frozenset({"tick+irq", "vtime+irq"})  # CONFIG_IRQ_TIME_ACCOUNTING
VTIME: Final = frozenset({"vtime", "vtime+irq"})  # CONFIG_VIRT_CPU_ACCOUNTING_GEN

MAX_THREADS: Final = 1024  # of one task


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A program: its phases `repeat` times over, alone or under a perf session (fork, exec, exit).

    Each time it does them in so many `turns`, a part of each phase in each turn.
    """

    name: str
    phases: tuple[PhaseSpec, ...]
    repeat: int = 1
    session: SessionSpec | None = None
    sleep: int = 0  # cycles asleep between repetitions (WFI if nothing else runs)
    threads: int = 1  # the program forks threads - 1 tasks more, which do the same work and inherit its session
    turns: int = 1
    read_every: int = (
        0  # cycles at EL0 after which it reads the counters of its session's rdpmc=1 events there; 0: never
    )

    @property
    def session_name(self) -> str:
        """Where the scenario has its session; empty without one, or if a client has brought it."""
        return "" if self.session is None else self.session.name

    def part(self, phase: int, turn: int) -> int:
        """The cycles of a phase in a turn: in the kernel as many in each, at EL0 irregularly many.

        At regular intervals a tick could find the kernel each time, or never.
        """
        spec = self.phases[phase]
        if self.turns == 1:
            return spec.cycles
        irregular = spec.el == 0
        return self._done(spec.cycles, turn + 1, irregular) - self._done(spec.cycles, turn, irregular)

    def _done(self, cycles: int, turns: int, irregular: bool) -> int:
        """How many of a phase's cycles have been done after so many turns: at least one in each."""
        if not irregular or turns in (0, self.turns):
            return cycles * turns // self.turns
        mixed = (turns * 0x9E3779B97F4A7C15) & 0xFFFF_FFFF_FFFF_FFFF  # SplitMix64's first two steps
        mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & 0xFFFF_FFFF_FFFF_FFFF
        spare = cycles - self.turns
        return turns + (spare * ((turns << 32) + (mixed >> 32)) // (self.turns << 32))


@dataclass(frozen=True, slots=True)
class VcpuSpec:
    """One vCPU: the pCPU it is pinned to (-1: floats) and the tasks its guest kernel runs on it."""

    pcpu: int
    tasks: tuple[TaskSpec, ...]
    sessions: tuple[SessionSpec, ...] = ()  # cpu_wide sessions on this vCPU
    host_sessions: tuple[SessionSpec, ...] = ()  # of the host, on this vCPU's thread (perf stat -t); pinned vCPUs only


@dataclass(frozen=True, slots=True)
class PerfSysctls:
    """`kernel.perf_*` of one kernel, with its defaults."""

    max_sample_rate: int = 100_000  # perf_event_max_sample_rate, per second
    cpu_time_max_percent: int = 25  # perf_cpu_time_max_percent; 0 and 100: no limit follows from the time of samples
    user_access: bool = False  # perf_user_access: EL0 may read counters


DEFAULT_SYSCTLS: Final = PerfSysctls()


@dataclass(frozen=True, slots=True)
class GuestSpec:
    """One VM."""

    name: str
    hz: int
    counters: int  # event counters userspace asks for (PMCR_EL0.N), the cycle counter beside them
    pmuver: int  # ID_AA64DFR0_EL1.PMUVer as the guest reads it; 0: it finds no PMU and never touches one
    vcpus: tuple[VcpuSpec, ...]
    mux_interval: int = 0  # cycles; 0: perf_event_mux_interval_ms' default, 1000/HZ ms
    denied: tuple[int, ...] = ()  # events that the VM's filter denies (KVM_ARM_VCPU_PMU_V3_FILTER)
    accounting: str = ACCOUNTING[0]
    sysctls: PerfSysctls = DEFAULT_SYSCTLS
    group_throttle: bool = False  # its perf throttles the group of what overflows too often (Linux 6.16), not it alone

    def allowed(self, cpus: Sequence[CpuSpec]) -> tuple[CpuSpec, ...]:
        """Of the machine's `cpus`, those that its vCPUs may run on."""
        pinned = sorted({vcpu.pcpu for vcpu in self.vcpus})
        return tuple(cpus) if pinned[0] < 0 else tuple(cpus[pcpu] for pcpu in pinned)

    def may_run_on(self, pcpu: int) -> bool:
        """May a vCPU of its run on that pCPU?"""
        return any(vcpu.pcpu in (pcpu, -1) for vcpu in self.vcpus)


@dataclass(frozen=True, slots=True)
class HostCpuSpec:
    """What the host itself runs on one pCPU."""

    tasks: tuple[TaskSpec, ...] = ()
    sessions: tuple[SessionSpec, ...] = ()
    offline: tuple[tuple[int, int], ...] = ()  # from a time up to another, in cycles, in order


@dataclass(frozen=True, slots=True)
class ReservedHostCounters:
    """What an operator writes to `reserved_host_counters` in sysfs."""

    values: tuple[int, ...]  # of each pCPU


@dataclass(frozen=True, slots=True)
class ParameterWrite:
    """An operator writes `reserved_host_counters` in sysfs."""

    time: int  # cycles
    reserved: tuple[int, ...]  # of each pCPU


@dataclass(frozen=True, slots=True)
class HostSpec:
    hz: int
    cpus: tuple[HostCpuSpec, ...]
    mux_interval: int = 0  # cycles; 0: perf_event_mux_interval_ms' default, 1000/HZ ms
    powerdown_residency: int = 0  # cycles of idleness for which a core loses its power; 0: it never does
    powerdown_exit: int = 0  # cycles that it then takes to come back
    perf_tool: str = "6.13"  # of clients' sessions; those above are as it makes them
    accounting: str = ACCOUNTING[0]
    sysctls: PerfSysctls = DEFAULT_SYSCTLS
    group_throttle: bool = False  # as a guest's
    pseudo_nmi: bool = False  # irqchip.gicv3_pseudo_nmi: the PMU's interrupt is one
    parameter_writes: tuple[ParameterWrite, ...] = ()  # in order


NO_PARTITION: Final = -1


@dataclass(frozen=True, slots=True)
class CpuSpec:
    """A pCPU's features (`services.cores`)."""

    model: str
    counters: int  # event counters, PMCR_EL0.N at EL2
    pmuver: int
    fgt: int = 0  # 0 none, 1 FEAT_FGT, 2 FEAT_FGT2
    hpmn0: bool = False
    icntr: bool = False
    pmi_delay: int = 0  # cycles that a PMU interrupt takes from the overflow to the CPU
    pmccntr_in_wfi: bool = False  # PMCCNTR_EL0 counts in WFI, CPU_CYCLES does not
    pmceid0: int | None = None  # PMCEID0_EL0; None: all that PMUv3 names
    pmceid1: int | None = None
    reserved_host_counters: int | None = None  # arm_pmuv3's parameter, or NO_PARTITION; None: what guests leave

    @property
    def max_guest_counters(self) -> int | None:
        """The event counters that the host's parameter leaves to guests; None without one, or without a partition."""
        reserved = self.reserved_host_counters
        return None if reserved is None or reserved == NO_PARTITION else self.counters - reserved

    def implements(self, event: int) -> bool:
        """Does it have a common event, 0 to 0x3f?"""
        pmceid = self.pmceid1 if event >> 5 else self.pmceid0
        return pmceid is None or bool(pmceid >> (event & 31) & 1)


@dataclass(frozen=True, slots=True)
class ExitSpec:
    """How many cycles of an exit to the host kernel's C code have its interrupts masked."""

    out: int = 0  # before guest_timing_exit_irqoff()
    into: int = 0  # from the local_irq_disable() before guest_timing_enter_irqoff() to the guest

    def parts(self, whole: int) -> tuple[int, int, int]:
        """An exit that takes `whole` cycles: up to where interrupts are unmasked, to where they are masked again, and
        into the guest."""
        out = min(self.out, whole)
        into = min(self.into, whole - out)
        return out, whole - out - into, into


@dataclass(frozen=True, slots=True)
class DesignSpec:
    """A vPMU design and the values of its axes."""

    name: str
    axes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One `[[step]]`: what a party does next. What its action does not need is as it is here.

    `target` is by the party: of a guest's `vm0/1` the index among all vCPUs, of `host/1` the pCPU, of `vm0` the VM's
    number, of `host` the pCPU of a session on one, -1.
    """

    where: str  # file and line, for messages
    party: str  # as the user wrote it
    action: str
    target: int
    at: int = -1  # before which operation of KVM's, in what the next step has it do, it comes; -1: at once
    register: int = 0  # encoding
    value: int = 0
    el: int = 1
    cycles: int = 0
    profile: int = 0
    until_event: bool = False  # it runs up to an interrupt, for `cycles` at most
    pcpu: int = -1  # where it migrates to
    events: tuple[int, int] = (0, 0)  # of the event filter: the first number, and how many
    flag: bool = False  # clear, deny, powerdown or disabled, whichever the action has
    name: str = ""  # of a perf session
    session: SessionSpec | None = None
    thread: int = -1  # the index of the vCPU on whose thread the session is
    reserved: tuple[int, ...] = ()  # what is written to reserved_host_counters, of each pCPU


MAX_SEED: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Experiment:
    scenario: str
    seed: int
    frequency_hz: int  # of every pCPU
    cpus: tuple[CpuSpec, ...]
    events: tuple[int, ...]  # every event number that is tallied
    costs: dict[str, int]  # cycles, by the names of services.costs.Cost
    profiles: tuple[tuple[tuple[int, int], ...], ...]  # (event, occurrences per cycle as Q32.32)
    host_kernel_profile: int
    guest_kernel_profile: int
    host: HostSpec
    guests: tuple[GuestSpec, ...]
    design: DesignSpec
    halt_poll: int = 0  # kvm.halt_poll_ns, in cycles
    linux_guests: bool = (
        True  # guests do what Linux does, and scripted ones what their steps say; not all that they can
    )
    traps_wfi: bool = True  # HCR_EL2.TWI while a guest runs (kvm-arm.wfi_trap_policy)
    assumed_costs: dict[str, str] = field(
        default_factory=dict
    )  # costs that nobody has measured; what was taken instead
    exits: ExitSpec = ExitSpec()
    steps: tuple[StepSpec, ...] = ()  # in place of the choices of scheduler, workloads and VMM; (): they choose
    judged: bool = True  # the invariants are judged
    stop_on_violation: bool = False  # at the first that counts
    known: tuple[str, ...] = ()  # invariants that the design is known to break: their violations do not count

    def first_pcpu(self, vcpu: VcpuSpec, number: int) -> int:
        """Where the vCPU that is `number` among all is made: those that float, on one pCPU after the other."""
        return vcpu.pcpu if vcpu.pcpu >= 0 else number % len(self.cpus)

    def host_sessions(self) -> Iterator[SessionSpec]:
        """Those on the host, on each of their CPUs and threads."""
        for cpu in self.host.cpus:
            yield from cpu.sessions
            yield from (task.session for task in cpu.tasks if task.session is not None)
        for guest in self.guests:
            for vcpu in guest.vcpus:
                yield from vcpu.host_sessions

    def host_recording(self) -> set[str]:
        """The names of the sessions that record on the host."""
        return {session.name for session in self.host_sessions() if session.verb == "record"}
