"""The port: how software attends a CPU.

Software — the host's perf, a guest's kernel — never touches a counter except by an operation on
the CPU that it attends. It is *entered* (`Entry`), runs a handler to its end, and what the handler
does reaches the CPU as *bursts* of operations (`Burst`). Operations are posted: they travel with the
next `wait()`, or with the end of the entry, so a handler costs one round trip for each value that
it must look at before it can go on. `docs/timing.md` says when within a burst each effect happens.

The handler cannot tell who executes its bursts: in the embedded topology it is the pCPU itself, in
processes a gRPC stream (`services.attend`).
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from types import CoroutineType, coroutine
from typing import Any, Protocol, TypeAlias, TypeVar

from services._pmu import Burst

T = TypeVar("T")

# A value that is there at once, as it nearly always is in one process, or when this is awaited.
Eventual: TypeAlias = T | Coroutine[Any, Any, T]


async def awaited(value: Eventual[T]) -> T:
    """The value, whichever it is."""
    return await value if isinstance(value, Coroutine) else value


def begun(value: Eventual[T]) -> Eventual[T]:
    """The value if it need not be waited for, or what is to be awaited of it."""
    if type(value) is not CoroutineType:  # isinstance of an abstract class takes several times as long
        return value
    try:
        trap = value.send(None)
    except StopIteration as done:
        found: T = done.value
        return found
    return going_on(value, trap)


def at_once(value: Eventual[T]) -> T:
    """The value, which need not be waited for: interrupts are masked."""
    found = begun(value)
    if isinstance(found, Coroutine):
        found.close()
        raise RuntimeError("something is waited for where interrupts are masked")
    return found


async def going_on(work: Coroutine[Any, Any, T], trap: object, up_to: type | tuple[()] = ()) -> Any:
    """The rest of `work`, which waits for `trap`, and its value; or up to where it waits for an `up_to`, which is
    returned."""
    return await _going_on(work, trap, up_to)


@coroutine
def _going_on(work: Coroutine[Any, Any, T], trap: object, up_to: type | tuple[()]) -> Generator[Any, Any, Any]:
    while not isinstance(trap, up_to):
        try:
            resume, sent = work.send, (yield trap)
        except BaseException as exc:
            resume, sent = work.throw, exc
        try:
            trap = resume(sent)
        except StopIteration as done:
            return done.value
    return trap


class EntryKind(IntEnum):
    """Why software is entered."""

    BOOT = 0  # payload: the configuration of this CPU's software, as JSON
    PMU_IRQ = 1  # the PMU interrupt, physical (host) or virtual (guest)
    TIMER = 2  # argument: mask of 1 << Timer that have expired
    SGI = 3  # argument: SGI number (an IPI, or irq_work to itself)
    RESUME = 4  # a COMPUTE ran to its end, or a WFI was woken by nothing that has a handler
    TASK_IN = 6  # host only. argument: id of the thread that is switched in
    TASK_OUT = 7  # host only. argument: id of the thread that is switched out
    CALL = 8  # host only. calls: kernel-counter operations from KVM, one row each
    REQUEST = 9  # payload: what a user asks for (a workload, a perf session), as JSON
    REPORT = 10  # asks for the results so far; answered with a payload
    CPU_PM = 11  # host only. argument: a CpuPm, the core is about to lose its power, or has it again
    CPUHP = 12  # host only. argument: 1 if the CPU comes online, 0 if it goes offline
    READER = 13  # host only. argument: number of a perf process, which looks at its ring buffers; answered with bytes
    USER = 14  # host only. argument: id of a thread, whose program reads its counters at EL0
    EXCEPTION = 15  # guest only. argument: ESR_EL1 of the exception that its program's read at EL0 took


class CpuPm(IntEnum):
    """What cpu_pm_notify tells."""

    ENTER = 0
    EXIT = 1


NEVER = 2**64 - 1  # a time that does not come: what a timer is set to that is not armed


class Sgi(IntEnum):
    """The argument of an entry for an IPI, as Linux numbers them on arm64."""

    CALL_FUNC = 1  # from another CPU, which calls a function on this one
    IRQ_WORK = 5  # to itself


class Timer(IntEnum):
    """Timers that software may set on its CPU; several may expire in one entry."""

    TICK = 0
    MUX = 1
    SLEEP = 2  # guest only: the earliest of its sleeping tasks
    SWEVENT = 3  # the earliest hrtimer of perf's clocks that sample


class Call(IntEnum):
    """The code of a row of `Entry.calls`: what KVM asks of the host's perf."""

    CREATE = 0  # handle, event number, CounterFlag bits, sample period; one of that handle is released before
    RELEASE = 1  # handle
    ENABLE = 2  # handle of the vCPU's counter 0, and a mask: each of these counters, one after the other
    DISABLE = 3  # likewise
    READ = 4  # handle; answered with one Notice.RESULT (count since creation)
    EL0_FILTER = 5  # 1: kvm_vcpu_pmu_restore_guest, 0: kvm_vcpu_pmu_restore_host
    # mask given to the guest, reschedule if in use, 0 takes it back; by what the rest is enabled meanwhile
    # (HostEnable); the flags that are the guest's meanwhile, 0: those of the mask; 1: time meanwhile is none of events
    # that exclude guests
    GUEST_COUNTERS = 6
    LONG_OVERFLOW = 7  # handle of the vCPU's counter 0, a mask of counters, and which of these overflow at 64 bits
    GUEST_CONTEXT = 8  # 1: perf_load_guest_context, a guest has the whole PMU; 0: perf_put_guest_context


