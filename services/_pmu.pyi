"""The Rust core: the PMU as the architecture describes it, CPUs, time and truth."""

from collections.abc import Sequence
from typing import Final, final

# Reasons why `Machine.execute` stops (first element of its result).
STOP_END: Final[int]        # (STOP_END, len, 0, 0): all operations executed
STOP_TRAP: Final[int]       # (.., index, esr, value): operation `index` (MRS/MSR) trapped to EL2, not executed; ESR_EL2; value being written (0 for MRS)
STOP_EXCEPTION: Final[int]  # (.., index, esr, 0): took an exception to its own level (EL1; at EL2: UNDEF at EL2)
STOP_OPERATION: Final[int]  # (.., index, operation, argument): TIMER, WFI, ... is for KVM to perform; the core did nothing
STOP_INTERRUPT: Final[int]  # (.., index, 0, 0): before operation `index`: PMU interrupt line high or deadline reached

# Operations: also the wire's codes, high byte of a code word. The low 24 bits are the subject; operands follow in order
# in a column of their own. STOP_OPERATION's `argument` is the subject, `Burst.operand_at` the (first) operand.
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

@final
class Burst:
    """Operations in order, as packed arrays, and the values that they read."""

    def __init__(self) -> None: ...
    # Posting. Those that yield a value return its slot: an index into `values()`.
    def mrs(self, register: int) -> int: ...
    def msr(self, register: int, value: int) -> None: ...
    def write_back(self, register: int, slot: int, mask: int, bits: int) -> None:
        """MSR of (value in `slot` & mask) | bits."""
    def isb(self) -> None: ...
    def charge(self, cause: int, cycles: int) -> None:
        """Software time at the current exception level, billed to `cause`."""
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
    def done(self) -> None: ...
    def extend(self, other: Burst) -> int:
        """Append a prepared burst; return the slot of its first value."""
    # Results.
    def values(self) -> list[int]: ...
    def set_value(self, index: int, value: int) -> None:
        """Complete the MRS that is operation `index` (a trapped access that was emulated)."""
    def register_at(self, index: int) -> int: ...
    def operand_at(self, index: int) -> int:
        """The full 64-bit operand of operation `index` (deadline, cycles, notified value, ...)."""
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

    def __init__(
        self,
        cpus: Sequence[dict[str, int]],
        events: Sequence[int],
        *,
        mrs_cycles: int,
        msr_cycles: int,
        isb_cycles: int,
    ) -> None:
        """`cpus`: features per pCPU {"counters": N, "pmuver": ID_AA64DFR0_EL1.PMUVer, "fgt": 0|1|2, "hpmn0": 0|1,
        "icntr": 0|1, "el3": 0|1, "aarch32": 0|1, "vhe": 0|1, ...}. `events`: every event number that is tallied."""
    def add_profile(self, rates: Sequence[tuple[int, int]]) -> int:
        """(event, occurrences per cycle as Q32.32) pairs; CPU_CYCLES 0x11 is implied at 1.0. Returns the profile's id, from 0."""
    def add_context(self, guest: bool) -> int:
        """A party whose occurrences are tallied by exception level: a vCPU (EL1, EL0), or the host (EL2, EL0)."""
    # Running.
    def set_running(self, cpu: int, context: int, el: int, profile: int) -> None: ...
    def now(self, cpu: int) -> int: ...
    def set_deadline(self, cpu: int, deadline: int) -> None:
        """The time in cycles at which `execute` and `run` stop for a timer; 2**64-1: none."""
    def execute(self, cpu: int, burst: Burst, start: int, interruptible: bool) -> tuple[int, int, int, int]: ...
    def run(self, cpu: int, cycles: int) -> int:
        """Compute up to `cycles`, less if the PMU interrupt rises or the deadline comes; return the cycles done."""
    def next_stop(self, cpu: int, cycles: int) -> int:
        """The time at which `run(cpu, cycles)` would stop, or earlier if a counter overflows before it without an
        interrupt: kvm orders several pCPUs by it."""
    def charge(self, cpu: int, cause: int, cycles: int) -> None: ...
    def idle(self, cpu: int, until: int) -> None:
        """Pass time up to `until` in WFI: nothing happens, nothing counts."""
    def interrupt(self, cpu: int) -> bool:
        """Level of the PMU interrupt line."""
    # Registers as the simulation itself sees them: no time, no trap, no log.
    def peek(self, cpu: int, register: int) -> int: ...
    def poke(self, cpu: int, register: int, value: int) -> None: ...
    # Truth.
    def truth(self, context: int, el: int, event: int) -> int: ...
    def cpu_truth(self, cpu: int, scope: int, event: int) -> int: ...
    def cycles(self, cpu: int) -> dict[str, int]:
        """Cycles passed on the pCPU: {"guest", "host_kernel", "host_user", "idle"}."""
    def charged(self, cpu: int) -> list[int]:
        """Cycles charged so far by cause."""
    def accesses(self, cpu: int) -> int: ...
    # The log.
    def mark(self, cpu: int, code: int, a: int, b: int) -> None:
        """An entry or an event of the simulation takes its place in the ordered log."""
    def digest(self) -> str: ...
    def observe(self, on: bool) -> None: ...
    def observed(self) -> list[tuple[int, int, int, int, int, int]]:
        """(cpu, cycle, el, code, register or mark, value) since the last call; empty unless observing."""
    # Snapshot.
    def state(self) -> bytes: ...
    @staticmethod
    def from_state(state: bytes) -> Machine:
        """Raises ValueError for what `state()` did not make."""

def register_encoding(name: str) -> int:
    """(op0, op1, CRn, CRm, op2) packed as KVM's ONE_REG ids pack them (16 bits). Raises KeyError."""

def register_name(encoding: int) -> str: ...
def register_names() -> list[str]: ...
