"""A physical CPU as the host's kernel sees it: interrupts, the tick, switches of threads, the host's perf."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from services import state, typed_json
from services._pmu import (
    CPUTIME_HOST_KERNEL,
    CPUTIME_IDLE,
    NOTE_ALL_IDLE,
    NOTE_DEADLOCK,
    NOTE_LIVELOCK,
    OP_DONE,
    OP_IPI,
    OP_NOTIFY,
    OP_TIMER,
    OP_WINDOW,
    Burst,
    Stop,
    register_name,
)
from services.boot import HostPolicy
from services.costs import Cost
from services.cpu import (
    CALL_COLUMNS,
    COUNTER_SHIFT,
    NEVER,
    ContextLock,
    Entry,
    EntryKind,
    Eventual,
    Notice,
    Row,
    Sgi,
    Timer,
    TookException,
    awaited,
)
from services.executor import Work, executor_of
from services.experiment import IRQTIME, CpuSpec
from services.kvm import cpuhp, reports
from services.kvm.attendant import Attendant
from services.kvm.bill import Account
from services.kvm.board import Board
from services.kvm.errors import Livelock, ProtocolError, SimulationError
from services.kvm.guest_pmu import OF_COUNTERS, is_typer
from services.kvm.latency import Latencies
from services.kvm.parameter import with_reserved
from services.kvm.runqueue import RunQueue
from services.kvm.thread import Thread
from services.registers import PMUSERENR_CR, PMUSERENR_ER

IRQ_STORM = 20_000  # handlers in a row, an interrupt pending after each, before it counts as a livelock
WINDOWS = 16  # open within one another: software has handlers for far fewer interrupts
MOST_RECORDS = 1 << 32  # bytes that a perf process may find at a time
CALL, PMU_IRQ = EntryKind.CALL, EntryKind.PMU_IRQ
# At their ends no pseudo-NMI is taken: its handler does not nest, vcpu_load follows, the simulation is over, a program
# goes on.
WITHOUT_NMI = (PMU_IRQ, EntryKind.TASK_IN, EntryKind.REPORT, EntryKind.USER)
RESULT, COUNTER_OVERFLOW, GUEST_OVERFLOW = Notice.RESULT, Notice.COUNTER_OVERFLOW, Notice.GUEST_OVERFLOW
COUNTER_MASK = (1 << COUNTER_SHIFT) - 1
RESYNC_EL0, TASK_KILLED = Notice.RESYNC_EL0, Notice.TASK_KILLED
HOST_PMUSERENR, WAKEUP, DEADLOCK = Notice.HOST_PMUSERENR, Notice.WAKEUP, Notice.DEADLOCK
USER_ACCESS = PMUSERENR_ER | PMUSERENR_CR
CONTEXT_LOCKS = frozenset(ContextLock)
IRQ_ENTRY, IN_PMU_IRQ = int(Cost.IRQ_ENTRY), int(Account.PMU_IRQ)


@dataclass(slots=True, eq=False)
class PCpuState:
    """What a pCPU has to keep between two interactions."""

    rq: RunQueue
    host_has_events: bool = False  # of its own: their EL0 filters are flipped while a vCPU is loaded
    host_userenr: int = 0  # PMUSERENR_EL0 as the host's driver wants it for the host's EL0
    going: bool = False  # offline, as soon as what runs can be taken off
    offline: bool = False  # it has been taken offline
    hotplugs: int = 0  # how often
    reserved_host_counters: int | None = None  # as written last
    parameter_writes: list[tuple[int, int]] = field(default_factory=list)  # still to come: when, in cycles, and what
    tick: int = NEVER
    deadline: int = NEVER  # the earliest of all that is due here, as of the last rearm()
    timers: dict[int, int] = field(default_factory=dict)  # set by the host's perf
    irq_work: bool = False  # the host's perf has raised its IPI to itself
    call_function: int = NEVER  # when the IPI arrives by which another CPU calls a function here, in cycles
    overflow_work: list[int] = field(default_factory=list)  # vCPUs that KVM is to kick by irq_work
    requests: list[bytes] = field(default_factory=list)  # of live clients, for the host's perf here
    previous_done: int = 0
    latencies: Latencies = field(default_factory=Latencies)  # of the host's own interrupts
    handler_bursts: int = 0  # of the host's, those in its handlers: all but those of KVM's calls


class PCpu(PCpuState):
    """One pCPU. Everything on it is sequential: one actor runs, all others wait."""

    DERIVED: ClassVar[tuple[str, ...]] = (
        "cpu",
        "arm_pmu",  # which of the host's PMUs covers it
        "context",
        "host_policy",  # the design's
        "policy",
        "board",
        "machine",
        "executor",  # of the host's bursts here
        "spec",
        "costs",
        "profile",
        "tick_period",
        "residency",
        "hotplug_time",
        "pseudo_nmi",
        "call",  # kernel-counter operations for KVM: `call_perf`, with pseudo-NMIs `_call_nmi`
        "irqtime",  # the host accounts the time of interrupt handlers apart
        "exit_null",  # the parts of these exits (`services.experiment.ExitSpec`)
        "exit_sysreg",
        "threads",
        "pcpus",
        "boot",
        "host",
        # Within one interaction only.
        "entry_of_call",
        "results",
        "reads_due",
        "noticed",
        "windows",
        "wake_reader",
    )
    __slots__ = DERIVED

    def __init__(
        self,
        board: Board,
        cpu: int,
        context: int,
        host_policy: Callable[[CpuSpec], HostPolicy],
        threads: list[Thread],
        queues: list[RunQueue],
        arm_pmu: int,
        pcpus: Sequence[PCpu],
    ) -> None:
        """`pcpus`: all of them, by number."""
        experiment = board.experiment
        self.tick_period = experiment.frequency_hz // experiment.host.hz
        self.residency = experiment.host.powerdown_residency
        rq = RunQueue(cpu, board.machine, self.tick_period // 2, threads, queues, self.rearm)
        super().__init__(rq)
        self.cpu = cpu
        self.arm_pmu = arm_pmu
        self.context = context
        self.host_policy = host_policy
        self.board = board
        self.machine = board.machine
        # The host's kernel unmasks interrupts by WINDOW.
        self.executor = executor_of(self, board.machine, context, cpu, interruptible=False)
        self.reserved_host_counters = experiment.cpus[cpu].reserved_host_counters
        self.spec: CpuSpec
        self.policy: HostPolicy
        self._find_policy()
        self.costs = board.costs
        self.irqtime = experiment.host.accounting in IRQTIME
        self.pseudo_nmi = experiment.host.pseudo_nmi
        self.call = self._call_nmi if self.pseudo_nmi else self.call_perf
        self.exit_null = experiment.exits.parts(board.costs[Cost.EXIT_FULL_NULL])
        self.exit_sysreg = experiment.exits.parts(board.costs[Cost.EXIT_FULL_SYSREG])
        self.profile = experiment.host_kernel_profile
        self.threads = threads
        self.pcpus = pcpus
        self.boot = b""  # the payload of the host's BOOT entry
        self.host: Attendant | None = None
        self.entry_of_call = Entry(CALL, 0)  # used again and again: no entry is as frequent as KVM's calls
        self.results: list[int] = []  # of the READs of the CALL under way
        self.reads_due = 0  # of its READs that are not answered yet
        self.noticed = False  # the overflow that the host's handler is serving is a guest's
        self.windows = 0  # open within one another
        self.find_hotplug()
        self.wake_reader: Callable[[int, int], None]  # of a perf process by its number, on a pCPU; set when all exist

    # Time.

    def find_hotplug(self) -> None:
        """When it goes offline next or, while it is offline, comes online: nothing that it is on its way to."""
        spans = self.board.experiment.host.cpus[self.cpu].offline
        if self.offline:
            self.hotplug_time = spans[self.hotplugs - 1][1]
        else:
            self.hotplug_time = spans[self.hotplugs][0] if self.hotplugs < len(spans) and not self.going else NEVER

    def _find_policy(self) -> None:
        """What the design asks of the host's driver, with what the parameter is."""
        self.spec = with_reserved(self.board.experiment.cpus[self.cpu], self.reserved_host_counters)
        self.policy = self.host_policy(self.spec)

    @property
    def now(self) -> int:
        """The pCPU's clock, in cycles."""
        return self.machine.now(self.cpu)

    @property
    def perf_bursts(self) -> int:
        """How many bursts the host has had for KVM's calls."""
        return self.executor.bursts - self.handler_bursts

    def rearm(self) -> int:
        """Have the core stop at the earliest deadline, which is returned."""
        deadline = 0 if self.requests or self.irq_work or self.overflow_work else self.tick
        for time in self.timers.values():
            deadline = min(deadline, time)
        if self.parameter_writes:
            deadline = min(deadline, self.parameter_writes[0][0])
        deadline = min(deadline, self.rq.next_event(), self.hotplug_time, self.call_function)
        self.deadline = deadline
        self.machine.set_deadline(self.cpu, deadline)
        return deadline

    def next_interaction(self) -> int:
        """The time of what this pCPU does next, NEVER if nothing is left to do."""
        rq = self.rq
        if self.offline:
            return self.hotplug_time
        if not rq.online or rq.need_resched or self.going or self.machine.interrupt(self.cpu):
            return self.now
        if rq.current is None:
            return self.now if rq.waiting else self.machine.idle_stop(self.cpu, self.rearm())
        return rq.current.next_interaction()

    def interrupt_pending(self) -> bool:
        """Is there an interrupt to serve?"""
        return self.machine.pending_interrupt(self.cpu)

    def charge(self, cost: int) -> None:
        """Software time of the host kernel."""
        self.machine.charge(self.cpu, cost, self.costs[cost])

    # The host's kernel.

    def enter_kernel(self) -> None:
        """From here on the host's kernel runs, at EL2."""
        self.machine.set_running(self.cpu, self.context, 2, self.profile)

    def kvm(self, burst: Burst) -> list[int]:
        """Execute KVM's own accesses, at EL2, with interrupts off; the values read."""
        stop = self.machine.execute(self.cpu, burst, 0, False)
        while type(stop) is Stop:
            stop = self.machine.execute(self.cpu, burst, self.oops(burst, stop), False)
        return burst.values()

    def oops(self, burst: Burst, stop: Stop) -> int:
        """An access of KVM's own is UNDEFINED: where the burst goes on. Raises SimulationError.

        PMXEVCNTR_EL0 with PMSELR_EL0.SEL = 31 is, which partitioned v6 takes to be the cycle counter, and a counter
        that the CPU has not, for which a guest has partitioned v2 to v4 ask: an oops of the host's kernel, which here
        goes on behind it. It reads as 0.
        """
        register = burst.arrays()[0][stop.index] & 0xFFFF
        if stop.reason != Stop.EXCEPTION or register not in OF_COUNTERS or is_typer(register):
            raise SimulationError(f"KVM's own access on pCPU {self.cpu} stopped: {stop}")
        return stop.index + 1

    async def enter_host(
        self,
        kind: EntryKind,
        argument: int = 0,
        el: int = -1,
        payload: bytes = b"",
    ) -> bytes:
        """Enter the host's perf on this pCPU; what it answers."""
        assert self.host is not None
        now = self.machine.mark(self.cpu, kind, argument, 0)
        entry = Entry(kind, now, argument, el, 0, self.previous_done, (), payload)
        others = self.handler_bursts - self.executor.bursts
        try:
            answer = self.host.enter(self.executor, entry)
            if not isinstance(answer, bytes):
                answer = await answer
        except TookException as exc:
            raise self._took(exc) from None
        self.handler_bursts = others + self.executor.bursts
        self.previous_done = self.machine.now(self.cpu)
        if self.pseudo_nmi and kind not in WITHOUT_NMI:
            await self.nmi()
        return answer

    def _took(self, exc: TookException) -> SimulationError:
        """An exception that nobody is left to take: an oops of the host's kernel, which the judge has found."""
        what = f"{self._host_name()}: {exc}, and its handler has ended"
        return Livelock(what, violated=True) if self.machine.violations() else SimulationError(what)

    def call_perf(
        self, rows: list[Row], account: Account = Account.PERF, *, calls: int = 0, reads: int = 0
    ) -> Eventual[list[int]]:
        """Kernel-counter operations for KVM, in one entry; the results of its READs.

        The log has a row's columns for each of the `calls`, 0 for one a row.
        """
        host, machine, cpu, entry = self.host, self.machine, self.cpu, self.entry_of_call
        assert host is not None
        results = self.results = []
        self.reads_due = reads
        entry.now, before = machine.begin_call(cpu, account, CALL, CALL_COLUMNS * (calls or len(rows)))
        entry.previous_done = self.previous_done
        entry.calls = rows
        try:
            answer = host.enter(self.executor, entry)
        except TookException as exc:
            raise self._took(exc) from None
        if not isinstance(answer, bytes):
            return self._called(answer, before)
        self.previous_done = machine.end_call(cpu, before)
        if self.reads_due:
            raise self._unanswered()
        return results

    def _call_nmi(
        self, rows: list[Row], account: Account = Account.PERF, *, calls: int = 0, reads: int = 0
    ) -> Eventual[list[int]]:
        done = self.call_perf(rows, account, calls=calls, reads=reads)
        if isinstance(done, list) and not self.machine.interrupt(self.cpu):
            return done
        return self._called_nmi(done)

    async def _called_nmi(self, done: Eventual[list[int]]) -> list[int]:
        results = await awaited(done)
        await self.nmi()
        return results

    async def _called(self, answer: Coroutine[Any, Any, bytes], before: int) -> list[int]:
        try:
            await answer
        except TookException as exc:
            raise self._took(exc) from None
        self.previous_done = self.machine.end_call(self.cpu, before)
        if self.reads_due:
            raise self._unanswered()
        return self.results

    def _unanswered(self) -> Exception:
        assert self.host is not None
        return self.host.refuse(self._host_name(), f"calls: READs left without a RESULT: {self.reads_due}")

    async def read_buffers(self, process: int) -> int:
        """A perf process looks at its ring buffers, of all pCPUs: the bytes of records that it finds."""
        answer = await self.enter_host(EntryKind.READER, process, el=2)
        if not answer.isdigit() or len(answer) > len(str(MOST_RECORDS)) or int(answer) > MOST_RECORDS:
            assert self.host is not None
            problem = f"ring buffers with {answer[:20]!r} bytes of records: a number up to {MOST_RECORDS} is wanted"
            raise self.host.refuse(self._host_name(), problem)
        return int(answer)

    async def report(self) -> dict[str, Any]:
        """What the host's perf here reports."""
        if not (self.rq.online or self.offline):  # it has yet to boot
            return {}
        assert self.host is not None
        self.enter_kernel()
        answer = await self.enter_host(EntryKind.REPORT)
        try:
            return reports.of_host(answer)
        except ValueError as exc:
            raise self.host.refuse(self._host_name(), str(exc)) from None

    def _host_name(self) -> str:
        return f"the host's perf on pCPU {self.cpu}"

    # The host's bursts (`services.executor.BurstCpu`).

    def trapped(self, register: int, write: bool, value: int, program: bool) -> int:
        raise ProtocolError(f"an access to {register_name(register)} trapped: nothing traps at EL2")

    def program_undefined(self, esr: int) -> None:
        current = self.rq.current
        if current is None:
            raise ProtocolError(f"a read at EL0 on pCPU {self.cpu}, where no program runs")
        current.sigill(esr)

    def interrupted(self, stop: Stop) -> Work:
        raise ProtocolError(f"operation {stop.index}: the host's handlers run with interrupts masked, {stop}")

    def operation(self, index: int, code: int, argument: int, operand: int) -> Work | None:
        if code == OP_NOTIFY:
            self._notice(index, argument, operand)
        elif code == OP_TIMER:
            if argument not in (Timer.MUX, Timer.SWEVENT):
                raise ProtocolError(f"operation {index}: timer {argument} is not the host's perf's")
            self.timers[argument] = operand
            self.rearm()
        elif code == OP_WINDOW:
            return self._window(index)
        elif code == OP_IPI:
            if argument >= len(self.pcpus):
                raise ProtocolError(f"operation {index}: an IPI to pCPU {argument} of {len(self.pcpus)}")
            if argument == self.cpu:
                self.irq_work = True
                self.rearm()  # where the scheduler raises it, no handler of an interrupt is about to look
            else:
                self.pcpus[argument].smp_call(self.now)
        elif code != OP_DONE:
            raise ProtocolError(f"operation {index} is not for the host's kernel: code {code}")
        return None

    async def _window(self, index: int) -> None:
        if self.windows == WINDOWS:
            raise ProtocolError(f"operation {index}: a WINDOW within {WINDOWS} others, each in a handler entered there")
        self.windows += 1
        try:
            await self.serve_interrupts(2)
        finally:
            self.windows -= 1

    def _notice(self, index: int, code: int, value: int) -> None:
        if code == RESULT:
            if not self.reads_due:
                raise ProtocolError(f"operation {index}: a RESULT, but no READ waits for one")
            self.reads_due -= 1
            self.results.append(value)
        elif code == RESYNC_EL0:
            if self.rq.current is not None:
                self.rq.current.resync_el0()
        elif code == DEADLOCK:
            raise self._deadlock(index, value)
        elif code == WAKEUP:
            self.wake_reader(value, self.cpu)
        elif code == COUNTER_OVERFLOW:
            thread, counter = value >> COUNTER_SHIFT, value & COUNTER_MASK
            if thread >= len(self.threads):
                raise ProtocolError(
                    f"operation {index}: counter handle {value:#x} names thread {thread}, which does not exist"
                )
            owner = self.threads[thread]
            if owner.cpu != self.cpu:
                raise ProtocolError(
                    f"operation {index}: counter handle {value:#x} names thread {thread}, which is on pCPU {owner.cpu}"
                )
            owner.counter_overflow(counter, self.machine.raised(self.cpu))
            self.noticed = True
        elif code == GUEST_OVERFLOW:
            if value & ~self.policy.guest_flags or not (value or self.policy.fixed_flags):
                raise ProtocolError(
                    f"operation {index}: overflow flags {value:#x} of a guest: {self._not_a_guests(value)}"
                )
            current = self.rq.current
            if current is not None and current.guest_overflow(value, self.machine.raised(self.cpu)) and value:
                self.noticed = True
        elif code == TASK_KILLED:
            if value >= len(self.threads) or not self.threads[value].comes_to(self.cpu):
                raise ProtocolError(
                    f"operation {index}: thread {value}, which is to be killed, is not on pCPU {self.cpu}"
                )
            self.threads[value].kill()
        elif code == HOST_PMUSERENR:
            if value & ~USER_ACCESS:
                raise ProtocolError(
                    f"operation {index}: PMUSERENR_EL0 = {value:#x}: Linux lets EL0 read, by ER and CR, or not"
                )
            self.host_userenr = value
        else:
            raise ProtocolError(f"operation {index}: notice {code} is not for the host's perf")

    def livelock(self, note: int, who: int, place: int, what: str) -> Livelock:
        """Nobody gets anywhere, as the `note` tells the judge, with its two numbers; it says if that is a violation."""
        before = self.machine.violations()
        self.machine.note(self.cpu, note, who, place)
        return Livelock(what, violated=self.machine.violations() > before)

    def _deadlock(self, index: int, place: int) -> Livelock:
        if place not in CONTEXT_LOCKS:
            raise ProtocolError(f"operation {index}: a deadlock at {place}, where no handler takes a lock")
        what = f"pCPU {self.cpu} at cycle {self.now}: {ContextLock(place).deadlock}: a deadlock (I12)"
        return self.livelock(NOTE_DEADLOCK, self.context, place, what)

    def _not_a_guests(self, flags: int) -> str:
        """Why overflow flags cannot be a guest's, whether or not a vCPU is current."""
        possible = self.policy.guest_flags
        if not possible:
            return f"under {self.board.experiment.design.name} the host finds none of a guest's"
        if flags & ~possible:
            return f"no guest has a counter on pCPU {self.cpu} for {flags & ~possible:#x}"
        return "none is set"

    # Interrupts.

    def smp_call(self, time: int) -> None:
        """Another CPU has called a function here at `time`, in cycles: by an IPI, if none is on the way."""
        self.call_function = min(self.call_function, time)
        self.rearm()

    async def calls_run(self, el: int) -> None:
        """The functions that others have called here, if any."""
        if self.call_function != NEVER:
            self.call_function = NEVER
            await self.enter_host(EntryKind.SGI, Sgi.CALL_FUNC, el)

    async def nmi(self) -> None:
        """With interrupts masked by priority, as local_irq_disable() does where there are pseudo-NMIs."""
        if self.machine.interrupt(self.cpu):
            await self.serve_interrupts(2, masked=True)
            self.rearm()  # what it leaves to irq_work waits until interrupts are unmasked

    def queue_overflow_work(self, vcpu: int) -> None:
        """irq_work_queue(&vcpu->arch.pmu.overflow_work)."""
        if vcpu not in self.overflow_work:
            self.overflow_work.append(vcpu)

    async def irq_work_run(self, el: int) -> None:
        """What handlers of the PMU's interrupt could not do themselves: KVM's kicks, the wake-ups of perf's readers."""
        work, self.overflow_work = self.overflow_work, []
        for vcpu in work:  # kvm_pmu_perf_overflow_notify_vcpu
            self.rq.kick(self.threads[vcpu])
        if self.irq_work:
            self.irq_work = False
            await self.enter_host(EntryKind.SGI, Sgi.IRQ_WORK, el)

    async def serve_interrupts(self, el: int, masked: bool = False) -> None:
        """Take what is pending: interrupts are unmasked here, or `masked`, and then it is pseudo-NMIs alone.

        `el` is the exception level interrupted.
        """
        machine, cpu = self.machine, self.cpu
        if self.irqtime:
            machine.begin_handler(cpu)
        irq_entry = self.costs[IRQ_ENTRY]
        for _ in range(IRQ_STORM):
            if self.irqtime:
                machine.next_handler(cpu)
            taken = machine.take_interrupt(cpu, IRQ_ENTRY, irq_entry, IN_PMU_IRQ)
            if taken is not None:
                raised, entered, before = taken
                if self.policy.forwarded_irq:
                    self._forward(raised)
                    machine.set_account(cpu, before)
                    continue
                self.noticed = False
                await self.enter_host(PMU_IRQ, 0, el)
                machine.set_account(cpu, before)
                if not self.noticed:
                    self.latencies.add(raised, entered)
                continue
            if masked:
                break
            if self.irq_work or self.overflow_work:  # one IPI, irq_work_run
                self.charge(IRQ_ENTRY)
                await self.irq_work_run(el)
                continue
            now = machine.now(cpu)
            if now < self.deadline:
                break
            if self.call_function <= now:
                self.charge(IRQ_ENTRY)
                await self.calls_run(el)
                continue
            if self.hotplug_time <= now:  # the hotplug thread preempts what runs
                self.going = True
                self.find_hotplug()
                self.rearm()
                self.charge(IRQ_ENTRY)
                continue
            if self.requests:  # the IPI of a perf call on this CPU
                self.charge(IRQ_ENTRY)
                await self.enter_host(EntryKind.REQUEST, el=el, payload=self.requests.pop(0))
                continue
            if self.parameter_writes and self.parameter_writes[0][0] <= now:
                self.charge(IRQ_ENTRY)
                await self._parameter_written(el)
                continue
            if self.rq.arrived(now):
                self.charge(IRQ_ENTRY)
                continue
            expired = self._expired(now)
            if not expired:
                self.rearm()
                break
            self.charge(IRQ_ENTRY)
            if self.pseudo_nmi:
                await self.nmi()
            before = machine.set_account(cpu, Account.KERNEL)
            await self.enter_host(EntryKind.TIMER, expired, el)
            machine.set_account(cpu, before)
        else:
            what = f"pCPU {cpu} at cycle {self.now}: interrupt after interrupt, without end (I12)"
            raise self.livelock(NOTE_LIVELOCK, self.context, 0, what)
        if self.irqtime:
            machine.end_handler(cpu)

    def _forward(self, raised: int) -> None:
        """The PMU's interrupt is no business of the host's."""
        self.machine.acknowledge(self.cpu)
        if self.rq.current is not None:
            self.rq.current.pmu_interrupt(raised)

    def write_parameter(self, reserved: int) -> None:
        """`reserved_host_counters` is written now."""
        bisect.insort(self.parameter_writes, (self.now, reserved), key=lambda write: write[0])
        self.rearm()

    async def _parameter_written(self, el: int) -> None:
        """The IPI by which a write of `reserved_host_counters` has each CPU's events rescheduled."""
        _, self.reserved_host_counters = self.parameter_writes.pop(0)
        self._find_policy()
        self.rearm()
        await self.enter_host(EntryKind.REQUEST, el=el, payload=typed_json.dumps({"policy": self.policy}))

    def _expired(self, now: int) -> int:
        """The timers of the host's perf that have expired, one bit each, the tick among them."""
        expired = 0
        for timer, deadline in self.timers.items():
            if deadline <= now:
                expired |= 1 << timer
                self.timers[timer] = NEVER
        if self.tick <= now:
            expired |= 1 << Timer.TICK
            self.tick += self.tick_period * ((now - self.tick) // self.tick_period + 1)
            self.machine.account_tick(self.cpu, self.tick_period, self.tick)
            self.charge(Cost.TICK)
            self.rq.need_resched |= bool(self.rq.waiting) and now >= self.rq.slice_end
        return expired

    # The scheduler.

    def step(self) -> Coroutine[Any, Any, object] | None:
        """One interaction on this pCPU, as `Thread.step`."""
        rq = self.rq
        current = rq.current
        if self.offline:
            return cpuhp.bring_online(self)
        if not rq.online:
            return self._bring_up()
        if self.going:
            return cpuhp.take_offline(self)
        if rq.need_resched or current is None or not current.runnable():
            return self._schedule()
        return current.step()

    async def _bring_up(self) -> None:
        self.rq.online = True
        self.machine.set_cputime(self.cpu, CPUTIME_HOST_KERNEL)
        self.enter_kernel()
        self._set_tick(self.tick_period)
        self.rearm()
        await self.enter_host(EntryKind.BOOT, self.cpu, payload=self.boot)

    async def _schedule(self) -> None:
        """Take a thread off that is blocked or has used up its slice, then switch to the next one, or idle."""
        rq, previous = self.rq, self.rq.current
        rq.need_resched = False
        if previous is not None:
            if previous.runnable() and not rq.waiting:
                rq.slice_end = NEVER
                await previous.picked_again()
                return
            await self.preempt()
        if rq.waiting:
            await self._switch_to(rq.waiting.pop(0), -1 if previous is None else 2)
            rq.balance()
        elif previous is None:
            await self._idle()
        else:
            self.stop_tick()

    async def preempt(self) -> None:
        """Take the current thread off, if there is one; it waits if it could go on."""
        rq, previous = self.rq, self.rq.current
        if previous is None:
            return
        self.machine.set_cputime(self.cpu, CPUTIME_HOST_KERNEL)
        self.enter_kernel()
        self.machine.set_account(self.cpu, Account.SWITCH)
        if previous.at_entry:
            await previous.leave_guest()
        await self.enter_host(EntryKind.TASK_OUT, previous.id, el=2)
        await previous.switched_out()
        self.machine.set_account(self.cpu, Account.KERNEL)
        rq.current = None
        if self.pseudo_nmi:
            await self.nmi()
        if previous.runnable():
            rq.waiting.append(previous)

    async def _switch_to(self, thread: Thread, el: int) -> None:
        """`el` is that of the thread before, -1 if the CPU was idle."""
        self.machine.set_cputime(self.cpu, CPUTIME_HOST_KERNEL)
        self.enter_kernel()
        self.charge(Cost.CONTEXT_SWITCH)
        if self.pseudo_nmi:
            await self.nmi()
        self.rq.current = thread
        if self.tick == NEVER:
            self._restart_tick()
        self.rq.new_slice()
        self.machine.set_account(self.cpu, Account.SWITCH)
        await self.enter_host(EntryKind.TASK_IN, thread.id, el=el)
        await thread.switched_in()
        if self.pseudo_nmi:
            await self.nmi()
        self.rearm()

    async def _idle(self) -> None:
        """Nothing is runnable: idle up to the next interrupt."""
        if self.machine.interrupt(self.cpu):  # it rose while they were masked
            self.enter_kernel()
            await self.serve_interrupts(2)
            return
        self.machine.set_cputime(self.cpu, CPUTIME_IDLE)
        deadline = self.rearm()
        if deadline == self.machine.arrives(self.cpu) == NEVER:
            # And every other pCPU's is no earlier, or it would have been its turn.
            what = "every CPU idles without a timer although work is left (I12)"
            raise self.livelock(NOTE_ALL_IDLE, self.context, 0, what)
        woken = self.machine.idle_stop(self.cpu, deadline)
        if self.residency and woken - self.now >= self.residency:
            await cpuhp.power_down(self, woken)
        else:
            self.machine.idle(self.cpu, deadline)
            self.machine.set_cputime(self.cpu, CPUTIME_HOST_KERNEL)
            self.enter_kernel()
        await self.serve_interrupts(-1)

    def stop_tick(self) -> None:
        """NO_HZ: an idle CPU takes no tick."""
        self._set_tick(NEVER)

    def _restart_tick(self) -> None:
        self._set_tick((self.now // self.tick_period + 1) * self.tick_period)
        self.rearm()

    def _set_tick(self, tick: int) -> None:
        self.tick = tick
        self.machine.set_tick(self.cpu, tick)

    # State.

    def save(self) -> state.Saved:
        return state.save(self)

    def restore(self, saved: state.Saved, objects: state.Objects) -> None:
        """Take up what `save` gave; the machine, with its deadline, has been restored."""
        before = self.reserved_host_counters
        state.restore(self, saved, objects)
        if self.reserved_host_counters != before:
            self._find_policy()
        self.find_hotplug()
        self.reads_due = 0  # whatever a handler that failed has left unanswered