class HostEnable(IntEnum):
    """By what the host's driver stops and starts its counters while a guest has some of the CPU's."""

    OWN = 0  # PMCR_EL0.E
    RANGE = 1  # MDCR_EL2.HPME: PMCR_EL0.E is the guest's
    SHARED = 2  # PMCR_EL0.E, which the guest's need, too: it stays set where the host has no event


COUNTER_SHIFT = 5  # a kernel counter's handle: the id of its vCPU's thread above, the guest's counter below
Row = tuple[int, int, int, int, int]  # a Call and its four operands, unused ones 0
CALL_COLUMNS = 5  # of a row

OPERATION_SHIFT = 24  # the high byte of a burst's code word is the operation


class CounterFlag(IntFlag):
    """Attributes of a kernel counter that KVM creates (always pinned, exclude_hv, exclude_host)."""

    EXCLUDE_USER = 1
    EXCLUDE_KERNEL = 2
    LONG = 4  # counts in 64 bits (config1 bit 0)
    DISABLED = 8
    LONG_OVERFLOW = 16  # and the guest's counter overflows at 64 bits (PMCR_EL0.LC or LP): not of the perf_event_attr


class Notice(IntEnum):
    """Code of a NOTIFY operation: what software tells KVM, in order with its accesses."""

    RESULT = 0  # value: answer to a Call.READ
    COUNTER_OVERFLOW = 1  # value: handle of the kernel counter that overflowed
    GUEST_OVERFLOW = 2  # value: overflow flags seen by the host's handler in the guest's range
    WORK_DONE = 3  # guest: no workload is left and every perf session has ended; host: unused
    WORK_BEGUN = 4
    RESYNC_EL0 = 5  # the host's driver has started the PMU in interrupt context with a vCPU loaded
    # host; value: thread of a task that is killed before it execs, or of a perf, as its session cannot begin
    TASK_KILLED = 6
    HOST_PMUSERENR = 7  # host; value: what PMUSERENR_EL0 is to be for its own EL0, whoever's is in the register
    WAKEUP = 8  # host; value: number of the perf process whose ring buffer has reached its watermark
    DEADLOCK = 9  # host; value: the ContextLock that its perf waits for, which this CPU holds itself
    WORK_UNDONE = 10  # guest; value: cycles of work that a task will not do, as a signal kills it


class ContextLock(IntEnum):
    """Where an interrupt's handler takes the lock of the CPU's perf contexts (perf_ctx_lock, Linux 6.12)."""

    TICK = 0  # perf_adjust_freq_unthr_context
    MUX = 1  # perf_rotate_context
    IPI = 2  # event_function

    @property
    def deadlock(self) -> str:
        """What has happened where the CPU that is interrupted holds it."""
        return (
            f"{_LOCKERS[self]} waits for the lock of perf's contexts, which perf_pmu_resched_update() holds on this "
            "CPU with interrupts on"
        )


_LOCKERS = {
    ContextLock.TICK: "the tick (perf_adjust_freq_unthr_context)",
    ContextLock.MUX: "the mux timer (perf_rotate_context)",
    ContextLock.IPI: "an IPI (event_function)",
}


class TruthScope(IntFlag):
    """Whose occurrences a TRUTH operation adds up.

    A guest sees its own vCPU only (the two GUEST bits, wherever it has run); the host sees all
    that ran on the pCPU it asks on.
    """

    GUEST_EL0 = 1
    GUEST_EL1 = 2
    HOST_EL0 = 4
    HOST_EL2 = 8


