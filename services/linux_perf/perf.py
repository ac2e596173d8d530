"""A kernel's perf: what its scheduler, its interrupt handlers, its users and KVM call, and its state."""

from __future__ import annotations

from collections.abc import Mapping

from services.cpu import Cpu
from services.experiment import DEFAULT_SYSCTLS, PerfSysctls
from services.linux_perf import (
    bperf,
    cpu_pm,
    guest_context,
    inherit,
    interrupts,
    kernel_counters,
    lifecycle,
    reading,
    schedule,
    swevent,
    switch,
)
from services.linux_perf.attr import EventAttr
from services.linux_perf.bpf_maps import Follower, Leader
from services.linux_perf.cpu_context import CpuContext
from services.linux_perf.driver import Driver
from services.linux_perf.event import Context, PerfEvent
from services.linux_perf.ring_buffer import RingBuffer
from services.linux_perf.shared import PerfConfig, Probed, SampleLimits, Shared
from services.registers import (
    INSTRUCTION_BIT,
    PMCEID0_EL0,
    PMCEID1_EL0,
    PMCR_EL0,
    PMCR_N,
    PMCR_N_SHIFT,
    PMMIR_EL1,
    PMUVER_P4,
    counter_mask,
)
from services.state import Objects, Saved, as_frozen, restore, save


class PerfCpu(CpuContext):
    """One CPU's perf as its kernel calls it.

    Every call posts to `cpu.burst` and waits only for values that it must look at. Counter values that are read
    for the record (of an event that goes out at the end of an entry, truth) are *pending* until `settle`; every
    call settles by itself before it needs them. A handler calls `settle` last, and waits by `wait` of this class,
    not of `cpu`.

    Charged here are perf_event_enable and disable (PERF_CALL), creation and release of KVM's counters
    (PERF_RELEASE_CREATE, one half each), read (PERF_READ), perf_pmu_resched_update (PERF_RESCHED, one half each
    for perf_load_guest_context and perf_put_guest_context), event_sched_out and in (EVENT_OUT, EVENT_IN), the interrupt
    handler (HOST_PMI) and a sample's record (SAMPLE). IRQ_ENTRY, TICK and CONTEXT_SWITCH are the kernel's around it.
    """

    __slots__ = ()

    wait = schedule.wait
    settle = schedule.settle
    ctx_lock = schedule.ctx_lock

    task_in = switch.task_in
    task_out = switch.task_out
    task_exit = inherit.task_exit
    fork = inherit.fork

    open = lifecycle.open_event
    new_buffer = lifecycle.new_buffer
    install = lifecycle.install
    enable = lifecycle.enable
    disable = lifecycle.disable
    enable_on_exec = lifecycle.enable_on_exec
    release = lifecycle.release
    exit_cpu = lifecycle.exit_cpu

    read = reading.read_one
    read_group = reading.read_group

    booted = bperf.booted
    cpu_online = bperf.cpu_online
    called = bperf.called
    follow = bperf.follow
    enable_follower = bperf.enable
    disable_follower = bperf.disable
    sync_followers = bperf.sync
    read_follower = bperf.read
    leave = bperf.leave

    handle_irq = interrupts.handle_irq
    handler_took = interrupts.handler_took
    irq_work = interrupts.irq_work
    tick = interrupts.tick
    mux_timer = interrupts.mux_timer
    hrtimers_expired = swevent.hrtimers_expired

    reset = cpu_pm.reset
    cpu_pm_enter = cpu_pm.enter
    cpu_pm_exit = cpu_pm.leave

    create_kernel_counter = kernel_counters.create
    destroy_kernel_counter = kernel_counters.destroy
    recreate_kernel_counter = kernel_counters.recreate
    read_kernel_counter = kernel_counters.read
    enable_each = kernel_counters.enable_each
    disable_each = kernel_counters.disable_each
    el0_filter = kernel_counters.el0_filter
    set_counters = kernel_counters.set_counters
    keep_on = kernel_counters.keep_on
    load_guest_context = guest_context.load
    put_guest_context = guest_context.put

    async def probe(self, cpu: Cpu) -> None:
        """What a kernel does at boot: armv8pmu_probe_pmu, on the first CPU of each PMU, and reset, on all."""
        arm_pmu, probed = self.config.arm_pmu, self.shared.probed
        if arm_pmu not in probed:
            probed[arm_pmu] = await self._probe(cpu)
        found = probed[arm_pmu]
        self.counters = found.counters
        self.pmu.probed(found.counters, found.pmceid0, found.pmceid1)
        self.pmu.cntr_mask = counter_mask(self.counters)
        if self.config.icntr:
            self.pmu.cntr_mask |= INSTRUCTION_BIT
        self.reset(cpu)

    async def _probe(self, cpu: Cpu) -> Probed:
        """__armv8pmu_probe_pmu: what PMCR_EL0.N, PMCEID<n>_EL0 and PMMIR_EL1 say."""
        burst = cpu.burst
        pmcr = burst.mrs(PMCR_EL0)
        pmceid0, pmceid1 = burst.mrs(PMCEID0_EL0), burst.mrs(PMCEID1_EL0)
        if self.config.pmuver >= PMUVER_P4:
            burst.mrs(PMMIR_EL1)
        values = await self.wait(cpu)
        return Probed((values[pmcr] & PMCR_N) >> PMCR_N_SHIFT, values[pmceid0], values[pmceid1])


