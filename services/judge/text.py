"""What the judge has found, in a kernel developer's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from services import _pmu
from services._pmu import register_name
from services.cpu import ContextLock, EntryKind
from services.judge.types import HOST, KVM, NOBODY, Counted, Handover, Parties, Seen, Violation
from services.registers import MASK64

_GUEST_ENTRY = 16  # marks of guests' entries are their kinds and this; those of the host's their kinds
_SIGN = 1 << 63

# By kind, what is broken: the victim and the register by their names.
KINDS: Final = {
    "guest_read": "{victim} reads {register} and finds what its own writes and its own events do not allow",
    "guest_entry": "{victim} is entered with a {register} that its own writes and its own events do not allow",
    "undefined": "{victim} accesses {register}, which is {is_undefined}",
    "late_interrupt": "{victim} goes on although its PMU interrupt is due",
    "lost_interrupt": "{victim} has a PMU interrupt due that does not come",
    "spurious_interrupt": "{victim} takes a PMU interrupt although it has no overflow flag set that interrupts",
    "misattributed_interrupt": "{victim} takes a PMU interrupt that is another's",
    "host_read": "{victim} reads {register} of an event of its own and finds what its filters do not allow",
    "host_state": "{victim} has set {register} up otherwise than it is",
    "host_placement": "{victim} has an event on {register}, which {other} can reach",
    "unpredictable_hpmn": "{victim} has its counters CONSTRAINED UNPREDICTABLE: KVM sets {register}.HPMN to {hpmn}",
    "one_reg": "{victim} has another {register} than KVM_GET_ONE_REG gives",
    "restored": "{victim} is given a {register} that is neither what it wrote last nor what was read out of it",
    "unsynchronised": "{victim} is swapped by {register}, which a write without an ISB behind it selects",
    "driver_order": "{victim} writes {register} without an ISB behind what its driver has written of a counter",
    "without_effect": "{victim} has synchronised its context, and counts otherwise than it has written: {register}",
    "event_count": "{victim} has a perf event with a count that its filters do not allow",
    "event_times": "{victim} reads of a perf event a time_running beside a time_enabled that cannot be",
    "event_placement": "{victim} has two perf events on a counter, or one on two",
    "event_group": "{victim} has some events of a group on counters, and others not",
    "event_pinned": "{victim} has a pinned event that is enabled, and on no counter",
    "event_flexible": "{victim} has an event that waits, though it and all others were on before the vCPU was loaded",
    "not_loaded": "{victim} is on a pCPU on which no vCPU of its own is loaded",
    "loaded_twice": "{victim} is loaded where another one is, or while it is elsewhere",
    "half_swapped": "{victim} is entered amid vcpu_load or vcpu_put of {other}, and finds {register} changed",
    "livelock": "{victim} gets nowhere: interrupt follows interrupt",
    "deadlock": "{victim} gets nowhere: {deadlock}",
    "never_woken": "{victim} waits for its PMU interrupt, which is due, and nothing is left that could wake it",
}

# Of MDCR_EL2 the host's driver writes HPME alone: what KVM's writes of the rest change is what the driver has set up.
_BY_MDCR: Final = "{victim}'s counters do not go on as it has set them up, behind KVM's write of {register}"
# A counter that KVM accesses is a vCPU's.
_FOR_NOBODY: Final = "{victim} has the CPU, no vCPU is loaded on it, and KVM accesses {register}"
# By kind, what the other party has to do with it, where it is more than that what was found is its own.
_OTHERS: Final = {
    **dict.fromkeys(("host_read", "host_state", "event_count"), "by {}"),
    "event_pinned": "{} has been given counters",
    "host_placement": "",  # the sentence has it
    "half_swapped": "",
}

# Kinds whose two numbers are something else than a register's value.
_TIMES: Final = frozenset({"late_interrupt", "lost_interrupt", "never_woken"})
_COUNTS: Final = frozenset({"event_count"})
_MASKS: Final = frozenset({"host_placement"})  # of counters
_NO_VALUES: Final = frozenset(
    {"undefined", "spurious_interrupt", "misattributed_interrupt", "unsynchronised", "event_group", "event_pinned"}
    | {"event_flexible", "not_loaded", "loaded_twice", "deadlock", "unpredictable_hpmn"}
)

# What KVM tells of itself, of a vCPU.
_NOTES: Final = {
    _pmu.NOTE_VCPU_LOAD: "vcpu_load({})",
    _pmu.NOTE_VCPU_LOADED: "vcpu_load({}) ends",
    _pmu.NOTE_VCPU_PUT: "vcpu_put({})",
    _pmu.NOTE_VCPU_IS_PUT: "vcpu_put({}) ends",
    _pmu.NOTE_INJECT_UNDEF: "kvm_inject_undefined({})",
    _pmu.NOTE_SET_NR_COUNTERS: "KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS of {}",
    _pmu.NOTE_VCPU_BLOCKS: "kvm_vcpu_block({})",
    _pmu.NOTE_VCPU_WAKES: "{} is woken",
}
# What concerns nobody by a number: of a machine that hangs, and of a guest's interrupts.
_PLAIN: Final = {
    _pmu.NOTE_LIVELOCK: "interrupts take all",
    _pmu.NOTE_DEADLOCK: "the CPU spins on a lock that it holds",
    _pmu.NOTE_ALL_IDLE: "every CPU idles, without a timer",
    _pmu.NOTE_MASKED: "masks interrupts (PSTATE.I = 1)",
    _pmu.NOTE_UNMASKED: "lets interrupts in for an instant",
    _pmu.NOTE_HOST_PMUSERENR: "kvm_set_pmuserenr",
}
# What a kernel's perf tells of its events, by its number for them.
_EVENTS: Final[dict[int, Callable[[int], str]]] = {
    _pmu.NOTE_EVENT_OPEN: lambda a: f"event {a >> 32}: opened, event number {a & 0xFFFF:#x}",
    _pmu.NOTE_EVENT_GROUP: lambda a: f"event {a >> 32}: in the group of event {a & 0xFFFF_FFFF}",
    _pmu.NOTE_EVENT_ENABLED: lambda a: f"event {a}: enabled",
    _pmu.NOTE_EVENT_DISABLED: lambda a: f"event {a}: disabled",
    _pmu.NOTE_EVENT_ON: lambda a: f"event {a >> 8}: on counter {a & 0xFF}",
    _pmu.NOTE_EVENT_OFF: lambda a: f"event {a >> 8}: off counter {a & 0xFF}",
    _pmu.NOTE_EVENT_ERROR: lambda a: f"event {a}: in ERROR",
    _pmu.NOTE_EVENT_CLOSED: lambda a: f"event {a}: closed",
    _pmu.NOTE_EVENT_READ: lambda a: f"event {a}: read",
    _pmu.NOTE_EVENT_TIME_ENABLED: lambda a: f"  time_enabled {a:,} ns",
    _pmu.NOTE_EVENT_TIME_RUNNING: lambda a: f"  time_running {a:,} ns",
    _pmu.NOTE_EVENT_COUNT: lambda a: f"  count {a:,}",
}
# By `Seen.what`, what is between the vCPU and the value.
_ONE_REG: Final = {"KVM_GET_ONE_REG": " =", "KVM_SET_ONE_REG": ","}

_ENTRIES: Final = frozenset(EntryKind)
_LOCKS: Final = frozenset(ContextLock)

# By `Seen.what`, of its two numbers.
_WORDS: Final[dict[str, Callable[[int, int], str]]] = {
    "MRS": lambda register, value: f"MRS {register_name(register)} = {value:#x}",
    "MSR": lambda register, value: f"MSR {register_name(register)}, {value:#x}",
    "MRS traps": lambda register, _: f"MRS {register_name(register)} traps",
    "MSR traps": lambda register, value: f"MSR {register_name(register)}, {value:#x} traps",
    "MRS taken": lambda register, _: f"MRS {register_name(register)} takes an exception",
    "MSR taken": lambda register, value: f"MSR {register_name(register)}, {value:#x} takes an exception",
    "emulated": lambda _, value: f"emulated: {value:#x}",
    "ISB": lambda *_: "ISB",
    "runs": lambda _, el: f"runs at EL{el}",
    "entry": lambda mark, argument: _entry(mark, argument),
    "overflow": lambda counter, _: f"counter {counter} overflows",
}


def broken(violation: Violation, parties: Parties) -> str:
    """What is broken, in one sentence."""
    words = KINDS.get(violation.kind, f"{violation.kind}: {{register}} of {{victim}}")
    if _of_mdcr(violation):
        words = _BY_MDCR
    elif violation.kind == "not_loaded" and violation.victim == HOST:
        words = _FOR_NOBODY
    sentence = words.format(
        victim=_called(violation.victim, parties),
        other=_called(violation.other, parties),
        register=register(violation) or "a register",
        deadlock=_deadlock(violation.actual),
        hpmn=_hpmn(violation),
        is_undefined="UNDEFINED, and must not be" if violation.actual else "executed, and must be UNDEFINED",
    )
    why = [_counted(counted, parties) for counted in violation.counted]
    counted = {counted.party for counted in violation.counted}
    if violation.other not in {NOBODY, KVM, violation.victim} | counted:
        whose = _OTHERS.get(violation.kind, "it is {}'s").format(_called(violation.other, parties))
        why[:0] = [whose] if whose else []
    return f"{sentence}: {'; '.join(why)}" if why else sentence


def _of_mdcr(violation: Violation) -> bool:
    """Its two numbers are not the register's: they are the host's counters that count, or overflow at 64 bits."""
    return violation.kind == "host_state" and register(violation) == "MDCR_EL2"


def _counted(counted: Counted, parties: Parties) -> str:
    party, when = _called(counted.party, parties), f" after {handover(counted.after, parties)}" if counted.after else ""
    return f"{party} was counted in it for {counted.cycles:,} cycles{when}"


def handover(of: Handover, parties: Parties) -> str:
    """As KVM calls it, and of which vCPU."""
    return f"{of.what}({parties.name(of.party)})"


def _hpmn(violation: Violation) -> str:
    """HPMN, and what the CPU has not: the expected number is its N."""
    n, hpmn = violation.expected, violation.actual
    return f"{hpmn}, and the CPU has {n} event counters" if hpmn > n else f"{hpmn}, and the CPU has no FEAT_HPMN0"


def _deadlock(place: int) -> str:
    """What waits for what, by the place at which it does."""
    return ContextLock(place).deadlock if place in _LOCKS else f"it waits for a lock, at {place:#x}, that it holds"


def register(violation: Violation) -> str | None:
    """The register by its name, None if it is about none."""
    return None if violation.register is None else register_name(violation.register)


def compared(violation: Violation) -> str:
    """What was expected against what was found; empty if the sentence says it all."""
    expected, actual = violation.expected, violation.actual
    if violation.kind in _NO_VALUES:
        return ""
    if violation.kind == "event_times":
        return f"time_running is to be {expected:,} ns, and is {actual:,} ns"
    if violation.kind == "event_placement":
        return f"event {expected} and event {actual}"
    if violation.kind == "livelock":
        return f"{actual:,} interrupts in a row, of which {expected:,} are allowed"
    if violation.kind == "driver_order":
        return f"not synchronised: {_counters(actual)}"
    if violation.kind in _TIMES:
        return f"expected within {expected:,} cycles, actual {actual:,}"
    if violation.kind in _MASKS or _of_mdcr(violation):
        return f"expected {_counters(expected)}, actual {_counters(actual)}"
    over = difference(expected, actual) if violation.counter is not None or violation.kind in _COUNTS else 0
    by = f": {abs(over):,} too {'many' if over > 0 else 'few'}" if over else ""
    return f"expected {expected:#x}, actual {actual:#x}{by}"


def _counters(mask: int) -> str:
    """Which, by their numbers."""
    numbers = [str(n) for n in range(mask.bit_length()) if mask >> n & 1]
    return f"counter{'s' * (len(numbers) > 1)} {', '.join(numbers)}" if numbers else "no counter"


def difference(expected: int, actual: int) -> int:
    """By how much a count is too large, negative if it is too small: of two u64s, the nearer way round."""
    over = actual - expected & MASK64
    return over - (1 << 64) if over & _SIGN else over


def did(seen: Seen, parties: Parties) -> str:
    """What was done, or said."""
    if seen.what == "note":
        return _note(seen.a, seen.b, parties)
    if seen.what in _ONE_REG:
        of = f"{register_name(seen.a & 0xFFFF)} of {_vcpu(seen.a, parties)}"
        return f"{seen.what} {of}{_ONE_REG[seen.what]} {seen.b:#x}"
    words = _WORDS.get(seen.what)
    return _numbered(seen.what, seen.a, seen.b) if words is None else words(seen.a, seen.b)


def _vcpu(argument: int, parties: Parties) -> str:
    """Where a register, or an event, is below it."""
    return parties.name(f"vm:{argument >> 16}")


def _note(code: int, argument: int, parties: Parties) -> str:
    if code in _PLAIN:
        return _PLAIN[code]
    if code in _NOTES:
        return _NOTES[code].format(parties.name(f"vm:{argument}"))
    if code in _EVENTS:
        return _EVENTS[code](argument)
    if code == _pmu.NOTE_SET_FILTER:
        return f"KVM_ARM_VCPU_PMU_V3_FILTER of {_vcpu(argument, parties)}, from event {argument & 0xFFFF:#x}"
    return _numbered("note", code, argument)


def _entry(mark: int, argument: int) -> str:
    kind = mark - _GUEST_ENTRY if mark >= _GUEST_ENTRY else mark
    if kind in _ENTRIES:
        return _numbered(f"entry {EntryKind(kind).name}", argument)
    return _numbered("mark", mark, argument)


def _numbered(what: str, *numbers: int) -> str:
    return " ".join([what, *(f"{number:#x}" for number in numbers if number)])


def _called(party: str, parties: Parties) -> str:
    return "the host" if party == HOST else parties.name(party)
