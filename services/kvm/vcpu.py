"""A vCPU: its thread on the host, the run loop around it, and the virtual interrupts of its guest."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from services._pmu import (
    OP_COMPUTE,
    OP_DONE,
    OP_HVC,
    OP_IPI,
    OP_NOTIFY,
    OP_TIMER,
    OP_WFI,
    OP_WINDOW,
    Burst,
    Stop,
)
from services.costs import Cost
from services.cpu import Entry, EntryKind, Notice, Timer, TookException
from services.experiment import CpuSpec
from services.kvm.attendant import Attendant
from services.kvm.bill import Account
from services.kvm.errors import InjectUndef, Livelock, ProtocolError, SimulationError
from services.kvm.guest_pmu import GuestPmu
from services.kvm.latency import Latencies
from services.kvm.pcpu import NEVER, PCpu
from services.kvm.vpmu import Vpmu
from services.registers import ICC_SGI1R_EL1
from services.state import restore, save

if TYPE_CHECKING:
    from services.kvm.simulation import Simulation

ESR_UNKNOWN = 1 << 25  # EC 0 (unknown reason), IL: what an UNDEFINED access takes to EL1
COMPUTE_EL_SHIFT = 20  # a COMPUTE's argument: exception level above, profile below
COMPUTE_PROFILE = (1 << COMPUTE_EL_SHIFT) - 1
IRQ_WORK_SGI = 5  # Linux arm64 IPI_IRQ_WORK


class VCpu:
    """One vCPU. Between entries of its guest all of it is data."""

    vpmu: Vpmu

    def __init__(self, simulation: Simulation, thread_id: int, vm: int, index: int, pcpu: PCpu, context: int) -> None:
        spec = simulation.experiment.guests[vm]
        self.simulation = simulation
        self.machine = simulation.machine
        self.id = thread_id
        self.vm = vm
        self.index = index
        self.name = spec.name
        self.config = spec.vcpus[index]
        self.floats = self.config.pcpu < 0
        self.pcpu = pcpu
        self.context = context
        self.profile = simulation.experiment.guest_kernel_profile
        self.pmu = GuestPmu(spec.counters, spec.pmuver, list(spec.denied))
        self.guest: Attendant | None = None
        self.booted = False
        self.ran = False  # KVM_RUN has been called
        self.working = True
        self.blocked = False
        self.wfi = False
        self.progress = 0  # when it last did work, or began to
        self.patience = simulation.experiment.frequency_hz  # cycles, a second
        self.compute: tuple[int, int, int] | None = None  # profile, exception level, cycles left
        self.timers: dict[int, int] = {}
        self.timer_deadline = NEVER  # the earliest of them
        self.line = False  # level of the virtual PMU interrupt as of the last entry
        self.expired = 0  # timers whose interrupt is pending, one bit each
        self.sgis = 0  # pending SGIs, one bit each
        self.requests: list[bytes] = []
        self.report_due = False
        self.reported = b""
        self.previous_done = 0
        self.traps: dict[tuple[int, bool], int] = {}
        self.injected = 0
        self.overflowed = -1  # when the interrupt line rose for an overflow that its handler has not been entered for
        self.latencies = Latencies()  # of its interrupts
        self.load_times = Latencies()
        self.put_times = Latencies()
        self.computed = 0  # cycles of its tasks' work done
        self.own_bursts = 0  # bursts of the guest itself

    # What the host's scheduler sees.

    @property
    def runnable(self) -> bool:
        return not self.blocked

    def unblock(self) -> None:
        self.blocked = False

    async def switched_in(self) -> None:
        """KVM's sched_in notifier: vcpu_load, and back into the guest."""
        self.ran = True
        self.progress = self.pcpu.now
        began = self.pcpu.now
        await self.vpmu.restore_el0(guest=True)
        self.machine.set_account(self.pcpu.index, Account.SWAP)
        await self.vpmu.load()
        self.load_times.add(began, self.pcpu.now)
        self.machine.set_account(self.pcpu.index, Account.TRAP)
        await self._enter_guest()

    async def switched_out(self) -> None:
        """KVM's sched_out notifier: vcpu_put."""
        began = self.pcpu.now
        await self.vpmu.restore_el0(guest=False)
        self.machine.set_account(self.pcpu.index, Account.SWAP)
        await self.vpmu.put()
        self.put_times.add(began, self.pcpu.now)

    def next_interaction(self) -> int:
        """The time of what happens next on this vCPU, while it is the current thread."""
        machine, index = self.machine, self.pcpu.index
        if self._pending() or self.compute is None:
            return machine.now(index)
        profile, el, left = self.compute
        machine.set_running(index, self.context, el, profile)
        return machine.next_stop(index, left)

    def note_overflow(self, pcpu: PCpu) -> None:
        """The host's handler on `pcpu` has found an overflow that is this vCPU's."""
        pcpu.noticed = True
        if self.overflowed < 0:
            self.overflowed = self.machine.raised(pcpu.index)

    # What its vPMU asks of it (`services.kvm.vpmu.KvmVcpu`).

    @property
    def spec(self) -> CpuSpec:
        """The features of the pCPU that it is on."""
        return self.pcpu.spec

    @property
    def host_has_events(self) -> bool:
        """Does the host's perf have events of its own on that pCPU?"""
        return self.pcpu.host_has_events

    def kvm(self, burst: Burst) -> list[int]:
        """Execute KVM's own accesses, at EL2; the values read."""
        return self.pcpu.kvm(burst)

    def call(self, rows: list[int], account: Account = Account.PERF) -> Coroutine[Any, Any, list[int]]:
        """Kernel-counter operations for KVM, in one entry; the results of its READs."""
        return self.pcpu.call(rows, account)

    def set_account(self, account: Account) -> int:
        """The account to which the host's cycles are charged from now on; the one before."""
        return self.machine.set_account(self.pcpu.index, account)

    def kick(self) -> None:
        """kvm_vcpu_kick: have the vCPU look at what is pending; called from the pCPU that it is on."""
        if self.blocked:
            self.pcpu.wake(self)

    async def step(self) -> None:
        """One interaction: one handler of the guest, or its work up to an interrupt."""
        self.machine.set_account(self.pcpu.index, Account.TRAP)
        if self.compute is not None and self.pcpu.now - self.progress > self.patience:
            raise Livelock(
                f"{self.name} on vCPU {self.index}: no work done in the last second, interrupts take all of it (I12)"
            )
        if not self.booted:
            self.booted = True
            await self._enter(EntryKind.BOOT, payload=self.simulation.guest_boot(self))
        elif self.sgis:
            number = (self.sgis & -self.sgis).bit_length() - 1
            self.sgis &= self.sgis - 1
            await self._enter(EntryKind.SGI, number)
        elif self.line:
            if self.overflowed >= 0:
                self.latencies.add(self.overflowed, self.machine.now(self.pcpu.index))
                self.overflowed = -1
            before = self.own_bursts
            await self._enter(EntryKind.PMU_IRQ)
            self.simulation.bursts.interrupts += self.own_bursts - before
            if self.line:  # the EOI of a level that KVM still holds high: a maintenance interrupt has KVM look again
                await self._interrupted(1)
        elif self.expired:
            expired, self.expired = self.expired, 0
            await self._enter(EntryKind.TIMER, expired)
        elif self.requests:
            await self._enter(EntryKind.REQUEST, payload=self.requests.pop(0))
        elif self.report_due:
            self.report_due = False
            self.reported = await self._enter(EntryKind.REPORT)
        elif self.compute is not None:
            await self._run(*self.compute)
        elif self.wfi:
            await self._block()
        else:
            await self._enter(EntryKind.RESUME)
            if not self._occupied():
                raise ProtocolError(f"{self.name} on vCPU {self.index} was resumed and posted neither COMPUTE nor WFI")

    def want_report(self) -> None:
        """Have the guest report its results at its next entry, waking it for that."""
        self.report_due = True
        if self.blocked:
            self.pcpu.wake(self)

    def _occupied(self) -> bool:
        return self.wfi or self.compute is not None

    def _pending(self) -> bool:
        return not self.booted or self.line or bool(self.sgis or self.expired or self.requests or self.report_due)

    # In and out of the guest.

    async def _enter(self, kind: EntryKind, argument: int = 0, payload: bytes = b"") -> bytes:
        assert self.guest is not None
        machine, index = self.machine, self.pcpu.index
        machine.mark(index, 16 + kind, argument, self.id)
        el, left = (-1, 0) if self.compute is None else self.compute[1:]
        machine.set_running(index, self.context, 1, self.profile)
        entry = Entry(kind, machine.now(index), argument, el, left, self.previous_done, (), payload)
        try:
            answer = await self.guest.enter(self, entry)
        except TookException as exc:
            raise SimulationError(f"{self.name} on vCPU {self.index}: {exc}, and its handler has ended") from None
        self.previous_done = machine.now(self.pcpu.index)
        return answer

    async def _run(self, profile: int, el: int, left: int) -> None:
        machine, pcpu = self.machine, self.pcpu
        machine.set_running(pcpu.index, self.context, el, profile)
        done = machine.run(pcpu.index, left)
        left -= done
        self.computed += done
        if done:
            self.progress = machine.now(pcpu.index)
        self.compute = (profile, el, left) if left else None
        if machine.interrupt(pcpu.index) or machine.now(pcpu.index) >= pcpu.deadline:
            await self._interrupted(el)

    async def _interrupted(self, el: int) -> None:
        """A physical interrupt: out to the host, which serves it, and back.

        The window in which the host takes it comes before guest_timing_exit_irqoff(), so it is accounted to the guest.
        """
        pcpu = self.pcpu
        pcpu.enter_kernel()
        pcpu.charge(Cost.EXIT_FULL_NULL)
        await pcpu.serve_interrupts(el)
        pcpu.account("host_kernel")
        await self._enter_guest()

    async def _enter_guest(self) -> None:
        """kvm_pmu_flush_hwstate and kvm_timer: make pending what has become due, then into the guest."""
        pcpu = self.pcpu
        if pcpu.perf_ran:  # KVM_REQ_RESYNC_PMU_EL0: the driver has started counters in interrupt context
            pcpu.perf_ran = False
            await self.vpmu.restore_el0(guest=True)
        level = self.vpmu.level()
        if level and not self.line:
            self.injected += 1
            pcpu.charge(Cost.VIRQ_INJECT)
        self.line = level
        if not (level or self.pmu.ovs):  # the guest has cleared the flag without having been interrupted
            self.overflowed = -1
        now = self.machine.now(pcpu.index)
        if self.timer_deadline <= now:
            self._expire(now)
            pcpu.charge(Cost.VIRQ_INJECT)
        pcpu.account("guest")

    def _expire(self, now: int) -> None:
        """The virtual timer interrupt of every timer that has expired is pending from now on."""
        for timer, deadline in self.timers.items():
            if deadline <= now:
                self.timers[timer] = NEVER
                self.expired |= 1 << timer
        self.timer_deadline = min(self.timers.values())
        self.pcpu.rearm()

    async def _block(self) -> None:
        """A trapped WFI: block unless something is pending (kvm_vcpu_halt)."""
        pcpu = self.pcpu
        pcpu.enter_kernel()
        pcpu.charge(Cost.EXIT_FULL_NULL)
        pcpu.charge(Cost.WFI_BLOCK)
        await pcpu.serve_interrupts(-1)
        pcpu.account("host_kernel")
        await self._enter_guest()
        self.blocked = not self._pending()

    # The guest's bursts (`services.cpu.Executor`).

    async def execute(self, burst: Burst, answer: bytes) -> int:
        """Execute a burst of the guest at EL1, trapping and being interrupted where that falls."""
        machine, index, start = self.machine, self.pcpu.index, 0
        self.simulation.bursts.total += 1
        self.own_bursts += 1
        while True:
            stop = machine.execute(index, burst, start, True)
            if stop.reason == Stop.END:
                return machine.now(index)
            start = stop.index + 1
            if stop.reason == Stop.OPERATION:
                await self._operation(stop)
            elif stop.reason == Stop.INTERRUPT:
                start = stop.index
                await self._interrupted(1)
                machine.set_running(index, self.context, 1, self.profile)
            elif stop.reason == Stop.EXCEPTION:
                raise TookException(stop.esr)
            else:
                value = await self._trap(stop.register, stop.write, stop.value)
                if not stop.write:
                    burst.set_value(stop.index, value)

    async def _trap(self, register: int, write: bool, value: int) -> int:
        """An access trapped to EL2: the design emulates it. The value read."""
        pcpu = self.pcpu
        key = (register, write)
        self.traps[key] = self.traps.get(key, 0) + 1
        pcpu.enter_kernel()
        fast = self.vpmu.fast(register, write)  # no interrupt window, no vGIC, accounted to the guest
        pcpu.charge(Cost.EXIT_FAST if fast else Cost.EXIT_FULL_SYSREG)
        if not fast:
            if self.machine.interrupt(pcpu.index) or pcpu.now >= pcpu.deadline:
                await pcpu.serve_interrupts(1)
            pcpu.account("host_kernel")
        bursts = self.simulation.bursts
        before = bursts.total
        try:
            if register == ICC_SGI1R_EL1:
                self._send_sgi(value)
            else:
                value = await self.vpmu.access(register, write, value)
        except InjectUndef:
            raise TookException(ESR_UNKNOWN) from None
        finally:
            bursts.traps += bursts.total - before
            if not fast:
                await self._enter_guest()
            self.machine.set_running(pcpu.index, self.context, 1, self.profile)
        return value

    def _send_sgi(self, target: int) -> None:
        """vgic_v3_dispatch_sgi: an IPI to a vCPU of the same VM, by its index."""
        pcpu = self.pcpu
        pcpu.charge(Cost.SGI)
        for other in self.simulation.vcpus:
            if other.vm == self.vm and other.index == target:
                other.sgis |= 1 << IRQ_WORK_SGI
                if other is not self:
                    other.pcpu.arrivals.append((pcpu.now, other.id))
                    other.pcpu.rearm()
                return
        raise ProtocolError(f"{self.name}: an IPI to vCPU {target}, which does not exist")

    async def _operation(self, stop: Stop) -> None:
        at, operation, argument, operand = stop.index, stop.operation, stop.argument, stop.operand
        if operation == OP_TIMER:
            self._check(at, "timer", argument, len(Timer))
            self.timers[argument] = operand
            self.expired &= ~(1 << argument)  # a level: setting the timer takes back what has not been delivered
            self.timer_deadline = min(self.timers.values())
            self.pcpu.rearm()
        elif operation == OP_COMPUTE:
            self.wfi = False
            profile, el = argument & COMPUTE_PROFILE, argument >> COMPUTE_EL_SHIFT
            self._check(at, "profile", profile, self.simulation.profiles)
            self._check(at, "exception level", el, 2)
            self.compute = (profile, el, operand) if operand else None
            self.progress = self.pcpu.now
        elif operation == OP_WFI:
            self.compute, self.wfi = None, True
        elif operation == OP_IPI:
            await self._trap(ICC_SGI1R_EL1, True, argument)
        elif operation == OP_NOTIFY:
            if argument not in (Notice.WORK_DONE, Notice.WORK_BEGUN):
                raise ProtocolError(f"notice {argument} is not for a guest")
            self.working = argument == Notice.WORK_BEGUN
        elif operation == OP_WINDOW:
            while self.sgis or self.line or self.expired:
                await self.step()
        elif operation == OP_HVC:
            pcpu = self.pcpu
            pcpu.enter_kernel()
            pcpu.charge(Cost.EXIT_FULL_NULL)
            await self._enter_guest()
            self.machine.set_running(pcpu.index, self.context, 1, self.profile)
        elif operation != OP_DONE:
            raise ProtocolError(f"operation {at} is not for a guest: code {operation}")

    def _check(self, at: int, what: str, value: int, limit: int) -> None:
        if value >= limit:
            raise ProtocolError(f"operation {at}: {what} {value}, and there are {limit}")

    # State.

    def state(self) -> dict[str, Any]:
        return {
            "pcpu": self.pcpu.index,
            "pmu": self.pmu.state(),
            "vpmu": save(self.vpmu),
            "booted": self.booted,
            "progress": self.progress,
            "ran": self.ran,
            "working": self.working,
            "blocked": self.blocked,
            "wfi": self.wfi,
            "compute": None if self.compute is None else list(self.compute),
            "timers": sorted(self.timers.items()),
            "line": self.line,
            "expired": self.expired,
            "sgis": self.sgis,
            "requests": [request.decode() for request in self.requests],
            "previous_done": self.previous_done,
            "traps": [[register, write, count] for (register, write), count in sorted(self.traps.items())],
            "injected": self.injected,
            "overflowed": self.overflowed,
            "latencies": self.latencies.cycles,
            "load_times": self.load_times.cycles,
            "put_times": self.put_times.cycles,
            "computed": self.computed,
            "own_bursts": self.own_bursts,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state()` gave."""
        self.pcpu = self.simulation.pcpus[state["pcpu"]]
        self.pmu = GuestPmu.from_state(state["pmu"])
        restore(self.vpmu, state["vpmu"])
        self.vpmu.derive()
        self.booted = state["booted"]
        self.progress = state["progress"]
        self.ran = state["ran"]
        self.working = state["working"]
        self.blocked = state["blocked"]
        self.wfi = state["wfi"]
        self.compute = None if state["compute"] is None else tuple(state["compute"])
        self.timers = dict(state["timers"])
        self.timer_deadline = min(self.timers.values(), default=NEVER)
        self.line = state["line"]
        self.expired = state["expired"]
        self.sgis = state["sgis"]
        self.requests = [request.encode() for request in state["requests"]]
        self.previous_done = state["previous_done"]
        self.traps = {(register, write): count for register, write, count in state["traps"]}
        self.injected = state["injected"]
        self.overflowed = state["overflowed"]
        self.latencies = Latencies(state["latencies"])
        self.load_times = Latencies(state["load_times"])
        self.put_times = Latencies(state["put_times"])
        self.computed = state["computed"]
        self.own_bursts = state["own_bursts"]
