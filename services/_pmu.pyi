"""The Rust core: the PMU as the architecture describes it, CPUs, time and truth."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Self, final

__all__ = [
    "COMPUTE_EL_SHIFT",
    "CPUTIME_GUEST",
    "CPUTIME_HOST_KERNEL",
    "CPUTIME_HOST_USER",
    "CPUTIME_IDLE",
    "NOTE_ALL_IDLE",
    "NOTE_DEADLOCK",
    "NOTE_EVENT_CLOSED",
    "NOTE_EVENT_COUNT",
    "NOTE_EVENT_DISABLED",
    "NOTE_EVENT_ENABLED",
    "NOTE_EVENT_ERROR",
    "NOTE_EVENT_GROUP",
    "NOTE_EVENT_OFF",
    "NOTE_EVENT_ON",
    "NOTE_EVENT_OPEN",
    "NOTE_EVENT_READ",
    "NOTE_EVENT_TIME_ENABLED",
    "NOTE_EVENT_TIME_RUNNING",
    "NOTE_GET_ONE_REG",
    "NOTE_HOST_PMUSERENR",
    "NOTE_INJECT_UNDEF",
    "NOTE_LIVELOCK",
    "NOTE_MASKED",
    "NOTE_SET_FILTER",
    "NOTE_SET_NR_COUNTERS",
    "NOTE_SET_ONE_REG",
    "NOTE_UNMASKED",
    "NOTE_VCPU_BLOCKS",
    "NOTE_VCPU_IS_PUT",
    "NOTE_VCPU_LOAD",
    "NOTE_VCPU_LOADED",
    "NOTE_VCPU_PUT",
    "NOTE_VCPU_WAKES",
    "OP_CHARGE",
    "OP_CLOCK",
    "OP_COMPUTE",
    "OP_DONE",
    "OP_HVC",
    "OP_IPI",
    "OP_ISB",
    "OP_MRS",
    "OP_MSR",
    "OP_NOTE",
    "OP_NOTIFY",
    "OP_TIMER",
    "OP_TRUTH",
    "OP_USER_MRS",
    "OP_USER_MSR",
    "OP_WFI",
    "OP_WINDOW",
    "OP_WRITE_BACK",
    "Burst",
    "Executor",
    "Explanation",
    "Field",
    "Machine",
    "Row",
    "Rule",
    "Stop",
    "explain",
    "judge_kinds",
    "judge_windows",
    "register_encoding",
    "register_fields",
    "register_name",
    "register_names",
    "register_rows",
    "rules",
]

# Operations: also the wire's codes, high byte of a code word. The low 24 bits are the subject; operands follow in order
# in a column of their own.
OP_MRS: Final[int]  # subject: register. Yields a value
OP_MSR: Final[int]  # subject: register. 1 operand: value
OP_WRITE_BACK: Final[int]  # subject: register. 3 operands: slot, mask, bits
OP_ISB: Final[int]
OP_CHARGE: Final[int]  # subject: cause, below 256. 1 operand: cycles
OP_CLOCK: Final[int]  # yields a value
OP_TRUTH: Final[int]  # subject: scope << 16 | event. Yields a value
OP_COMPUTE: Final[int]  # subject: el << 20 | profile. 1 operand: cycles
OP_WFI: Final[int]
OP_HVC: Final[int]  # subject: immediate
OP_TIMER: Final[int]  # subject: timer. 1 operand: deadline
OP_IPI: Final[int]  # subject: target
OP_WINDOW: Final[int]
OP_NOTIFY: Final[int]  # subject: code. 1 operand: value
OP_DONE: Final[int]
OP_USER_MRS: Final[int]  # subject: register, which the software's program reads at EL0. Yields a value
OP_USER_MSR: Final[int]  # subject: register, which the software's program writes at EL0. 1 operand: value
OP_NOTE: Final[int]  # subject: code, operand: value; for whoever observes the machine

# What KVM tells an observer (`Machine.note`): the first operand is a vCPU's context.
NOTE_VCPU_LOAD: Final[int]  # vcpu_load begins
NOTE_VCPU_LOADED: Final[int]  # and has ended
NOTE_VCPU_PUT: Final[int]
NOTE_VCPU_IS_PUT: Final[int]
NOTE_GET_ONE_REG: Final[int]  # context << 16 | register, and the value
NOTE_SET_ONE_REG: Final[int]
NOTE_SET_NR_COUNTERS: Final[int]  # context, and how many it has from now on
NOTE_SET_FILTER: Final[int]  # context << 16 | first event, and how many << 1 | are they denied
NOTE_INJECT_UNDEF: Final[int]  # the access that has trapped last is UNDEFINED for the guest
NOTE_EVENT_OPEN: Final[int]  # number << 32 | attributes << 16 | event
NOTE_EVENT_GROUP: Final[int]  # number << 32 | the leader's
NOTE_EVENT_ENABLED: Final[int]  # number
NOTE_EVENT_DISABLED: Final[int]  # number
NOTE_EVENT_ON: Final[int]  # number << 8 | counter
NOTE_EVENT_OFF: Final[int]  # likewise
NOTE_EVENT_ERROR: Final[int]  # number
NOTE_EVENT_CLOSED: Final[int]  # number
NOTE_EVENT_READ: Final[int]  # number; the three below follow
NOTE_EVENT_TIME_ENABLED: Final[int]  # ns
NOTE_EVENT_TIME_RUNNING: Final[int]  # ns
NOTE_EVENT_COUNT: Final[int]  # occurrences
NOTE_MASKED: Final[int]  # a guest has its interrupts masked (PSTATE.I) from now on
NOTE_UNMASKED: Final[int]  # and lets them in for an instant: none is pending
NOTE_HOST_PMUSERENR: Final[int]  # kvm_set_pmuserenr: what the host's is, beside a guest's; PMUSERENR_EL0
NOTE_VCPU_BLOCKS: Final[int]  # nothing is pending for the vCPU, which sleeps
NOTE_VCPU_WAKES: Final[int]  # it is runnable again
NOTE_LIVELOCK: Final[int]  # interrupts take all: context of the vCPU that they interrupt, or of the host
NOTE_DEADLOCK: Final[int]  # the host's perf waits for a lock that its CPU holds: the host's context; the ContextLock
NOTE_ALL_IDLE: Final[int]  # every CPU idles without a timer although work is left

# Whose time it is.
CPUTIME_GUEST: Final[int]
CPUTIME_HOST_KERNEL: Final[int]
CPUTIME_HOST_USER: Final[int]
CPUTIME_IDLE: Final[int]
COMPUTE_EL_SHIFT: Final[int]  # a COMPUTE's argument: exception level above it, profile below

@final
class Stop:
    """Why the execution of a burst stopped, and where. What does not apply to the reason is 0, False or None."""

    TRAP: Final = 1  # the access at `index` trapped to EL2 and was not executed
    EXCEPTION: Final = 2  # the access at `index` took an exception to its own level (EL1; at EL2: UNDEFINED)
    OPERATION: Final = 3  # the operation at `index` is for KVM to perform; the core did nothing
    INTERRUPT: Final = 4  # before the operation at `index`, the PMU interrupt line is high or the deadline reached

    @property
    def reason(self) -> int:
        """One of the four above."""
    @property
    def index(self) -> int:
        """The operation's index in the burst."""
    @property
    def esr(self) -> int:
        """TRAP: ESR_EL2; EXCEPTION: ESR of the level that takes it."""
    @property
    def register(self) -> int:
        """TRAP, EXCEPTION: encoding of the register accessed."""
    @property
    def write(self) -> bool:
        """TRAP, EXCEPTION: the access is an MSR."""
    @property
    def value(self) -> int:
        """TRAP: what is being written."""
    @property
    def due(self) -> Coroutine[Any, Any, int | None] | None:
        """TRAP, OPERATION: what an `Executor` was given for it, to be awaited; of a trap it gives the value read."""
    @property
    def operation(self) -> int:
        """OPERATION: its code, one of OP_..."""
    @property
    def argument(self) -> int:
        """OPERATION: its subject."""
    @property
    def operand(self) -> int:
        """OPERATION: its 64-bit operand (deadline, cycles, notified value); 0 if it has none."""

