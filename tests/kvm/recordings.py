"""What v8's own code did on an emulated CPU: the recordings, and what of a situation each of them says.

`posted-v8-traffic.json.xz`: a Linux 7.2.13 with the 21 patches of "ARM64 PMU Partitioning" v8 under QEMU 10.0.13 (VHE);
one instruction is one cycle and one ns. Of a bare guest program `accesses` are [phase, function, "r" or "w", register,
value], "guest-trapped" those of the guest's that trap. Of a Linux guest there is `guest_sequence`, its own accesses,
trapped (`T`) or not, and counts of the host's. Whatever is there in a situation is found in its recording: the CPU, the
kind of VM, what its registers had before, the host's events, when an overflow came.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import orjson

from services import registers as r
from services._pmu import register_encoding, register_name
from services.cpu import Cpu
from services.experiment import CpuSpec, EventSpec
from services.kvm.guest_pmu import UNKNOWN

Recording = dict[str, Any]

RECORDINGS: list[Recording] = orjson.loads(
    lzma.decompress(Path(__file__).with_name("posted-v8-traffic.json.xz").read_bytes())
)
COUNTERS = {**{r.PMEVCNTR(n): n for n in range(r.EVENT_COUNTERS)}, r.PMCCNTR_EL0: r.CYCLE_COUNTER}
TYPES = {**{r.PMEVTYPER(n): n for n in range(r.EVENT_COUNTERS)}, r.PMCCFILTR_EL0: r.CYCLE_COUNTER}
PMUVER = {"PMUv3": 1, "PMUv3p1": 4, "PMUv3p4": 5, "PMUv3p5": 6, "PMUv3p7": 7, "PMUv3p8": 8, "PMUv3p9": 9}
QEMU_MAX = "FGT, HPMN0, PMUv3p5, no FGT2"
GET_ONE_REG, SLEEP = BEHIND = ("vcpu-ioctl", "host-sched")  # what the VMM does behind a put
ELSEWHERE = ("guest-mark", "host-other")


class Vm(Enum):
    """A kind of VM on a host with v8."""

    PARTITIONED = "partitioned"
    EMULATED = "emulated"
    WITHOUT_PMU = "without a PMU"


def named(recording: Recording) -> str:
    return f"{recording['name']} {recording['run']}"


def encoding(name: str) -> int:
    """Of a register by the name that the recordings have."""
    if not name.endswith("_EL2"):
        name += "_EL1" if name.startswith(("PMINTEN", "PMMIR")) else "_EL0"
    return register_encoding(name)


def _hex(value: str | None) -> int | None:
    return None if value is None else int(value, 16)


@dataclass(frozen=True)
class Seen:
    """One access."""

    guest: bool
    trapped: bool
    write: bool
    register: int
    value: int | None  # none of a trapped read

    async def perform(self, cpu: Cpu) -> int | None:
        """Make it; the value read, None of a write. Raises TookException."""
        if self.write:
            assert self.value is not None
            cpu.burst.msr(self.register, self.value)
            await cpu.wait()
            return None
        return await cpu.mrs(self.register)

    def __str__(self) -> str:
        who = f"{'guest ' if self.guest else ''}{'trapped ' if self.trapped else ''}{'w' if self.write else 'r'}"
        return f"{who} {register_name(self.register)}{'' if self.value is None else f' {self.value:#x}'}"


@dataclass
class Do:
    """What the guest does: an access, or work up to an interrupt, or a call that KVM answers itself.

    `overflows`: counters, one bit each, that overflow during it, by an interrupt that is taken then.
    """

    access: Seen | None = None
    works: bool = False
    overflows: int = 0


@dataclass
class Residency:
    """What the guest does between a load and a put, and what is to be seen from the load's begin to the put's end."""

    acts: list[Do] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    behind: list[tuple[str, list[Seen]]] = field(default_factory=list)  # what the VMM does then, and what is seen of it
    reloads: bool = False  # KVM_REQ_RELOAD_PMU is served before the guest does anything
    flags: int = 0  # overflow flags that the put finds on the CPU


def residencies(accesses: Sequence[Sequence[Any]]) -> list[Residency]:
    """A recording, cut before each load."""
    found: list[Residency] = []
    rows = _awake([row for row in accesses if row[0] not in ELSEWHERE])
    trapped = False  # a trapped access is on its way to its handler
    for at, (phase, function, way, name, value) in enumerate(rows):
        before = rows[at - 1][0] if at else ""
        if phase.startswith("load") and phase != before:
            found.append(Residency())
        here = found[-1]
        by_guest = phase.startswith("guest")
        one = Seen(by_guest, phase == "guest-trapped", way == "w", encoding(name), _hex(value))
        if phase in BEHIND:
            if phase != before:
                here.behind.append((phase, []))
            here.behind[-1][1].append(one)
        else:
            here.seen.append(one)
        if by_guest:
            here.acts.append(Do(one))
            trapped = one.trapped
        elif phase == "reload" and not here.acts:
            here.reloads |= function.startswith("armv8pmu")
        elif phase == "sync" and (way, name) == ("r", "PMINTENSET") and before != "guest-trapped":
            trapped = False
            if next((row[0] for row in rows[at:] if row[0] != "sync"), "") == "flush":
                here.acts.append(Do())
        elif phase == "irq" and (way, name) == ("r", "PMOVSCLR") and one.value:
            if not trapped:
                here.acts.append(Do(works=True))
            here.acts[-1].overflows |= one.value
        elif phase.startswith("put") and (way, name) == ("r", "PMOVSSET"):
            here.flags = one.value or 0
        elif phase not in ("sync", "irq"):
            trapped = False
    return found


def _awake(rows: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """As if no handler of a trapped access had slept, which the first event that there is has it do, as that switches
    static keys on (account_event): what it does behind the put and the load of that stands before them."""
    found: list[Sequence[Any]] = []
    put = 0  # where the last one begins
    for at, row in enumerate(rows):
        if row[0].startswith("put") and not rows[at - 1][0].startswith("put"):
            put = len(found)
        if row[0] == "trap" and found[-1][0].startswith("load"):
            found.insert(put, row)
            put += 1
        else:
            found.append(row)
    return found


def sequence(recording: Recording) -> list[Seen]:
    """A Linux guest's own accesses. The value of one that does not trap is known of a read, too."""
    return [_of_sequence(text) for text in recording["guest_sequence"]]


