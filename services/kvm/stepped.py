"""The CPUs and vCPUs of a scenario with steps: no timer expires, and nothing is scheduled, but where a step says so."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

import orjson

from services._pmu import OP_TIMER, Burst, Stop
from services.costs import Cost
from services.cpu import NEVER, EntryKind, Eventual
from services.executor import Work
from services.kvm import reports
from services.kvm.interruption import Coming, Interruptions, marked
from services.kvm.pcpu import PCpu
from services.kvm.thread import Thread
from services.kvm.vcpu import VCpu

HELD = 1 << 62  # a time that does not come: of a timer that is armed, and expires by a step


class SteppedPCpu(PCpu):
    """One whose tick, mux timer, slices and hotplug are steps."""

    DERIVED: ClassVar[tuple[str, ...]] = (*PCpu.DERIVED, "answers", "raised")
    __slots__ = ("answers", "raised")

    def __init__(self, *made_of: Any) -> None:
        super().__init__(*made_of)
        self.rq.slice = HELD
        self.answers: list[bytes] = []  # of host perf to REQUESTs, within one step
        self.raised: list[int] = []  # when each PMU interrupt that the host has taken rose, likewise

    def find_hotplug(self) -> None:
        self.hotplug_time = NEVER

    def _set_tick(self, tick: int) -> None:
        super()._set_tick(NEVER)

    def _expired(self, now: int) -> int:
        expired = super()._expired(now)
        self.stop_tick()
        return expired

    def operation(self, index: int, code: int, argument: int, operand: int) -> Work | None:
        held = HELD if code == OP_TIMER and operand != NEVER else operand
        return super().operation(index, code, argument, held)

    async def enter_host(self, kind: EntryKind, argument: int = 0, el: int = -1, payload: bytes = b"") -> bytes:
        if kind is EntryKind.PMU_IRQ:
            self.raised.append(self.machine.raised(self.cpu))
        answer = await super().enter_host(kind, argument, el, payload)
        if kind is EntryKind.REQUEST:
            self.answers.append(answer)
        return answer

    def told(self, answer: bytes) -> dict[str, Any]:
        """What the host's perf has answered to a call of a session."""
        try:
            return reports.of_perf_call(answer)
        except ValueError as exc:
            assert self.host is not None
            raise self.host.refuse(self._host_name(), str(exc)) from None

    # What steps do.

    def bring_up(self) -> Coroutine[Any, Any, None]:
        """Boot."""
        return self._bring_up()

    def switch_to(self, thread: Thread, el: int) -> Coroutine[Any, Any, None]:
        """context_switch; `el` is that of the thread before, -1 if the CPU was idle."""
        return self._switch_to(thread, el)

    def expire_tick(self) -> None:
        """The tick's timer expires now."""
        self.tick = self.now
        self.machine.set_tick(self.cpu, self.now)
        self.rearm()

    def expire(self, timer: int) -> bool:
        """Likewise a timer of the host's perf; False if it is not armed."""
        armed = self.timers.get(timer, NEVER) != NEVER
        if armed:
            self.timers[timer] = self.now
            self.rearm()
        return armed

    def resched(self) -> None:
        """smp_send_reschedule: what runs here is to be preempted."""
        assert self.rq.current is not None
        self.rq.need_resched = True
        self.rq.arrive(self.now, self.rq.current.id)

    def nmi_cpu_backtrace(self) -> None:
        """The handler of IPI_CPU_BACKTRACE, by which the CPU is in its kernel: interrupts may be masked there."""
        self.charge(Cost.IRQ_ENTRY)

    def ask(self, payload: bytes) -> None:
        """A perf call on this CPU, by an IPI."""
        self.requests.append(payload)
        self.rearm()