@final
class Burst:
    """Operations in order, as packed arrays, and the values that they read."""

    def __new__(cls) -> Self: ...
    # Posting. Those that yield a value return its slot: an index into `values()`.
    def mrs(self, register: int) -> int: ...
    def user_mrs(self, register: int) -> int:
        """MRS at EL0: the program's that this software runs, as which the tally counts it."""
    def user_msr(self, register: int, value: int) -> None:
        """MSR at EL0, likewise."""
    def msr(self, register: int, value: int) -> None: ...
    def write_back(self, register: int, slot: int, mask: int, bits: int) -> None:
        """MSR of (value in `slot` & mask) | bits."""
    def isb(self) -> None: ...
    def charge(self, cause: int, cycles: int) -> None:
        """Software time at the current exception level, below 2**48 cycles, billed to `cause`."""
    def clock(self) -> int: ...
    def truth(self, event: int, scope: int) -> int: ...
    def compute(self, profile: int, el: int, cycles: int) -> None: ...
    def wfi(self) -> None: ...
    def hvc(self, immediate: int) -> None: ...
    def timer(self, timer: int, deadline: int) -> None:
        """Set a timer to an absolute time in cycles; 2**64-1 cancels it."""
    def ipi(self, target: int) -> None: ...
    def window(self) -> None: ...
    def notify(self, code: int, value: int) -> None: ...
    def note(self, code: int, value: int) -> None:
        """For whoever observes the machine: it takes no time, stops nothing, and is not in the log."""
    def note_each(self, code: int, values: Sequence[int]) -> None:
        """`note` of one value after the other."""
    def done(self) -> None: ...
    def extend(self, other: Burst) -> int:
        """Append a prepared burst; return the slot of its first value."""
    def enable_in_turn(
        self,
        call: Burst,
        off: Burst,
        on: Burst,
        outs: list[Burst],
        free: list[int],
        events: list[tuple[int, bool, list[Burst], int]],
        active: int,
        turns: list[int],
    ) -> list[int]:
        """What a driver posts that enables events one after the other, each of which takes all off and puts them back.

        `events` are those of a context that are or will be on the PMU, in its order, each with the value that its
        counter is written with, whether it has the cycle counter, by counter the sequence that starts it, and the
        counter that it is on; `active` has a bit for each that is there already, `turns` are the places of those to
        enable. `outs` are, by counter, the sequences that take an event off, `free` the event counters in the order in
        which they are given out. The counters that they end on, by place. Raises IndexError, and posts nothing, if
        `free` has too few, and for a counter or a place that there is not.
        """
    def disable_in_turn(self, call: Burst, off: Burst, on: Burst, outs: list[Burst | None], others: bool) -> list[int]:
        """What a driver posts that disables events one after the other.

        `outs` are the sequences that take an event off, None for an event that is not on the PMU; `on` stands behind
        each of them but, unless there are `others`, the last. The slots of the first value of each.
        """
    def place(self, register: int, value: int, start: Burst) -> None:
        """`msr(register, value)`, and `extend(start)`: an event goes onto a counter."""
    # Results.
    def values(self) -> list[int]: ...
    def take(self) -> list[int]:
        """`values`, and it is empty then."""
    def set_values(self, values: Sequence[int]) -> None:
        """All values at once: what a reply from the wire carries."""
    # The wire.
    def arrays(self) -> tuple[list[int], list[int]]:
        """(codes, operands): uint32 and uint64 columns as `proto/services/wire/attend.proto` has them."""
    @staticmethod
    def from_arrays(codes: Sequence[int], operands: Sequence[int]) -> Burst:
        """Raises ValueError naming the first operation that is malformed."""
    def __len__(self) -> int: ...