def _of_sequence(text: str) -> Seen:
    name, direction, *value = text[1:].split()
    return Seen(True, text[0] == "T", direction == "w", encoding(name), _hex(value[0]) if value else None)


@dataclass(frozen=True)
class Situation:
    """What there was."""

    vm: Vm
    cpu: CpuSpec
    counters: int  # event counters of the VM
    denied: list[int]  # events, by the VM's filter
    events: tuple[EventSpec, ...]  # of the host's, CPU-wide


def situation(recording: Recording) -> Situation:
    cpu = _cpu(recording["config"])
    before, guests = one_reg(recording, "before"), cpu.max_guest_counters
    assert guests is not None
    n = (before[r.PMCR_EL0] & r.PMCR_N) >> r.PMCR_N_SHIFT if r.PMCR_EL0 in before else guests
    return Situation(_vm(recording), cpu, n, _denied(recording["what"]), _host_events(_observed(recording)))


def _observed(recording: Recording) -> list[str]:
    return list(recording.get("observed", ()))


def _vm(recording: Recording) -> Vm:
    """v8 has MDCR_EL2.HCCD set in whatever state a partitioned VM is, and in no other."""
    mdcr = next((int(row[4], 16) for row in recording["accesses"] if row[2:4] == ["w", "MDCR_EL2"]), None)
    if mdcr is None:
        return Vm.PARTITIONED if "partitioned" in recording["name"] else Vm.EMULATED
    if mdcr & r.MDCR_EL2_HCCD:
        return Vm.PARTITIONED
    return Vm.WITHOUT_PMU if "without vPMU" in recording["what"] else Vm.EMULATED


