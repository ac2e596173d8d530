"""The host's kernel as far as the PMU goes: who enters it why, and what its perf then does."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from services import typed_json
from services.boot import NO_PROCESS, CpuSession, HostBoot, HostPolicy, ThreadSession
from services.cpu import Call, ContextLock, Cpu, CpuPm, Entry, EntryKind, HostEnable, Notice, Row, Sgi, Timer
from services.experiment import ANY_PMU, EventSpec, SessionSpec
from services.linux_perf import NOBODY, Perf, PerfConfig, PerfCpu, PerfEvent, Probed, Session
from services.linux_perf.driver import Driver
from services.linux_perf.tool import without_guests
from services.registers import bits
from services.state import Objects, Saved, as_frozen, derived, restore, save

# As plain integers: KVM's calls come by the million, and an enum's member is looked up each time.
CREATE, RELEASE, ENABLE, DISABLE, READ, EL0_FILTER, GUEST_COUNTERS, LONG_OVERFLOW, GUEST_CONTEXT = map(int, Call)
RESULT = int(Notice.RESULT)
PMU_IRQ = EntryKind.PMU_IRQ
INTERRUPTS = (EntryKind.TIMER, EntryKind.SGI, EntryKind.REQUEST)  # and it: a user's request reaches its CPU by an IPI


Work = Coroutine[Any, Any, object]  # what is left of a handler


class BadRequest(ValueError):
    """A request or call that the host's perf cannot make sense of."""


class HostPerf:
    """One host kernel's perf, on all its pCPUs."""

    DERIVED = frozenset({"perf", "cpus", "counters", "readers"})  # each has a state of its own, or is part of `state`

    def __init__(self) -> None:
        self.perf: Perf | None = None  # made by the first CPU's BOOT
        self.cpus: dict[int, HostCpu] = {}
        self.readers: list[str] = []  # perf processes that record, by number: the session's name, "" of a client's
        self.counters: dict[int, PerfEvent] = {}  # KVM's, by handle; they move with their vCPU's thread

    def attend(self, index: int) -> HostCpu:
        """The software that attends pCPU `index`."""
        cpu = self.cpus.get(index)
        if cpu is None:
            cpu = self.cpus[index] = HostCpu(self, index)
        return cpu

    def perf_of(self, boot: HostBoot) -> Perf:
        """What all CPUs share, made by the first that boots."""
        if self.perf is None:
            self.perf = Perf(frequency_hz=boot.frequency_hz, hz=boot.hz, costs=boot.costs, sysctls=boot.sysctls)
        return self.perf

    def reader_of(self, session: str) -> int:
        """The number of the process behind a session: one for all CPUs, of a client one for each."""
        if not session or session not in self.readers:
            self.readers.append(session)
            return len(self.readers) - 1
        return self.readers.index(session)

    def read_buffers(self, reader: int) -> int:
        """A process looks at its ring buffers, of all CPUs: the bytes that it finds."""
        sessions = (session for cpu in self.cpus.values() for session in cpu.sessions if session.reader == reader)
        return sum(session.buffer.read() for session in sessions if session.buffer is not None)

    def state(self) -> Saved:
        """Everything of the host's perf, as plain data."""
        return {
            "cpus": [[index, cpu.state()] for index, cpu in self.cpus.items()],
            "perf": None if self.perf is None else self.perf.state(),
            "readers": [*self.readers],
            "counters": [[handle, event.id] for handle, event in sorted(self.counters.items())],
        }

    def restore(self, saved: Saved) -> None:
        """Take up what `state` gave of a host with the same CPUs."""
        for index, of_cpu in saved["cpus"]:
            cpu, boot = self.attend(index), of_cpu["boot"]
            if cpu.boot is None and boot is not None:
                cpu.configure(as_frozen(HostBoot, boot))
        if saved["perf"] is None:  # no CPU had booted
            self.perf = None
        objects = {} if self.perf is None else self.perf.restore(saved["perf"])
        events = objects.get(PerfEvent, {})
        self.readers = [*saved["readers"]]
        self.counters = {handle: events[event] for handle, event in saved["counters"]}
        for index, of_cpu in saved["cpus"]:
            self.cpus[index].restore(of_cpu, objects)