@final
class Machine:
    """All pCPUs, the contexts that run on them, what really happened, and the ordered log's digest."""

    def __new__(
        cls,
        cpus: Sequence[dict[str, int]],
        events: Sequence[int],
        *,
        mrs_cycles: int,
        msr_cycles: int,
        isb_cycles: int,
    ) -> Self:
        """`events`: every event number that is tallied. `cpus`: features per pCPU, by name:

        counters: N, 0 to 31 · pmuver: ID_AA64DFR0_EL1.PMUVer, 1 or 4 to 9 (p1, p4, p5, p7, p8, p9)
        fgt: 0, 1 (FEAT_FGT), 2 (and FEAT_FGT2) · hpmn0, icntr, th, mtpmu, ss: FEAT_HPMN0, _PMUv3_ICNTR, _PMUv3_TH,
        _MTPMU, _PMUv3_SS · el3, sel2, aarch32, vhe: 0 or 1
        pmi_delay: cycles from the rise of the PMU interrupt line to the interrupt at the CPU
        pmcr_id: PMCR_EL0.IMP and IDCODE in place · pmceid0, pmceid1, pmmir: the registers; a common event that
        pmceid0 or pmceid1 lacks never happens on that CPU, without them the events that are tallied are implemented

        and what the CPU does where the architecture leaves a choice (`choices_made` counts the uses):

        absent_counter: an index of N or above without FEAT_FGT: 0 UNDEFINED, 1 RAZ/WI, 2 trapped to EL2
        reserved_counter: an index of HPMN or above at EL1 and EL0 without FEAT_FGT: the same
        bad_hpmn: HPMN above N, or 0 without FEAT_HPMN0: 0 as if N, 1 as if 0
        chain_across_ranges: 1 if the last counter of the first range chains into the second
        freeze_on_cycle_counter: 1 if the cycle counter's flag freezes the first range (PMCR_EL0.FZO)

        Raises ValueError for an unknown name and an impossible value.
        """
    def add_profile(self, rates: Sequence[tuple[int, int]]) -> int:
        """(event, occurrences per cycle as Q32.32) pairs, below 65,536 per cycle; events that are not tallied are left
        out, CPU_CYCLES 0x11 is implied at 1.0. Returns the profile's id, from 0."""
    def add_context(self, guest: bool) -> int:
        """A context whose occurrences are tallied by exception level: a vCPU (EL1, EL0), or the host (EL2, EL0)."""
    # Running.
    def set_running(self, cpu: int, context: int, el: int, profile: int) -> None: ...
    def exit_guest(self, cpu: int, context: int, profile: int, cause: int, cycles: int) -> bool:
        """A guest exits, for an interrupt, to the host's kernel, which runs from here on, at EL2: `set_running` and
        `charge` in one call. Is there an interrupt to be served? The time is the guest's until `guest_timing_exit`."""
    def trap_guest(self, cpu: int, context: int, profile: int, cause: int, cycles: tuple[int, int]) -> bool:
        """Likewise, by a trap, which has no window for interrupts before its `guest_timing_exit`; the cycles before
        and after that. A tick that falls due before finds the host's kernel."""
    def guest_timing_exit(self, cpu: int, cause: int, cycles: int) -> None:
        """guest_timing_exit_irqoff: `set_cputime` to the host's kernel, and `charge`."""
    def guest_timing_enter(self, cpu: int, cause: int, cycles: int) -> None:
        """guest_timing_enter_irqoff: `set_cputime` to the guest, and `charge`."""
    def enter_guest(self, cpu: int, context: int, profile: int, cause: int, cycles: int, due: int) -> bool:
        """`guest_timing_enter`, and the guest is entered at EL1. Not at `due` or later: False."""
    def take_interrupt(self, cpu: int, cause: int, cycles: int, account: int) -> tuple[int, int, int] | None:
        """The PMU interrupt is taken: `charge`, then `set_account`. None, and nothing is done, if its line is low.

        The cycle at which the line rose, the time after the charge, and the account before.
        """
    def begin_call(self, cpu: int, account: int, code: int, columns: int) -> tuple[int, int]:
        """KVM calls the host's perf: `set_account`, `mark(cpu, code, 0, columns)`. The time, and the account before."""
    def end_call(self, cpu: int, account: int) -> int:
        """And is back: `set_account`, to the account before. The time."""
    def now(self, cpu: int) -> int: ...
    def set_deadline(self, cpu: int, deadline: int) -> None:
        """The time in cycles at which `execute` and `run` stop for a timer; 2**64-1: none."""
    def execute(self, cpu: int, burst: Burst, start: int, interrupts: int) -> int | Stop:
        """Execute operations from `start` on: the time after the last one, or a Stop where one needs KVM.

        It stops between two of them for no interrupt (0), for all (1), or for the PMU's but not for the deadline (2).
        """
    def read(self, cpu: int, register: int) -> int:
        """Execute one MRS of what runs. Raises ValueError if it takes an exception."""
    def write(self, cpu: int, register: int, value: int) -> None:
        """Execute one MSR of what runs. Raises ValueError if it takes an exception."""
    def run(self, cpu: int, cycles: int) -> int:
        """Compute up to `cycles`, less if the PMU interrupt rises or the deadline comes; return the cycles done."""
    def work(self, cpu: int, context: int, el: int, profile: int, cycles: int) -> tuple[int, int, bool]:
        """`set_running`, and `run`. The cycles done, the time, and whether there is something to interrupt for: the PMU
        interrupt, or the deadline."""
    def next_stop(self, cpu: int, cycles: int) -> int:
        """The time at which `run(cpu, cycles)` would stop, or earlier if a counter overflows before it without an
        interrupt: kvm orders several pCPUs by it."""
    def charge(self, cpu: int, cause: int, cycles: int) -> None: ...
    def idle(self, cpu: int, until: int) -> None:
        """Pass time up to `until`, or the arrival of an interrupt, in WFI: nothing happens, and nothing counts but,
        with `pmccntr_in_wfi`, PMCCNTR_EL0. It ends at once if an interrupt is there."""
    def warm_reset(self, cpu: int) -> None:
        """What the PMU is after the core has lost its power: its registers and counters as at the beginning."""
    def idle_stop(self, cpu: int, until: int) -> int:
        """The time at which `idle(cpu, until)` would end, or earlier if PMCCNTR_EL0 overflows without an interrupt."""
    def interrupt(self, cpu: int) -> bool:
        """Has the PMU interrupt reached the CPU, and is it not active?"""
    def acknowledge(self, cpu: int) -> None:
        """The PMU interrupt, if it has reached the CPU, is active from now on (ICC_IAR1_EL1, ICC_EOIR1_EL1)."""
    def deactivate(self, cpu: int) -> bool:
        """It is active no longer (ICC_DIR_EL1), and pending if its line is high. Was it active?"""
    def pending_interrupt(self, cpu: int) -> bool:
        """Is `interrupt` high or the deadline reached?"""
    def arrives(self, cpu: int) -> int:
        """When a PMU interrupt that is under way reaches the CPU; 2^64 - 1 if none is."""
    def raised(self, cpu: int) -> int:
        """The cycle at which the PMU interrupt line last rose."""
    def traps(self, context: int) -> dict[int, int]:
        """How often accesses of a guest have trapped to EL2, by register << 1 | is it a write."""
    def trap(self, context: int, register: int, write: bool) -> None:
        """An access of a guest that is not in a burst traps: it is counted with the others."""
    # Registers as the simulation itself sees them: no time, no trap, no log.
    def peek(self, cpu: int, register: int) -> int: ...
    def poke(self, cpu: int, register: int, value: int) -> None: ...
    # Truth.
    def truth(self, context: int, el: int, event: int) -> int: ...
    def cycles(self, cpu: int) -> dict[str, int]:
        """Cycles passed on the pCPU: {"guest", "host_kernel", "host_user", "idle"}."""
    def set_cputime(self, cpu: int, whose: int) -> None:
        """From now on the time is `whose`, one of CPUTIME_..., to the host's kernel (Linux kernel/sched/cputime.c)."""
    def interrupt_cputime(self, cpu: int) -> None:
        """From now on it is the host's kernel's, whose tick finds nevertheless whom this interrupts."""
    def set_tick(self, cpu: int, tick: int) -> None:
        """The host's next tick falls due at `tick`: whose time it is then is noted. 2**64-1: none does."""
    def account_tick(self, cpu: int, cycles: int, following: int) -> None:
        """The host takes its tick: `cycles` are charged to whom it has found. The `following` one falls due then."""
    def begin_handler(self, cpu: int) -> None:
        """An interrupt handler begins whose time the host's kernel accounts apart (CONFIG_IRQ_TIME_ACCOUNTING)."""
    def next_handler(self, cpu: int) -> None:
        """One ends and another begins: its time is nobody's, and is taken off what the next tick charges."""
    def end_handler(self, cpu: int) -> None:
        """The last one ends, likewise."""
    def cputime(self, cpu: int, by_ticks: bool) -> dict[str, int]:
        """Whose the pCPU's cycles were to the host's kernel, exactly or as its ticks have found it:
        {"guest", "host_kernel", "host_user", "idle", "irq"}. Idle time is exact either way."""
    def set_account(self, cpu: int, account: int) -> int:
        """From now on the host's cycles are charged to `account`, 1 to 15; the one before. Guests' are account 0.

        Raises ValueError for another account."""
    def charged(self, cpu: int, account: int) -> list[int]:
        """Cycles charged to an account so far, by cause."""
    def accesses(self, cpu: int) -> int:
        """Register accesses of software so far, executed or trapped."""
    def choices_made(self, cpu: int) -> dict[str, int]:
        """How often the CPU did what the architecture leaves open, by the name of the feature that chooses it."""
    # The log.
    def mark(self, cpu: int, code: int, a: int, b: int) -> int:
        """An entry or an event of the simulation takes its place in the ordered log. The time of it, which is now."""
    def digest(self) -> str: ...
    def observe(self, on: bool) -> None: ...
    def observed(self) -> list[tuple[int, int, int, int, int, int]]:
        """(cpu, cycle, el, code, register or mark, value) since the last call; empty unless observing."""
    # Who observes it.
    def note(self, cpu: int, code: int, a: int, b: int) -> None:
        """Tell whoever observes the machine (NOTE_...): it takes no time and is not in the log."""
    def judge(self, vcpus: Sequence[tuple[int, int, int, Sequence[int]]]) -> None:
        """Have what happens from now on judged. Of each vCPU: its context, PMCR_EL0.N and PMUVer as its VMM has set
        them (0: it has no PMU), and the events that the VM's filter denies."""
    def violations(self) -> int:
        """How many broken invariants have been found."""
    def different_violations(self) -> int:
        """How many of them `judgement` tells, each standing for all of its kind."""
    def premises(self) -> list[int]:
        """How often the premise of each invariant was met, I1's first; empty if nothing is judged."""
    def windows(self) -> dict[str, int]:
        """How often each window was used, by name; likewise. Raises RuntimeError if the judge has failed."""
    def judgement(self) -> bytes | None:
        """What has been found, as JSON (`services.judge`); None if nothing is judged. Raises RuntimeError if the judge
        has failed: the run goes on, and nothing is found in it."""
    # Canonical key.
    def key(
        self,
        extra: bytes,
        guests: Sequence[tuple[int, Sequence[tuple[int, int, int]]]],
        events: Sequence[tuple[int, int, int | None, int, tuple[int, int]]],
        chosen: Sequence[int],
    ) -> int:
        """64 bits by which states are told apart whose futures differ: of the machine, its judge and `extra`.

        `guests`: by a vCPU's context, each counter with its value in memory, and the id of the host's event whose count
        comes on top of it, or 2^64 - 1. `events`: of the host's, by id: count, what the counter read when it was last
        read if it is on one, the bits that it counts, (time_enabled, time_running). `chosen`: the values that counters
        are given. Raises ValueError for a field of the state of which nobody has said whether it is in the key.
        """
    def key_parts(
        self,
        guests: Sequence[tuple[int, Sequence[tuple[int, int, int]]]],
        events: Sequence[tuple[int, int, int | None, int, tuple[int, int]]],
        chosen: Sequence[int],
    ) -> list[tuple[str, int]]:
        """What is in `key` but `extra`, each with its field's name: to tell in what two states differ."""
    # Snapshot.
    def state(self) -> bytes: ...
    def restore(self, state: bytes) -> None:
        """Become what `state()` wrote down, in place. Raises ValueError, and changes nothing, for other bytes."""