def _cpu(config: dict[str, Any]) -> CpuSpec:
    """By what stands in brackets behind the model's name."""
    model, _, has = str(config["cpu"]).partition(" (")
    features = (has.rstrip(")") or QEMU_MAX).split(", ")
    n = int(config.get("N", 6))
    return CpuSpec(
        model=model,
        counters=n,
        pmuver=next(PMUVER[one] for one in features if one in PMUVER),
        fgt=2 if "FGT2" in features else int("FGT" in features),
        hpmn0="HPMN0" in features,
        reserved_host_counters=int(config.get("reserved_host_counters", n - int(config["h"]))),
    )


def _denied(what: str) -> list[int]:
    _, denies, events = what.partition("denies event")
    return [int(event, 16) for event in re.findall(r"0x[0-9a-f]+", events)] if denies else []


def _host_events(observed: Sequence[str]) -> tuple[EventSpec, ...]:
    """Of lines "event NAME cfg EVENT pinned 0 or 1 -> fd N (ok)"."""
    found: list[EventSpec] = []
    for line in observed:
        if line.startswith("event ") and line.endswith("(ok)"):
            _, name, _, event, _, pinned, *_ = line.split()
            hostonly = "hostonly" in name
            found.append(EventSpec(name, int(event, 16), len(found), pinned=pinned == "1", exclude_guest=hostonly))
    return tuple(found)


def one_reg(recording: Recording, when: str) -> dict[int, int]:
    """What the VMM read by KVM_GET_ONE_REG, in its order."""
    lines = _observed(recording)
    line = next((line for line in lines if line.startswith(f"ONE_REG {when}:")), "")
    pairs = (word.partition("=") for word in line.split() if "=" in word)
    return {encoding(name): int(value, 16) for name, _, value in pairs}


def registers_before(recording: Recording) -> Iterator[tuple[int, int]]:
    """The vCPU's registers in memory: what the VMM read, and of others what KVM made of them before the guest did
    anything to them; else what reset has left there, or the VMM, whichever it was of a register beside it."""
    read = one_reg(recording, "before")
    yield from read.items()
    loaded = _loaded(recording["accesses"])
    for register, n in TYPES.items():
        if n != r.CYCLE_COUNTER and register not in read:
            beside = read.get(r.PMEVCNTR(n), read.get(r.PMEVCNTR(0), UNKNOWN))
            reset = beside & r.MASK32 == UNKNOWN & r.MASK32
            yield register, loaded.get(register, read.get(r.PMEVTYPER(0), 0) if reset else 0)


def _loaded(accesses: Sequence[Sequence[Any]]) -> dict[int, int]:
    """By register, what a load wrote that the guest had not written before."""
    found: dict[int, int] = {}
    written: set[int] = set()
    for phase, function, way, name, value in accesses:
        if way == "w" and phase.startswith("guest"):
            written.add(encoding(name))
        elif way == "w" and function == "kvm_pmu_load" and encoding(name) not in written:
            found.setdefault(encoding(name), int(value, 16))
    return found


def found_on_cpu(accesses: Sequence[Sequence[Any]]) -> Iterator[tuple[int, int]]:
    """What the CPU had in registers that are read before they are written."""
    known = {r.MDCR_EL2, r.HDFGRTR_EL2, r.HDFGWTR_EL2}
    for phase, _, way, name, value in accesses:
        if phase in ("guest-mark", "guest-trapped"):
            continue
        register = encoding(name)
        if way == "r" and register not in known:
            yield register, int(value, 16) & (0xFF if register == r.PMCR_EL0 else r.MASK64)
        known.add(register)
