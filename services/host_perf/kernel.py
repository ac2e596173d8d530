"""The host's kernel as far as the PMU goes: who enters it why, and what its perf then does."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import orjson

from services import experiment as ex
from services import typed_json
from services.boot import HostBoot, HostPolicy
from services.cpu import CALL_COLUMNS, Call, Cpu, Entry, EntryKind, Notice, Timer
from services.linux_perf import EventAttr, Perf, PerfConfig, PerfCpu, PerfEvent, Session

# As plain integers: KVM's calls come by the million, and an enum's member is looked up each time.
CREATE, RELEASE, ENABLE, DISABLE, READ, EL0_FILTER, GUEST_COUNTERS = (int(call) for call in Call)
RESULT = int(Notice.RESULT)


class BadRequest(ValueError):
    """A request or call that the host's perf cannot make sense of."""


class HostPerf:
    """One host kernel's perf, on all its pCPUs."""

    def __init__(self) -> None:
        self.perf: Perf | None = None
        self.cpus: dict[int, HostCpu] = {}
        self.counters: dict[int, PerfEvent] = {}  # KVM's, by handle; they move with their vCPU's thread

    def attend(self, index: int) -> HostCpu:
        """The software that attends pCPU `index`."""
        return self.cpus.setdefault(index, HostCpu(self, index))

    def boot(self, boot: HostBoot) -> Perf:
        """What all CPUs share, from the first CPU's BOOT."""
        if self.perf is None:
            self.perf = Perf(frequency_hz=boot.frequency_hz, hz=boot.hz, costs=boot.costs)
        return self.perf

    def state(self) -> dict[str, Any]:
        """Everything of the host's perf, as JSON-able data."""
        return {
            "perf": None if self.perf is None else self.perf.state(),
            "counters": [[handle, event.id] for handle, event in sorted(self.counters.items())],
            "cpus": [[index, cpu.state()] for index, cpu in sorted(self.cpus.items())],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> HostPerf:
        """The host's perf as `state()` gave it; its CPUs are to be attended anew."""
        host = cls()
        if state["perf"] is not None:
            host.perf = Perf.from_state(state["perf"])
            host.counters = {handle: host.perf.events[event] for handle, event in state["counters"]}
        for index, of_cpu in state["cpus"]:
            host.attend(index).restore(of_cpu)
        return host


class HostCpu:
    """The host's kernel on one pCPU (`services.cpu.Software`)."""

    def __init__(self, host: HostPerf, index: int) -> None:
        self.host = host
        self.index = index
        self._perf: PerfCpu | None = None  # looked up once
        self.policy = HostPolicy(0)
        self.sessions: list[Session] = []
        self.refused: list[str] = []  # events whose perf_event_open failed, by name
        self.vcpu_threads: frozenset[int] = frozenset()
        self.thread = -1  # the current one
        self.reserved = 0  # counters that are the guests' for good, one bit each
        self.squeezed = False  # events were taken off the guest's range at vcpu_load
        self.handler_began = -1  # when the PMU interrupt handler that was the last entry began, in cycles

    @property
    def perf(self) -> PerfCpu:
        perf = self._perf
        if perf is None:
            assert self.host.perf is not None
            perf = self._perf = self.host.perf.cpu(self.index)
        return perf

    async def enter(self, cpu: Cpu, entry: Entry) -> None:
        """Run the handler of `entry`."""
        if self.handler_began >= 0:
            self.perf.handler_took(self.handler_began, entry.previous_done)
            self.handler_began = -1
        if entry.calls:
            await self._calls(cpu, entry.calls)
            return await self.perf.settle(cpu)
        match entry.kind:
            case EntryKind.PMU_IRQ:
                self.handler_began = entry.now
                await self.perf.handle_irq(cpu)
            case EntryKind.TIMER:
                if entry.argument >> Timer.TICK & 1:
                    await self.perf.tick(cpu)
                if entry.argument >> Timer.MUX & 1:
                    await self.perf.mux_timer(cpu)
            case EntryKind.TASK_IN:
                await self._task_in(cpu, entry.argument)
            case EntryKind.TASK_OUT:
                await self._task_out(cpu, entry.argument)
            case EntryKind.BOOT:
                await self._boot(cpu, typed_json.loads(HostBoot, entry.payload))
            case EntryKind.REQUEST:
                await self._request(cpu, orjson.loads(entry.payload))
            case EntryKind.REPORT:
                await self._report(cpu)
            case _:
                raise BadRequest(f"the host's perf has no handler for {entry.kind!r}")
        await self.perf.settle(cpu)
        return None

    async def _boot(self, cpu: Cpu, boot: HostBoot) -> None:
        features, policy = boot.features, boot.policy
        perf = self.host.boot(boot).add_cpu(
            PerfConfig(
                pmuver=features.pmuver,
                hyp=True,
                cpu=self.index,
                icntr=features.icntr,
                mux_interval=boot.mux_interval,
                high_to_low=policy.high_to_low,
            )
        )
        self.policy = policy
        self.vcpu_threads = frozenset(boot.vcpu_threads)
        await perf.probe(cpu)
        perf.split_irq = policy.split_irq
        self.reserved = perf.guest_mask = perf.pmu.cntr_mask & ~policy.counters
        await perf.set_counters(cpu, policy.counters, reschedule=False)
        for spec in boot.sessions:
            await self._open(cpu, spec, None)
        for of_thread in boot.threads:
            await self._open(cpu, of_thread.session, of_thread.thread)

    async def _open(self, cpu: Cpu, spec: ex.SessionSpec, task: int | None) -> None:
        if self.policy.refuses_guests:
            spec, refused = _excluding_guests(spec)
            self.refused += refused
        if spec.events:
            session = Session(self.perf, spec, task)
            self.sessions.append(session)
            await session.open(cpu)

    async def _request(self, cpu: Cpu, request: dict[str, Any]) -> None:
        """A user's `perf stat -a` or `perf record -a`, from now on."""
        if set(request) != {"session"}:
            raise BadRequest(f"a request for the host holds one key, 'session', not {sorted(request)}")
        await self._open(cpu, typed_json.read(ex.SessionSpec, request["session"]), None)

    # The scheduler.

    async def _task_in(self, cpu: Cpu, thread: int) -> None:
        self.thread = thread
        await self.perf.task_in(cpu, thread)
        # vcpu_load follows: from then on kvm_set_pmuserenr() keeps the host's value, PMUSERENR_EL0 is the guest's.
        self.perf.pmuserenr_on_cpu = thread in self.vcpu_threads

    async def _task_out(self, cpu: Cpu, thread: int) -> None:
        await self.perf.task_out(cpu, thread)
        self.perf.pmuserenr_on_cpu = False
        self.thread = -1

    # KVM's kernel counters.

    async def _calls(self, cpu: Cpu, calls: tuple[int, ...]) -> None:
        perf, counters = self.perf, self.host.counters
        for row in range(0, len(calls), CALL_COLUMNS):
            code, handle = calls[row], calls[row + 1]
            if code == ENABLE:
                await perf.enable(cpu, counters[handle])
            elif code == DISABLE:
                await perf.disable(cpu, counters[handle])
            elif code == READ:
                count = await perf.read(cpu, counters[handle])
                cpu.burst.notify(RESULT, count)
            elif code == CREATE:
                event = perf.open(cpu, EventAttr.of_kernel_counter(*calls[row + 1 : row + CALL_COLUMNS]))
                counters[handle] = event
                await perf.install(cpu, event, self.thread)
            elif code == RELEASE:
                await perf.release(cpu, counters.pop(handle))
            elif code == EL0_FILTER:
                await perf.el0_filter(cpu, bool(handle))
            elif code == GUEST_COUNTERS:
                await self._guest_counters(cpu, handle, range_only=bool(calls[row + 2]))
            else:
                raise BadRequest(f"row {row // CALL_COLUMNS} of a CALL: {code} is no kernel-counter operation")

    async def _guest_counters(self, cpu: Cpu, mask: int, *, range_only: bool) -> None:
        """kvm_pmu_set_guest_counters: reschedule only if events are in the way, and back only what was squeezed."""
        perf = self.perf
        squeezed = bool(perf.pmu.used & mask)
        perf.guest_mask = mask or self.reserved
        perf.range_only = False  # vcpu_load has yet to set HPMN, vcpu_put has taken it back
        await perf.set_counters(cpu, self.policy.counters & ~mask, reschedule=squeezed or self.squeezed)
        self.squeezed = squeezed
        perf.range_only = range_only

    # Results.

    async def _report(self, cpu: Cpu) -> None:
        reports = [await session.report(cpu) for session in self.sessions]
        cpu.answer(orjson.dumps({"cpu": self.index, "sessions": reports, "refused": self.refused}))

    def state(self) -> dict[str, Any]:
        """Everything of this CPU that is not perf's own."""
        return {
            "policy": asdict(self.policy),
            "vcpu_threads": sorted(self.vcpu_threads),
            "sessions": [session.state() for session in self.sessions],
            "refused": self.refused,
            "thread": self.thread,
            "reserved": self.reserved,
            "squeezed": self.squeezed,
            "handler_began": self.handler_began,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state()` gave; the host's perf has been restored."""
        self.policy = typed_json.read(HostPolicy, state["policy"])
        self.vcpu_threads = frozenset(state["vcpu_threads"])
        self.refused = state["refused"]
        self.thread = state["thread"]
        self.reserved = state["reserved"]
        self.squeezed = state["squeezed"]
        self.handler_began = state["handler_began"]
        if self.host.perf is not None:
            self.sessions = [Session.from_state(self.perf, session) for session in state["sessions"]]


def _excluding_guests(spec: ex.SessionSpec) -> tuple[ex.SessionSpec, list[str]]:
    """What perf_event_open admits while VMs own the whole PMU, and the names of the events that it refuses.

    A group without its leader is none: its other events are refused too.
    """
    kept = [i for i, event in enumerate(spec.events) if event.exclude_guest and spec.events[event.leader].exclude_guest]
    events = tuple(replace(spec.events[i], leader=kept.index(spec.events[i].leader)) for i in kept)
    return replace(spec, events=events), [event.name for i, event in enumerate(spec.events) if i not in kept]