def register_encoding(name: str) -> int:
    """(op0, op1, CRn, CRm, op2) packed as KVM's ONE_REG ids pack them (16 bits). Raises KeyError."""

def judge_kinds() -> list[str]:
    """In what what the judge finds shows, by name."""

def judge_windows() -> list[tuple[str, str, str, str, str]]:
    """The judge's tolerances: name, what opens it, what closes it, what is allowed meanwhile, its source."""

def register_name(encoding: int) -> str: ...
def register_names() -> list[str]: ...

# The tables that decide accesses, for `pmulab registers` and `pmulab explain`.

@final
class Executor:
    """Executes the bursts of a context's software on a CPU.

    `trapped(register, is it written, what is written, is it the program's, at EL0)` emulates an access,
    `operation(index, code, argument, operand)` performs what the core does not: at once (the value read; None), or when
    what is returned has been awaited. Either may have any CPU of the machine execute other bursts. `wait` makes of a
    stop that has to be awaited what gives the time at the end of the burst.
    """

    def __new__(
        cls,
        machine: Machine,
        context: int,
        cpu: int,
        *,
        interruptible: bool,
        trapped: Callable[[int, bool, int, bool], int | Coroutine[Any, Any, int | None]],
        operation: Callable[[int, int, int, int], Coroutine[Any, Any, None] | None],
        wait: Callable[[Executor, Burst, Stop], Coroutine[Any, Any, int]],
    ) -> Self:
        """With `interruptible` it stops where an interrupt is pending, between two operations.

        Raises ValueError for a context that there is not.
        """
    @property
    def bursts(self) -> int:
        """How many there have been of its context's software: round trips, were it in a process of its own."""
    @property
    def cpu(self) -> int: ...
    def set_task_cpu(self, cpu: int) -> None:
        """From now on it executes on another CPU."""
    def execute(self, burst: Burst) -> int | Coroutine[Any, Any, int]:
        """Execute it to its end: the time then, or what gives it when it is awaited."""
    def finish(self, burst: Burst, answer: bytes) -> int | Coroutine[Any, Any, int]:
        """`execute` the last burst of an entry, after which DONE is posted. If it comes to its end at once, it is empty
        then. The `answer` is for executors on a stream."""
    def resume(self, burst: Burst, stop: Stop, value: int | None) -> int | Stop:
        """Go on from `stop`: behind an access that trapped and has been emulated, with the `value` that it has read, if
        it reads, with the access itself if that is None; behind an operation that has been performed; with the one
        that was interrupted.

        The time at the end, or the next stop that has to be awaited."""