@dataclass(slots=True, eq=False)
class HostCpu:
    """The host's kernel on one pCPU (`services.cpu.Software`)."""

    host: HostPerf = derived()
    index: int = derived()
    boot: HostBoot | None = None
    refused: list[str] = field(default_factory=list)  # events whose perf_event_open failed, by name
    thread: int = -1  # the current one
    yet_to_exec: list[int] = field(default_factory=list)  # tasks that perf has forked
    reserved: int = 0  # counters that are the guests' for good, one bit each
    squeezed: bool = False  # events were taken off the guest's range at vcpu_load
    handler_began: int = -1  # when the PMU interrupt handler that was the last entry began, in cycles

    sessions: list[Session] = derived(default_factory=list)  # they have states of their own
    perf: PerfCpu = derived(init=False)  # from the boot on
    vcpu_threads: frozenset[int] = derived(init=False)

    def enter(self, cpu: Cpu, entry: Entry) -> Work | None:
        """As `services.cpu.Software`."""
        if self.handler_began >= 0:
            self.perf.handler_took(self.handler_began, entry.previous_done)
            self.handler_began = -1
        if not entry.calls:
            if entry.kind is not PMU_IRQ:
                return self._handle(cpu, entry)
            self.handler_began = entry.now
            self.perf.in_interrupt = True
            return self.perf.handle_irq(cpu)
        # KVM's calls, one after the other; at once up to the first that has to wait for a value.
        perf, counters = self.perf, self.host.counters
        perf.in_interrupt = False
        calls = iter(entry.calls)
        for code, handle, a, b, c in calls:
            work: Work | None
            if code == EL0_FILTER:
                perf.el0_filter(cpu, bool(handle))
                continue
            if code == READ:
                count = perf.read_kernel_counter(cpu, counters[handle])
                if isinstance(count, int):
                    cpu.burst.notify(RESULT, count)
                    continue
                work = _tell(cpu, count)
            elif code == CREATE:
                former = counters.get(handle)
                if former is not None and perf.recreate_kernel_counter(cpu, former, a, b, c, self._pmu_of(handle)):
                    continue
                work = self._create(cpu, former, handle, a, b, c)
            elif code == DISABLE:
                perf.disable_each(cpu, [counters[handle + n] for n in bits(a)])
                continue
            elif code == ENABLE:
                work = perf.enable_each(cpu, [counters[handle + n] for n in bits(a)])
            elif code == RELEASE:
                work = perf.destroy_kernel_counter(cpu, counters.pop(handle))
            elif code == LONG_OVERFLOW:
                for n in bits(a):
                    counters[handle + n].long_overflow = bool(b >> n & 1)
                continue
            elif code == GUEST_COUNTERS:
                work = self._guest_counters(cpu, handle, enable=a, flags=b or handle, guest_time=bool(c))
            elif code == GUEST_CONTEXT:
                work = perf.load_guest_context(cpu) if handle else perf.put_guest_context(cpu)
            else:
                raise BadRequest(f"a CALL with the code {code}, which is not a kernel-counter operation")
            if work is not None:
                return self._calls_after(cpu, work, tuple(calls))
        perf.entry += 1  # `settle`, open-coded: no handler is as frequent
        if perf.pending_outs or perf.pending_truths or perf.pending_held:
            return perf.wait(cpu)
        return None

    async def _handle(self, cpu: Cpu, entry: Entry) -> None:
        if entry.kind is not EntryKind.BOOT:  # which makes it
            self.perf.in_interrupt = entry.kind in INTERRUPTS
        match entry.kind:
            case EntryKind.TIMER:
                if entry.argument >> Timer.SWEVENT & 1:
                    await self.perf.hrtimers_expired(cpu, user=entry.el == 0 and self.thread not in self.vcpu_threads)
                if entry.argument >> Timer.TICK & 1:
                    await self.perf.tick(cpu)
                if entry.argument >> Timer.MUX & 1:
                    await self.perf.mux_timer(cpu)
            case EntryKind.SGI if entry.argument == Sgi.CALL_FUNC:
                await self.perf.called(cpu)
            case EntryKind.SGI:
                for rb in self.perf.irq_work():
                    cpu.burst.notify(Notice.WAKEUP, rb.reader)
            case EntryKind.USER:
                for session in self.sessions:
                    if session.task == entry.argument:
                        for register in session.user_readable():
                            cpu.burst.user_mrs(register)
            case EntryKind.READER:
                cpu.answer(b"%d" % self.host.read_buffers(entry.argument))
            case EntryKind.TASK_IN:
                await self._task_in(cpu, entry.argument, from_idle=entry.el < 0)
            case EntryKind.TASK_OUT:
                await self._task_out(cpu, entry.argument)
            case EntryKind.BOOT:
                await self._boot(cpu, typed_json.loads(HostBoot, entry.payload))
            case EntryKind.REQUEST:
                await self.perf.ctx_lock(cpu, ContextLock.IPI)
                await self._request(cpu, orjson.loads(entry.payload))
            case EntryKind.CPU_PM:
                await (self.perf.cpu_pm_exit if entry.argument == CpuPm.EXIT else self.perf.cpu_pm_enter)(cpu)
            case EntryKind.CPUHP if entry.argument:
                self.perf.reset(cpu)  # arm_perf_starting_cpu
                self.perf.cpu_online(online=True)
            case EntryKind.CPUHP:
                await self.perf.exit_cpu(cpu)
                self.perf.cpu_online(online=False)
            case EntryKind.REPORT:
                await self._report(cpu)
            case _:
                raise BadRequest(f"the host's perf has no handler for {entry.kind!r}")
        await self.perf.settle(cpu)

    def configure(self, boot: HostBoot) -> None:
        """What follows from the boot payload."""
        self.boot = boot
        self.vcpu_threads = frozenset(boot.vcpu_threads)
        features = boot.features
        config = PerfConfig(
            pmuver=features.pmuver,
            hyp=True,
            cpu=self.index,
            icntr=features.icntr,
            avoid_pmccntr=features.pmccntr_in_wfi,
            arm_pmu=boot.arm_pmu,
            heterogeneous=len(boot.pmus) > 1,
            group_throttle=boot.group_throttle,
            observed=boot.observed,
            mux_interval=boot.mux_interval,
            high_to_low=boot.policy.high_to_low,
            hpme=boot.policy.hpme,
            resync_in_process=boot.policy.resync_in_process,
            none=boot.policy.forwarded_irq,
        )
        perf = self.host.perf_of(boot)
        for number, pmu in enumerate(boot.pmus):
            of = pmu.features
            its = replace(config, pmuver=of.pmuver, icntr=of.icntr, avoid_pmccntr=of.pmccntr_in_wfi, arm_pmu=number)
            perf.add_pmu(its, Probed(of.counters, pmu.pmceid0, pmu.pmceid1), pmu.cntr_mask)
            perf.shared.covers.update(dict.fromkeys(pmu.cpus, number))
        self.perf = perf.add_cpu(config)

    async def _boot(self, cpu: Cpu, boot: HostBoot) -> None:
        self.configure(boot)
        perf, policy = self.perf, boot.policy
        await perf.probe(cpu)
        perf.split_irq, perf.own_flags = policy.split_irq, policy.own_flags
        perf.fixed_flags, perf.hpmn_flags = policy.fixed_flags, policy.hpmn_flags
        self._reserve(perf.pmu.cntr_mask, policy)
        perf.guest_mask = policy.guest_flags if policy.fixed_flags else self.reserved
        await perf.set_counters(cpu, policy.counters, reschedule=False)
        await perf.booted(cpu)
        for of_cpu in boot.sessions:
            await self._open(cpu, of_cpu, None)
        for of_thread in boot.threads:
            ended = await self._open(cpu, of_thread, of_thread.thread)
            if ended and of_thread.thread not in self.vcpu_threads:
                cpu.burst.notify(Notice.TASK_KILLED, of_thread.thread)  # evlist__cancel_workload

    def _reserve(self, counters: int, policy: HostPolicy) -> None:
        """What of the PMU's `counters` is the guests' for good."""
        self.perf.pmu.guests = policy.guest_flags if policy.swaps_pinned else 0
        self.reserved = counters & ~policy.counters

    async def _parameter_written(self, cpu: Cpu, policy: HostPolicy) -> None:
        """`reserved_host_counters` is another: perf_pmu_resched_update. No counter of a VM is concerned, whether or not
        one of its vCPUs is loaded."""
        assert self.boot is not None
        assert self.host.perf is not None
        perf = self.perf
        self._reserve(self.boot.policy.counters | self.reserved, policy)
        self.boot = replace(self.boot, policy=policy)
        if not perf.range_only:
            perf.guest_mask = self.reserved
        perf.waiting = False
        await perf.set_counters(cpu, policy.counters, reschedule=True, guest_loaded=perf.guest_loaded)
        if self.index == self.boot.pmus[self.boot.arm_pmu].cpus[0]:
            self.host.perf.driver(self.boot.arm_pmu).cntr_mask = policy.counters  # what groups are validated against

    async def _open(
        self, cpu: Cpu, of: CpuSession | ThreadSession, task: int | None, *, delayed: bool = False, vms: bool = True
    ) -> bool:
        """Did the tool end, as it could not open an event?"""
        assert self.boot is not None
        spec, process = of.session, of.process
        if self.boot.policy.refuses_guests and vms:
            spec = _fallen_back(spec)
            ending = _ends_without(spec)
            if ending:
                self.sessions.append(Session(spec, task, self.perf, refused=ending))
                return True
            spec, refused = _excluding_guests(spec)
            self.refused += refused
        if not spec.events:
            if process != NO_PROCESS:
                cpu.burst.notify(Notice.TASK_KILLED, process)
            return False
        reader = self.host.reader_of(spec.name) if spec.verb == "record" else NOBODY
        forked = task is not None and task not in self.vcpu_threads
        session = Session(
            spec, task, self.perf, of.cpus, on_exec=forked, delayed=delayed, reader=reader, process=process
        )
        self.sessions.append(session)
        await session.open(cpu)
        if task is not None and forked and not session.refused:
            self.yet_to_exec.append(task)
        if session.refused and process != NO_PROCESS:
            cpu.burst.notify(Notice.TASK_KILLED, process)
        return bool(session.refused)

    async def _request(self, cpu: Cpu, request: dict[str, Any]) -> None:
        """A user's `perf stat -a` or `perf record -a`, from now on; what a perf reads of its session, once more;
        that the program under one has exited; what is the host's since an operator has written so; or a call of a
        session that a scenario's step makes."""
        if set(request) == {"policy"}:
            await self._parameter_written(cpu, typed_json.read(HostPolicy, request["policy"]))
            return
        if set(request) == {"interval", "last"}:
            await self._interval(cpu, request["interval"], last=request["last"])
            return
        if set(request) == {"exited"}:
            for session in self._sessions_here(lambda one: one.task == request["exited"]):
                await session.close(cpu)
            return
        if set(request) == {"open", "delayed", "vms"}:
            await self._open_by_step(cpu, request["open"], delayed=request["delayed"], vms=request["vms"])
            return
        if set(request) == {"call", "of"}:
            await self._call(cpu, request["call"], request["of"])
            return
        if "session" not in request:
            raise BadRequest(f"a request for the host holds a session, not {sorted(request)}")
        await self._open(cpu, typed_json.read(CpuSession, request), None)

    async def _open_by_step(self, cpu: Cpu, opened: dict[str, Any], *, delayed: bool, vms: bool) -> None:
        """Answered with why events could not be opened. `vms`: there are VMs at the time."""
        before, kept = len(self.refused), len(self.sessions)
        of: CpuSession | ThreadSession
        if "thread" in opened:
            of = typed_json.read(ThreadSession, opened)
            await self._open(cpu, of, of.thread, delayed=delayed, vms=vms)
        else:
            of = typed_json.read(CpuSession, opened)
            await self._open(cpu, of, None, delayed=delayed, vms=vms)
        refused = [f"{name}: EOPNOTSUPP: the PMU is the guests'" for name in self.refused[before:]]
        for session in self.sessions[kept:]:
            refused += session.failures()
        if refused:
            cpu.answer(orjson.dumps({"error": "; ".join(refused)}))

    async def _call(self, cpu: Cpu, call: str, name: str) -> None:
        """ioctl, read or close of a session."""
        found = self._sessions_here(lambda one: one.spec.name == name)
        if not found:
            cpu.answer(orjson.dumps({"error": "EBADF: it was not opened"}))
            return
        session = next((one for one in found if one.closed is None), found[-1])
        match call:
            case "enable":
                await session.enable(cpu)
            case "disable":
                await session.disable(cpu)
            case "close":
                await session.close(cpu)
            case "read":
                cpu.answer(orjson.dumps({"events": [_told(one) for one in await session.read(cpu)]}))
            case _:
                raise BadRequest(f"a session has no call {call!r}")

    def _sessions_here(self, wanted: Callable[[Session], bool]) -> list[Session]:
        """Those of this CPU, and those of threads, whose events come with them."""
        for other in self.host.cpus.values():
            for session in [one for one in other.sessions if other is not self and one.task is not None]:
                if wanted(session):
                    other.sessions.remove(session)
                    self.sessions.append(session)
                    session.perf = self.perf
        return [session for session in self.sessions if wanted(session)]

    async def _interval(self, cpu: Cpu, process: int, *, last: bool) -> None:
        for session in self.sessions:
            if session.process == process:
                if last and session.followers:
                    await session.close(cpu)
                else:
                    await session.print_interval(cpu)
                    session.ended |= last

    # The scheduler.

    async def _task_in(self, cpu: Cpu, thread: int, *, from_idle: bool) -> None:
        self.thread = thread
        await self.perf.task_in(cpu, thread, from_idle=from_idle)
        if thread in self.yet_to_exec:
            self.yet_to_exec.remove(thread)
            await self.perf.enable_on_exec(cpu)
        # vcpu_load follows: from then on kvm_set_pmuserenr() keeps the host's value, PMUSERENR_EL0 is the guest's.
        self.perf.pmuserenr_on_cpu = thread in self.vcpu_threads

    async def _task_out(self, cpu: Cpu, thread: int) -> None:
        await self.perf.task_out(cpu, thread)
        self.perf.pmuserenr_on_cpu = False
        self.thread = -1

    # KVM's kernel counters.

    async def _calls_after(self, cpu: Cpu, work: Work, calls: Sequence[Row]) -> None:
        await work
        rest = self.enter(cpu, Entry(EntryKind.CALL, cpu.now, calls=calls)) if calls else self.perf.settle(cpu)
        if rest is not None:
            await rest

    async def _create(
        self, cpu: Cpu, former: PerfEvent | None, handle: int, event: int, flags: int, period: int
    ) -> None:
        perf = self.perf
        if former is not None:
            await perf.destroy_kernel_counter(cpu, former)
        made = self.host.counters[handle] = perf.create_kernel_counter(
            cpu, handle, event, flags, period, self._pmu_of(handle)
        )
        await perf.install(cpu, made, self.thread)

    def _pmu_of(self, handle: int) -> Driver | None:
        """The PMU of the VM whose counter it is, where the host has several; None: this CPU's."""
        if not self.perf.config.heterogeneous:
            return None
        assert self.boot is not None
        assert self.host.perf is not None
        pmu = self.boot.vcpu_pmus[handle >> 5]
        return None if pmu == ANY_PMU else self.host.perf.driver(pmu)

    async def _guest_counters(self, cpu: Cpu, mask: int, *, enable: int, flags: int, guest_time: bool) -> None:
        """kvm_pmu_set_guest_counters: reschedule only if events are in the way, and back only what was squeezed."""
        assert self.boot is not None
        perf, policy = self.perf, self.boot.policy
        squeezed = bool(perf.pmu.used & mask)
        grows = mask != 0 and perf.range_only  # a vCPU that is loaded takes more
        if not policy.fixed_flags:
            perf.guest_mask = flags or self.reserved
        if not grows:
            perf.range_only = False  # vcpu_load has yet to set HPMN, vcpu_put has taken it back
        counters = policy.counters & ~mask
        reschedule = squeezed or perf.waiting or (self.squeezed and not grows)
        perf.lent, perf.waiting = policy.swaps_pinned and mask != 0, False
        await perf.set_counters(cpu, counters, reschedule=reschedule, guest_loaded=guest_time)
        if reschedule and not mask and policy.resync_in_process and perf.pmu.used:  # its vCPU runs up to vcpu_put's end
            cpu.burst.notify(Notice.RESYNC_EL0, 0)
        if reschedule and mask and policy.resched_irqs_on:  # vcpu_put, by kvm_sched_out, has them off
            await self._interrupted_with_lock(cpu)
        self.squeezed = squeezed or (self.squeezed and grows)
        if policy.shared_counters:
            assert self.host.perf is not None
            # arm_pmu.cntr_mask: the other CPUs find out when they schedule next.
            self.host.perf.driver(self.boot.arm_pmu).cntr_mask = counters
            for other in self.host.cpus.values():
                if other.boot is not None and other.boot.arm_pmu == self.boot.arm_pmu:
                    other.perf.pmu.cntr_mask = counters
        perf.range_only = enable == HostEnable.RANGE
        perf.keep_on(cpu, enable == HostEnable.SHARED)

    async def _interrupted_with_lock(self, cpu: Cpu) -> None:
        """What has come since perf_ctx_lock() is taken before the unlock: all of it here."""
        perf = self.perf
        await perf.settle(cpu)
        perf.ctx_locked = True
        await cpu.window()
        perf.ctx_locked = perf.in_interrupt = False
        if self.handler_began >= 0:
            perf.handler_took(self.handler_began, cpu.now)
            self.handler_began = -1

    # Results.

    async def _report(self, cpu: Cpu) -> None:
        if self.thread >= 0:
            self._sessions_here(lambda one: one.task == self.thread)
        elsewhere = [other.thread for other in self.host.cpus.values() if other is not self]
        reports = [await session.report(cpu) for session in self.sessions if session.task not in elsewhere]
        cpu.answer(orjson.dumps({"cpu": self.index, "sessions": reports, "refused": self.refused}))

    # State.

    def state(self) -> Saved:
        """Everything of this CPU that is not perf's own."""
        return {**save(self), "sessions": [save(session) for session in self.sessions]}

    def restore(self, saved: Saved, objects: Objects) -> None:
        """Take up what `state` gave; `objects` has the events of the host's perf, which has been restored."""
        restore(self, saved)
        if self.boot is not None:
            self.perf.ctx_locked = False  # a run that ended in a deadlock has left it so
        self.sessions = [Session.restored(self.perf, of_session, objects) for of_session in saved["sessions"]]