@dataclass(slots=True)  # not frozen: made a million times a run, and freezing doubles that
class Entry:
    """One entry of software on a CPU.

    `now` and `previous_done` are in cycles of the CPU's clock; `previous_done` is when the
    entry before this one on the same CPU was left. `remaining` is what is left, in cycles, of the
    COMPUTE that the entry interrupts (0: none), `el` the exception level that it interrupts
    (-1: idle in WFI). A handler that posts neither COMPUTE nor WFI resumes what it interrupted.
    """

    kind: EntryKind
    now: int
    argument: int = 0
    el: int = -1
    remaining: int = 0
    previous_done: int = 0
    calls: Sequence[Row] = ()
    payload: bytes = b""


class TookException(Exception):
    """An operation took an exception to the software's own level; the rest of the burst is lost."""

    def __init__(self, esr: int) -> None:
        cause = " by an access that is UNDEFINED for it" if esr >> 26 == 0 else ""  # ESR_ELx.EC
        super().__init__(f"exception taken to the software's own level{cause}, ESR {esr:#x}")
        self.esr = esr


class BurstError(Exception):
    """A burst asks for what its CPU does not execute; the text names the operation.

    An executor raises it; the session of remote software that sent the burst ends with INVALID_ARGUMENT.
    """


class Executor(Protocol):
    """Who executes bursts: the pCPU itself, or the stream to it."""

    def execute(self, burst: Burst) -> Eventual[int]:
        """Execute `burst` to its end; the time in cycles after it.

        The values read are in `burst.values()`. Raises `TookException`.
        """
        ...


class EntryExecutor(Executor, Protocol):
    """An executor that is told which burst is the last of an entry."""

    def finish(self, burst: Burst, answer: bytes) -> Eventual[int]:
        """Execute the last burst of an entry likewise, `answer` being the entry's; the burst is empty then."""
        ...


class Cpu:
    """What software sees of the CPU it attends. Registers are encodings (`services.registers`)."""

    __slots__ = ("_answer", "_executor", "burst", "now")

    def __init__(self, executor: EntryExecutor) -> None:
        self._executor = executor
        self._answer = b""
        self.burst = Burst()  # handlers post to it: cpu.burst.msr(...), .mrs(...), .isb(), ...
        self.now = 0  # cycles, as of the entry or the last wait

    async def wait(self) -> list[int]:
        """Have all that is posted executed; return the values read, in order of posting."""
        values = self.execute()
        return values if isinstance(values, list) else await values

    def execute(self) -> Eventual[list[int]]:
        """`wait` for handlers that run by the million: the values, or what gives them when it is awaited."""
        burst = self.burst
        try:
            time = self._executor.execute(burst)
        except BaseException:
            self.burst = Burst()
            raise
        if isinstance(time, int):
            self.now = time
            return burst.take()
        self.burst = Burst()
        return self._values(burst, time)

    async def _values(self, burst: Burst, time: Coroutine[Any, Any, int]) -> list[int]:
        self.now = await time
        return burst.values()

    async def mrs(self, register: int) -> int:
        """Read one register, after all that is posted."""
        slot = self.burst.mrs(register)
        return (await self.wait())[slot]

    async def window(self) -> None:
        """Unmask interrupts for an instant: what is pending is served here, nested."""
        self.burst.window()
        await self.wait()

    def answer(self, payload: bytes) -> None:
        """The payload that travels with the end of the current entry. Call it after the handler's last wait: a nested
        entry's answer replaces it."""
        self._answer = payload

    def done(self) -> Eventual[bytes]:
        """End the current entry: its last burst is executed; its answer. Whoever dispatches entries calls this."""
        burst, answer = self.burst, self._answer
        if answer:
            self._answer = b""
        try:
            time = self._executor.finish(burst, answer)
        except BaseException:
            self.burst = Burst()
            raise
        if isinstance(time, int):
            return answer
        self.burst = Burst()
        return _executed(time, answer)


async def _executed(time: Coroutine[Any, Any, int], answer: bytes) -> bytes:
    await time
    return answer


class Software(Protocol):
    """Software that attends one CPU: a guest's kernel on a vCPU, the host's perf on a pCPU."""

    def enter(self, cpu: Cpu, entry: Entry) -> Coroutine[Any, Any, object] | None:
        """Run the handler of `entry` to its end, or as far as it gets at once and to its end when this is awaited.

        `cpu.done()` is the caller's.
        """
        ...