@final
class Row:
    """One kind of register: who may access it and which controls trap it."""

    @property
    def name(self) -> str: ...
    @property
    def encoding(self) -> int: ...
    @property
    def feature(self) -> str: ...
    @property
    def lowest_el(self) -> int:
        """Below it the register is UNDEFINED, except where PMUSERENR_EL0 opens it to EL0."""
    @property
    def read(self) -> bool: ...
    @property
    def write(self) -> bool: ...
    @property
    def user_read(self) -> str:
        """The bits of PMUSERENR_EL0 any of which allows reads at EL0, "never" or "always"."""
    @property
    def user_write(self) -> str: ...
    @property
    def tpm(self) -> bool:
        """MDCR_EL2.TPM traps it."""
    @property
    def tpmcr(self) -> bool:
        """MDCR_EL2.TPMCR traps it."""
    @property
    def trap_read(self) -> str:
        """The fine-grained trap of reads, as register.field; "" if there is none."""
    @property
    def trap_write(self) -> str: ...
    @property
    def index(self) -> str: ...
    @property
    def view(self) -> str:
        """What MDCR_EL2.HPMN changes about an executed access."""
    @property
    def unverified(self) -> bool:
        """The register's page was not at hand, or is followed in part."""

@final
class Rule:
    """One access rule; they are applied in order."""

    @property
    def name(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def source(self) -> str:
        """Register page and field in the Arm ARM."""
    @property
    def unverified(self) -> bool: ...
    @property
    def choice(self) -> str | None:
        """The feature that says what happens where the architecture leaves it open."""

@final
class Field:
    """One field of a register."""

    @property
    def name(self) -> str: ...
    @property
    def mask(self) -> int: ...
    @property
    def text(self) -> str: ...

@final
class Explanation:
    """What an access would do."""

    @property
    def outcome(self) -> str:
        """One of "executed", "RAZ/WI", "UNDEFINED" and "trapped"."""
    @property
    def target(self) -> int:
        """The exception level that takes the exception; the own one if there is none."""
    @property
    def esr(self) -> int: ...
    @property
    def rule(self) -> Rule | None:
        """The rule that decided; None if none applies, so that the access is executed."""
    @property
    def visible(self) -> int | None:
        """Of a register with a bit per counter, the bits that an executed access sees."""
    @property
    def accessible(self) -> int:
        """Event counters accessible at the exception level."""
    @property
    def value(self) -> int | None:
        """What an executed read yields."""

def register_rows() -> list[Row]: ...
def rules() -> list[Rule]: ...
def register_fields(name: str) -> list[Field]:
    """Raises KeyError for a register that the model does not have."""

def explain(register: str, el: int, *, write: bool, features: dict[str, int], settings: dict[str, int]) -> Explanation:
    """`settings`: values that registers are given first, at EL2.

    Raises KeyError for an unknown register, ValueError for an impossible feature or level.
    """
