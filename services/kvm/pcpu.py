"""A physical CPU as the host's kernel sees it: interrupts, the tick, the run queue, the host's perf."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from services._pmu import (
    OP_DONE,
    OP_IPI,
    OP_NOTIFY,
    OP_TIMER,
    OP_WINDOW,
    Burst,
    Stop,
)
from services.costs import Cost
from services.cpu import CALL_COLUMNS, Entry, EntryKind, Notice, Timer, TookException
from services.kvm.attendant import Attendant
from services.kvm.bill import Account
from services.kvm.errors import Livelock, ProtocolError, SimulationError
from services.kvm.latency import Latencies

if TYPE_CHECKING:
    from services.kvm.simulation import Simulation

NEVER = 2**64 - 1  # a time that does not come
PMU_IRQ_STORM = 20_000  # handlers in a row, the line never low in between, before it counts as a livelock


class Thread(Protocol):
    """What the host schedules: a vCPU's thread or a task of the host."""

    id: int
    pcpu: PCpu
    floats: bool  # may run on any pCPU

    @property
    def runnable(self) -> bool: ...

    async def step(self) -> None:
        """One interaction: a handler run to its end, or a stretch of work up to its end or an interrupt."""
        ...

    def next_interaction(self) -> int: ...
    def unblock(self) -> None: ...
    async def switched_in(self) -> None: ...
    async def switched_out(self) -> None: ...