class SteppedVCpu(VCpu):
    """One that goes where steps send it, and whose guest does what they say."""

    DERIVED: ClassVar[tuple[str, ...]] = (*VCpu.DERIVED, "interruptions")
    __slots__ = ("interruptions",)

    def __init__(self, interruptions: Interruptions, *made_of: Any, **named: Any) -> None:
        self.interruptions = interruptions
        super().__init__(*made_of, **named)
        self.floats = False
        self.halt.limit = 0  # kvm_vcpu_halt blocks at once

    # KVM's own operations, with what comes between them.

    def kvm(self, burst: Burst, again: Callable[[], Burst] | None = None) -> Eventual[list[int]]:
        coming = self.interruptions.take(self.id, self.cpu, len(burst))
        return self._kvm_interrupted(burst, coming, again) if coming else super().kvm(burst, again)

    async def _kvm_interrupted(
        self, burst: Burst, coming: list[Coming], again: Callable[[], Burst] | None
    ) -> list[int]:
        places = [place for place, _ in coming]
        steps = marked(burst, places)
        stop = self.machine.execute(self.cpu, steps, 0, self.irqs)
        while isinstance(stop, Stop):
            index = stop.index
            if stop.reason == Stop.OPERATION:
                coming.pop(0)[1]()
                index += 1
            elif stop.reason == Stop.INTERRUPT:
                await self._take_interrupts()
                if self._to_be_preempted():
                    await self._preempt()
                    if again is not None:
                        steps = marked(again(), places)
            else:
                index = self.pcpu.oops(steps, stop)
            stop = self.machine.execute(self.cpu, steps, index, self.irqs)
        burst.set_values(steps.values())
        return burst.values()

    def kvm_irqs_off(self, burst: Burst) -> list[int]:
        self._come(len(burst))  # it is pending, and taken when they are on
        return super().kvm_irqs_off(burst)

    async def read(self, register: int) -> int:
        self._come(1)
        return await super().read(register)

    async def write(self, register: int, value: int) -> None:
        self._come(1)
        await super().write(register, value)

    async def charge(self, cost: Cost) -> None:
        self._come(1)
        await super().charge(cost)

    def _come(self, operations: int) -> None:
        for _, come in self.interruptions.take(self.id, self.cpu, operations):
            come()

    # What steps do.

    @property
    def here(self) -> SteppedPCpu:
        """The pCPU that it is on."""
        assert isinstance(self.pcpu, SteppedPCpu)
        return self.pcpu

    @property
    def amid(self) -> bool:
        """Has it been preempted in the midst of one of KVM's handlers?"""
        return self.preempted.work is not None

    async def boot_guest(self) -> None:
        """The first KVM_RUN."""
        self.booted = True
        await self._enter(EntryKind.BOOT, payload=self.boot)

    async def perform(self, step: dict[str, Any]) -> dict[str, Any]:
        """The guest carries out a step; what came of it. Whether it trapped is told with it."""
        self.fruitless, self.wfi, self.compute = 0, False, None
        trapped = sum(self.traps.values())
        answer = await self._enter(EntryKind.REQUEST, payload=orjson.dumps(step))
        found = self._found(answer)
        found["trapped"] = sum(self.traps.values()) > trapped
        if self.undefined:
            found = {"esr": self.undefined, "trapped": found["trapped"]}
            await self._undefined()
        return found

    async def work(self, *, until_event: bool) -> bool:
        """Its guest computes, to the end of it or up to an interrupt of the CPU's; was there any?"""
        any_came = False
        while self.compute is not None:
            served = self._run(*self.compute, amid=not until_event)
            if served is not None:
                any_came = True
                await served
                if until_event:
                    self.compute = None
        return any_came

    async def wait_for_interrupt(self) -> None:
        """Its guest has executed WFI."""
        if self.traps_wfi:
            await self._halt()
        elif not self.machine.pending_interrupt(self.cpu) and self.machine.arrives(self.cpu) == NEVER:
            pass  # nothing is under way: it waits for what a step brings
        else:
            await self._wait_for_interrupt()

    async def sleep(self) -> None:
        """KVM_RUN returns to the VMM, which sleeps."""
        if self.trap_null():
            await self.serve_interrupts(1)
        self.blocked = True

    async def take_interrupt(self) -> dict[str, Any] | None:
        """Its guest unmasks interrupts for an instant: what its handler read, None if the PMU's is not pending."""
        if not self.vgic.line:
            await self.perform({"action": "unmask"})
            return None
        self.fruitless = 0
        self.vgic.handler_entered(self.machine.now(self.cpu))
        answer = await self._enter(EntryKind.PMU_IRQ)
        if self.vgic.line:
            self.vpmu.eoi()
            await self._interrupted(1)
        return self._found(answer)

    def _found(self, answer: bytes) -> dict[str, Any]:
        """What a step gave: numbers by name."""
        try:
            found = orjson.loads(answer) if answer else {}
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict) or not all(type(one) is int for one in found.values()):
            assert self.guest is not None
            raise self.guest.refuse(self._who(), f"answer: {answer[:40]!r} is not what a step gives")
        return found

    def interrupt_guest(self) -> Coroutine[Any, Any, None]:
        """What is pending on the CPU interrupts the guest."""
        return self._interrupted(1)

    async def take_nmi(self) -> None:
        """A pseudo-NMI that is not the PMU's interrupts the guest."""
        if self.exit_irq():
            await self.serve_interrupts(1)
        self.here.nmi_cpu_backtrace()
        await self._reenter()

    def want_report(self) -> None:
        """A scripted guest has nothing to tell but what its steps gave."""
        self.without_report()