def _told(result: dict[str, Any]) -> dict[str, Any]:
    """What a read of an event gives."""
    return {name: result[name] for name in ("name", "count", "enabled", "running", "state")}


async def _tell(cpu: Cpu, count: Coroutine[Any, Any, int]) -> None:
    counted = await count  # which leaves the CPU another burst
    cpu.burst.notify(RESULT, counted)


def _fallen_back(spec: SessionSpec) -> SessionSpec:
    """What the tool tries to open while VMs own the whole PMU: for BPF programs no other event than it was given."""

    def tried(event: EventSpec) -> EventSpec:
        kept = event.software or (event.bpf and spec.verb == "stat")
        return event if kept else without_guests(event) or event

    return replace(spec, events=tuple(map(tried, spec.events)))


def _ends_without(spec: SessionSpec) -> str:
    """Why the tool ends while VMs own the whole PMU: perf record at any event that it does not get, perf stat at the
    leader of a group of several. Empty if it does not.
    """
    kept = spec.excluding_guests()
    leaders = [event.leader for event in spec.events]
    for index, event in enumerate(spec.events):
        if index not in kept and (spec.verb == "record" or leaders.count(index) > 1):
            return f"{event.name}: EOPNOTSUPP: the PMU is the guests', and it does not exclude guests (:H)"
    return ""


def _excluding_guests(spec: SessionSpec) -> tuple[SessionSpec, list[str]]:
    """What perf_event_open admits while VMs own the whole PMU, and the names of the events that it refuses."""
    kept = spec.excluding_guests()
    events = tuple(replace(spec.events[i], leader=kept.index(spec.events[i].leader)) for i in kept)
    return replace(spec, events=events), [event.name for i, event in enumerate(spec.events) if i not in kept]