class PCpu:
    """One pCPU. Everything on it is sequential: one party runs, all others wait."""

    def __init__(self, simulation: Simulation, index: int, context: int) -> None:
        experiment = simulation.experiment
        self.simulation = simulation
        self.machine = simulation.machine
        self.index = index
        self.context = context
        self.spec = experiment.cpus[index]
        self.costs = simulation.costs
        self.profile = experiment.host_kernel_profile
        self.tick_period = experiment.frequency_hz // experiment.host.hz
        self.host: Attendant | None = None
        self.host_has_events = False  # of its own: their EL0 filters are flipped while a vCPU is loaded
        self.perf_ran = False  # in interrupt context, since the last entry of a guest
        self.booted = False
        self.deadline = NEVER  # the earliest of all below, as of the last rearm()
        self.tick = NEVER
        self.timers: dict[int, int] = {}  # set by the host's perf
        self.arrivals: list[tuple[int, int]] = []  # (time, thread id): kicks and wake-ups from other pCPUs
        self.sleepers: list[tuple[int, int]] = []  # (time, thread id): tasks of the host that sleep until then
        self.requests: list[bytes] = []  # of live clients, for the host's perf here
        self.queue: list[Thread] = []  # runnable threads, the next one first; the current one is not in it
        self.current: Thread | None = None
        self.slice_end = NEVER
        self.need_resched = False
        self.results: list[int] = []
        self.noticed = False  # the overflow that the host's handler is serving is a guest's
        self.latencies = Latencies()  # of the host's own
        self.previous_done = 0
        self.accounted = {"guest": 0, "host_kernel": 0, "host_user": 0, "idle": 0}
        self._account, self._account_since = "idle", 0

    # Time.

    @property
    def now(self) -> int:
        """The pCPU's clock, in cycles."""
        return self.machine.now(self.index)

    def rearm(self) -> int:
        """Have the core stop at the earliest deadline, which is returned."""
        deadline = 0 if self.requests else self.tick
        for time in self.timers.values():
            deadline = min(deadline, time)
        for time, _ in self.arrivals:
            deadline = min(deadline, time)
        for time, _ in self.sleepers:
            deadline = min(deadline, time)
        for vcpu in self.simulation.vcpus:
            if vcpu.pcpu is self and (vcpu is self.current or vcpu.blocked):
                deadline = min(deadline, vcpu.timer_deadline)
        self.deadline = deadline
        self.machine.set_deadline(self.index, deadline)
        return deadline

    def next_interaction(self) -> int:
        """The time of what this pCPU does next, NEVER if nothing is left to do."""
        if not self.booted or self.need_resched or self.machine.interrupt(self.index):
            return self.now
        if self.current is None:
            return self.now if self.queue else max(self.now, self.rearm())
        return self.current.next_interaction()

    def account(self, party: str) -> None:
        """From now on time is accounted to `party`, as the host kernel's own bookkeeping has it."""
        now = self.machine.now(self.index)
        self.accounted[self._account] += now - self._account_since
        self._account, self._account_since = party, now

    def charge(self, cost: Cost) -> None:
        """Software time of the host kernel."""
        self.machine.charge(self.index, cost, self.costs[cost])

    # The host's kernel.

    def enter_kernel(self) -> None:
        """From here on the host's kernel runs, at EL2."""
        self.machine.set_running(self.index, self.context, 2, self.profile)

    def kvm(self, burst: Burst) -> list[int]:
        """Execute KVM's own accesses, at EL2; the values read."""
        stop = self.machine.execute(self.index, burst, 0, False)
        if stop.reason != Stop.END:
            raise ProtocolError(f"KVM's own access stopped on pCPU {self.index}: {stop}")
        return burst.values()

    async def enter_host(
        self, kind: EntryKind, argument: int = 0, el: int = -1, calls: tuple[int, ...] = (), payload: bytes = b""
    ) -> bytes:
        """Enter the host's perf on this pCPU; what it answers."""
        assert self.host is not None
        self.machine.mark(self.index, kind, argument, len(calls))
        entry = Entry(kind, self.now, argument, el, 0, self.previous_done, calls, payload)
        try:
            answer = await self.host.enter(self, entry)
        except TookException as exc:
            raise SimulationError(f"the host's perf on pCPU {self.index}: {exc}, and its handler has ended") from None
        self.previous_done = self.now
        return answer

    async def call(self, rows: list[int], account: Account = Account.PERF) -> list[int]:
        """Kernel-counter operations for KVM, in one entry; the results of its READs."""
        assert len(rows) % CALL_COLUMNS == 0
        self.results = []
        before = self.machine.set_account(self.index, account)
        await self.enter_host(EntryKind.CALL, calls=tuple(rows))
        self.machine.set_account(self.index, before)
        return self.results

    async def execute(self, burst: Burst, answer: bytes) -> int:
        """Execute a burst of the host's perf (`services.cpu.Executor`)."""
        machine, index, start = self.machine, self.index, 0
        self.simulation.bursts.total += 1
        while True:
            stop = machine.execute(index, burst, start, False)
            if stop.reason == Stop.END:
                return machine.now(index)
            if stop.reason == Stop.EXCEPTION:
                raise TookException(stop.esr)
            if stop.reason != Stop.OPERATION:
                raise ProtocolError(f"a burst at EL2 on pCPU {index} stopped: {stop}")
            at, a, b = stop.index, stop.operation, stop.argument
            if a == OP_TIMER:
                if b != Timer.MUX:
                    raise ProtocolError(f"operation {at}: timer {b} is not the host's perf's")
                self.timers[b] = stop.operand
                self.rearm()
            elif a == OP_NOTIFY:
                self._notice(b, stop.operand)
            elif a == OP_WINDOW:
                await self.serve_interrupts(2)
            elif a not in (OP_DONE, OP_IPI):  # OP_IPI: irq_work to itself, served within the same interrupt exit
                raise ProtocolError(f"operation {at} is not for the host's kernel: code {a}")
            start = at + 1

    def _notice(self, code: int, value: int) -> None:
        if code == Notice.RESULT:
            self.results.append(value)
        elif code == Notice.COUNTER_OVERFLOW:
            self.simulation.counter_overflow(self, value)
        elif code == Notice.GUEST_OVERFLOW:
            self.simulation.guest_overflow(self, value)
        else:
            raise ProtocolError(f"notice {code} is not for the host's perf")

    # Interrupts.

    async def serve_interrupts(self, el: int) -> None:
        """Take what is pending: interrupts are unmasked here. `el` is the exception level interrupted."""
        machine, index = self.machine, self.index
        for _ in range(PMU_IRQ_STORM):
            if machine.interrupt(index):
                raised = machine.raised(index)
                self.charge(Cost.IRQ_ENTRY)
                self.perf_ran = True
                self.noticed = False
                entered = machine.now(index)
                before = machine.set_account(index, Account.PMU_IRQ)
                await self.enter_host(EntryKind.PMU_IRQ, el=el)
                machine.set_account(index, before)
                if not self.noticed:
                    self.latencies.add(raised, entered)
                continue
            if self.requests:  # the IPI of a perf call on this CPU
                self.charge(Cost.IRQ_ENTRY)
                await self.enter_host(EntryKind.REQUEST, el=el, payload=self.requests.pop(0))
                continue
            now = machine.now(index)
            if self._arrive(now):
                self.charge(Cost.IRQ_ENTRY)
                continue
            expired = 0
            for timer, deadline in self.timers.items():
                if deadline <= now:
                    expired |= 1 << timer
                    self.timers[timer] = NEVER
            if self.tick <= now:
                expired |= 1 << Timer.TICK
                self.tick += self.tick_period * ((now - self.tick) // self.tick_period + 1)
                self.charge(Cost.TICK)
                self.need_resched = bool(self.queue) and now >= self.slice_end
            if not expired:
                self.rearm()
                return
            self.charge(Cost.IRQ_ENTRY)
            self.perf_ran = True
            before = machine.set_account(index, Account.KERNEL)
            await self.enter_host(EntryKind.TIMER, expired, el)
            machine.set_account(index, before)
        raise Livelock(f"pCPU {index} at cycle {machine.now(index)}: the PMU interrupt is never deasserted (I12)")

    def _arrive(self, now: int) -> bool:
        """Kicks and wake-ups whose time has come."""
        due = [arrival for arrival in (*self.arrivals, *self.sleepers) if arrival[0] <= now]
        for vcpu in self.simulation.vcpus:
            if vcpu.pcpu is self and vcpu.blocked and vcpu.timer_deadline <= now and vcpu is not self.current:
                self.wake(vcpu)
        if not due:
            return False
        self.arrivals = [arrival for arrival in self.arrivals if arrival[0] > now]
        self.sleepers = [sleeper for sleeper in self.sleepers if sleeper[0] > now]
        for _, thread_id in due:
            thread = self.simulation.threads[thread_id]
            if thread.pcpu is self:
                self._enqueue(thread)
        return True

    def wake(self, thread: Thread) -> None:
        """Make a thread runnable: here, or on an idle pCPU if this one is busy and the thread floats."""
        target = self.simulation.idle_pcpu() if thread.floats and not self.idle else None
        if target is None:
            self._enqueue(thread)
        else:
            self._push(thread, target)

    def _enqueue(self, thread: Thread) -> None:
        thread.unblock()
        if thread is not self.current and thread not in self.queue:
            self.queue.append(thread)
            if self.current is not None and self.slice_end == NEVER:
                self.slice_end = self.now + self.tick_period // 2

    def _push(self, thread: Thread, target: PCpu) -> None:
        """Migrate a thread that is not running; it arrives no earlier than it left here."""
        thread.pcpu = target
        target.arrivals.append((max(self.now, target.now), thread.id))
        target.rearm()

    @property
    def idle(self) -> bool:
        """Does nothing run here, and is nothing on its way?"""
        return self.booted and self.current is None and not self.queue and not self.arrivals

    # The scheduler.

    async def step(self) -> None:
        """One interaction on this pCPU."""
        if not self.booted:
            await self._boot()
        elif self.need_resched or self.current is None or not self.current.runnable:
            await self._schedule()
        else:
            await self.current.step()

    async def _boot(self) -> None:
        self.booted = True
        self.account("host_kernel")
        self.enter_kernel()
        self.tick = self.tick_period
        await self.enter_host(EntryKind.BOOT, self.index, payload=self.simulation.host_boot(self.index))
        self.rearm()

    async def _schedule(self) -> None:
        """Take a thread off that is blocked or has used up its slice, then switch to the next one, or idle."""
        self.need_resched = False
        previous = self.current
        if previous is not None:
            if previous.runnable and not self.queue:
                self.slice_end = NEVER
                return
            self.account("host_kernel")
            self.enter_kernel()
            self.machine.set_account(self.index, Account.SWITCH)
            await self.enter_host(EntryKind.TASK_OUT, previous.id, el=2)
            await previous.switched_out()
            self.machine.set_account(self.index, Account.KERNEL)
            self.current = None
            if previous.runnable:
                self.queue.append(previous)
        if self.queue:
            await self._switch_to(self.queue.pop(0))
            self._balance()
        elif previous is None:
            await self._idle()
        else:
            self.tick = NEVER  # NO_HZ: an idle CPU takes no tick

    def _balance(self) -> None:
        """Hand threads that wait here and float to idle pCPUs."""
        for thread in list(self.queue):
            target = self.simulation.idle_pcpu() if thread.floats else None
            if target is not None:
                self.queue.remove(thread)
                self._push(thread, target)

    async def _switch_to(self, thread: Thread) -> None:
        self.account("host_kernel")
        self.enter_kernel()
        self.current = thread
        self.charge(Cost.CONTEXT_SWITCH)
        if self.tick == NEVER:
            self._restart_tick()
        self.slice_end = self.now + self.tick_period // 2 if self.queue else NEVER
        self.machine.set_account(self.index, Account.SWITCH)
        await self.enter_host(EntryKind.TASK_IN, thread.id, el=2)
        await thread.switched_in()
        self.machine.set_account(self.index, Account.KERNEL)
        self.rearm()

    async def _idle(self) -> None:
        """Nothing is runnable: idle up to the next interrupt."""
        if self.machine.interrupt(self.index):  # it rose while they were masked
            self.enter_kernel()
            await self.serve_interrupts(2)
            return
        self.account("idle")
        deadline = self.rearm()
        if deadline == NEVER:  # and every other pCPU's is no earlier, or it would have been its turn
            raise Livelock("every CPU idles without a timer although work is left (I12)")
        self.machine.idle(self.index, deadline)
        self.account("host_kernel")
        self.enter_kernel()
        await self.serve_interrupts(-1)

    def _restart_tick(self) -> None:
        self.tick = (self.now // self.tick_period + 1) * self.tick_period

    # State.

    def state(self) -> dict[str, Any]:
        return {
            "booted": self.booted,
            "host_has_events": self.host_has_events,
            "perf_ran": self.perf_ran,
            "tick": self.tick,
            "timers": sorted(self.timers.items()),
            "arrivals": self.arrivals,
            "sleepers": self.sleepers,
            "requests": [request.decode() for request in self.requests],
            "queue": [thread.id for thread in self.queue],
            "current": None if self.current is None else self.current.id,
            "slice_end": self.slice_end,
            "need_resched": self.need_resched,
            "previous_done": self.previous_done,
            "latencies": self.latencies.cycles,
            "accounted": dict(self.accounted),
            "account": [self._account, self._account_since],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state()` gave; the threads must exist."""
        threads = self.simulation.threads
        self.booted = state["booted"]
        self.host_has_events = state["host_has_events"]
        self.perf_ran = state["perf_ran"]
        self.tick = state["tick"]
        self.timers = dict(state["timers"])
        self.arrivals = [(time, thread) for time, thread in state["arrivals"]]
        self.sleepers = [(time, thread) for time, thread in state["sleepers"]]
        self.requests = [request.encode() for request in state["requests"]]
        self.queue = [threads[i] for i in state["queue"]]
        self.current = None if state["current"] is None else threads[state["current"]]
        self.slice_end = state["slice_end"]
        self.need_resched = state["need_resched"]
        self.previous_done = state["previous_done"]
        self.latencies = Latencies(state["latencies"])
        self.accounted = dict(state["accounted"])
        self._account, self._account_since = state["account"]
        self.rearm()