class Perf:
    """One kernel's perf: the contexts of its tasks, which move between CPUs, and its limits on sampling."""

    DERIVED = frozenset({"shared", "cpus"})

    def __init__(
        self, *, frequency_hz: int, hz: int, costs: Mapping[str, int], sysctls: PerfSysctls = DEFAULT_SYSCTLS
    ) -> None:
        """`costs`: cycles by lower-case name of `services.costs.Cost`, as an actor gets them when it is booted."""
        self.shared = Shared.of(frequency_hz=frequency_hz, hz=hz, costs=costs, sysctls=sysctls)
        self.cpus: list[PerfCpu] = []

    def add_cpu(self, config: PerfConfig) -> PerfCpu:
        shared = self.shared
        if config.arm_pmu not in shared.pmus:
            shared.pmus[config.arm_pmu] = self._driver(config)
        shared.covers[config.cpu] = config.arm_pmu
        driver = shared.drivers[config.cpu] = self._driver(config)
        cpu = PerfCpu(driver, shared, config, shared.new_context(None))
        self.cpus.append(cpu)
        return cpu

    def add_pmu(self, config: PerfConfig, probed: Probed, cntr_mask: int) -> None:
        """A PMU as its kernel finds it before anybody opens an event, though its CPUs have yet to boot here.

        `config` is that of one of its CPUs, `cntr_mask` what the driver uses of it.
        """
        if config.arm_pmu not in self.shared.pmus:
            pmu = self.shared.pmus[config.arm_pmu] = self._driver(config)
            pmu.probed(probed.counters, probed.pmceid0, probed.pmceid1)
            pmu.cntr_mask = cntr_mask

    def _driver(self, config: PerfConfig) -> Driver:
        return Driver(
            config.pmuver,
            config.hyp,
            config.icntr,
            config.avoid_pmccntr,
            config.high_to_low,
            self.shared.costs,
            config.arm_pmu,
            config.group_throttle,
            config.hpme,
            config.denied,
            config.resync_in_process,
            config.none,
        )

    def cpu(self, number: int) -> PerfCpu:
        """The CPU with this number in its configuration. Raises KeyError."""
        for cpu in self.cpus:
            if cpu.config.cpu == number:
                return cpu
        raise KeyError(f"perf has no CPU {number}")

    def driver(self, arm_pmu: int) -> Driver:
        """A PMU, without regard to its CPUs. Raises KeyError."""
        return self.shared.pmus[arm_pmu]

    @property
    def limits(self) -> SampleLimits:
        return self.shared.limits

    @property
    def events(self) -> dict[int, PerfEvent]:
        """Open ones, by id."""
        return self.shared.events

    # State.

    def state(self) -> Saved:
        """All of it between two entries, as plain data."""
        return {
            "shared": save(self.shared),
            "events": [save(event) for event in self.shared.events.values()],
            "buffers": [save(rb) for rb in self.buffers().values()],
            "leaders": [save(leader) for leader in self.shared.leaders],
            "followers": [save(follower) for follower in self.shared.followers],
            "contexts": [save(ctx) for ctx in self.contexts().values()],
            "cpus": [[cpu.config.cpu, save(cpu)] for cpu in self.cpus],
        }

    def restore(self, saved: Saved) -> Objects:
        """Take up what `state` gave of a perf with the same costs and CPUs; its events and contexts, by their ids."""
        shared = self.shared
        known = self.contexts()
        contexts = {one["id"]: known.get(one["id"]) or Context(one["id"], None) for one in saved["contexts"]}
        events = {one["id"]: self._event(one) for one in saved["events"]}
        mapped = self.buffers()
        buffers = {one["id"]: mapped.get(one["id"]) or RingBuffer(one["id"]) for one in saved["buffers"]}
        leaders = {one["id"]: Leader(one["id"]) for one in saved["leaders"]}
        followers = {one["id"]: Follower(one["id"]) for one in saved["followers"]}
        objects: Objects = {
            Context: contexts,
            PerfEvent: events,
            RingBuffer: buffers,
            Leader: leaders,
            Follower: followers,
        }
        for one in saved["leaders"]:
            restore(leaders[one["id"]], one, objects)
        for one in saved["followers"]:
            restore(followers[one["id"]], one, objects)
        for one in saved["buffers"]:
            restore(buffers[one["id"]], one)
        for one in saved["contexts"]:
            restore(contexts[one["id"]], one, objects)
        for one in saved["events"]:
            restore(events[one["id"]], one, objects)
        restore(shared, saved["shared"], objects)
        self.cpus = [self.cpu(number) for number, _ in saved["cpus"]]  # in the order in which they booted
        for cpu, (_, one) in zip(self.cpus, saved["cpus"], strict=True):
            restore(cpu, one, objects)
            for pending in (cpu.pending_outs, cpu.pending_truths, cpu.pending_held, cpu.pending_withheld):
                pending.clear()  # of a handler that has failed
            for event in cpu.pmu.events:
                if event is not None:
                    event.out = cpu.pmu.out_of(event)
        return objects

    def buffers(self) -> dict[int, RingBuffer]:
        """All ring buffers by id: those of events, and those whose readers are to be woken though they are closed."""
        named = (event.rb for event in self.events.values() if event.rb is not None)
        return {rb.id: rb for rb in (*named, *(rb for cpu in self.cpus for rb in cpu.wakeups))}

    def contexts(self) -> dict[int, Context]:
        """All contexts by id: of CPUs and tasks, and those that only events or clones still name."""
        named = [event.ctx for event in self.events.values()]
        clones = [ctx.clone_of for ctx in self.shared.tasks.values()]
        found = (*(cpu.ctx for cpu in self.cpus), *self.shared.tasks.values(), *named, *clones)
        return {ctx.id: ctx for ctx in found if ctx is not None}

    def _event(self, saved: Saved) -> PerfEvent:
        """The event that is open, if it is that one, or one as it was opened: the drivers of all CPUs of its PMU make
        the same of it. In another past the same id may have been another event's."""
        attr = as_frozen(EventAttr, saved["attr"])
        kernel_counter = saved["handle"] >= 0
        known = self.shared.events.get(saved["id"])
        if known is not None and known.is_kvm == kernel_counter and _counts(known, attr, saved["pmu"]):
            return known
        pmu = self.cpus[0].pmu if attr.software else self.driver(saved["pmu"])
        hw = pmu.hw_kernel_counter(attr.event, attr.kernel_flags()) if kernel_counter else pmu.hw_event(attr)
        return PerfEvent(saved["id"], attr, hw, saved["handle"])


def _counts(event: PerfEvent, attr: EventAttr, pmu: int) -> bool:
    """Does an event count this? A software event's group may have moved to another PMU since."""
    return (event.attr is attr or event.attr == attr) and (attr.software or event.hw.pmu == pmu)
