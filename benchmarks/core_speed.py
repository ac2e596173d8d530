"""How fast the core is, beside a floor measured in the same run.

The floor is what no model that counts exactly can do without: a loop of one 128-bit multiply-shift and one add per
counter. `benchmarks/core` is the Rust part: there each figure is taken in turn with the floor, many times in short
batches, and its best one counts. Exit status 1 if a limit is missed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from services._pmu import Burst, Machine
from services.registers import (
    PMCNTENCLR_EL0,
    PMCNTENSET_EL0,
    PMCR_EL0,
    PMEVCNTR,
    PMEVTYPER,
    PMEVTYPER_NSH,
    PMINTENCLR_EL1,
    PMINTENSET_EL1,
    PMOVSCLR_EL0,
)

_REPOSITORY = Path(__file__).parent.parent
_ROUNDS = 300
_SPANS = tuple(10**exponent for exponent in (2, 4, 6, 8, 10))
# Cycles of an advance in `benchmarks/core`.
_SPAN = 30_000
_ENABLED = (1, 2, 6, 16, 31)
_EVENT = 0x08
_ACCESSES = 64


def main() -> int:
    rust = _rust()
    lines: list[tuple[str, float, float | None, str]] = []
    for counters in (6, 31):
        floor, advance = rust[f"floor {counters}"], rust[f"advance {counters}"]
        stepped = rust[f"reference {counters}"] * _SPAN
        lines += [
            (f"floor, {counters} counters", floor, None, ""),
            (f"advance, {counters} counters, then look at each", advance, 2 * floor, "2 floors"),
            (f"advance, {counters} counters, nobody looks", rust[f"advance-unseen {counters}"], 2 * floor, "2 floors"),
            (
                f"running through an overflow, {counters} counters",
                rust[f"overflow {counters}"],
                3 * advance,
                "3 such advances",
            ),
            (
                f"running to an overflow interrupt, clearing it, {counters} counters",
                rust[f"interrupt {counters}"],
                3 * advance + rust["access write"],
                "3 such advances and an access",
            ),
            (
                f"{_SPAN:,} cycles, {counters} counters, of the reference's {stepped / 1e6:.1f} ms",
                advance,
                stepped / 1000,
                "a thousandth",
            ),
        ]
    iteration = rust["floor 1"]
    for kind, what in (("read", "a counter read"), ("write", "a counter written"), ("driver", "a driver's mix")):
        lines.append((f"one register access in Rust, {what}", rust[f"access {kind}"], 20 * iteration, "20 iterations"))
    lines.append(("a switch between guest and host, 6 counters", rust["switch 6"], None, ""))
    call, batch = _python()
    limit = 2 * rust["access driver"] * _ACCESSES + call
    state, restore = _snapshot()
    lines += [
        ("an empty call from Python", call, None, ""),
        ("a call that stops at an operation for KVM", _stopping(), 3 * call, "3 empty calls"),
        (f"a batch of {_ACCESSES} accesses from Python", batch, limit, "2 in Rust and an empty call"),
        ("posting one access from Python", _posting(), None, ""),
        ("appending one prepared burst from Python", _appending(), 2 * call, "2 empty calls"),
        ("state of a small machine", state, 200 * call, "200 empty calls"),
        ("restore of a small machine", restore, 200 * call, "200 empty calls"),
    ]
    _print(lines)
    print()
    _table("advance of 6 counters by cycles, ns (flat)", _SPANS, [rust[f"span {span}"] for span in _SPANS])
    _table("advance by enabled counters, ns (linear)", _ENABLED, [rust[f"enabled {n}"] for n in _ENABLED])
    _table("overflow interrupt by enabled counters, ns (linear)", _ENABLED, [rust[f"interrupt {n}"] for n in _ENABLED])
    _table(
        "run by overflows in it, ns (linear)", (1, 10, 100, 1000, 10000), [rust[f"overflows {10**n}"] for n in range(5)]
    )
    return int(any(limit is not None and value > limit for _, value, limit, _ in lines))


def _rust() -> dict[str, float]:
    command = ["cargo", "run", "--quiet", "--release", "--locked", "--package", "core-bench"]
    printed = subprocess.run(command, cwd=_REPOSITORY, capture_output=True, text=True, check=True).stdout
    figures = (line.rpartition(" ") for line in printed.splitlines())
    return {name: float(nanoseconds) for name, _, nanoseconds in figures}


def _python() -> tuple[float, float]:
    """Nanoseconds of an empty burst, and of the batch that `benchmarks/core` calls a driver's mix."""
    machine = Machine([{"counters": 6}], [_EVENT], mrs_cycles=30, msr_cycles=30, isb_cycles=30)
    profile = machine.add_profile([(_EVENT, 0xB333_3333)])
    machine.set_running(0, machine.add_context(False), 2, profile)
    for n in range(6):
        machine.poke(0, PMEVTYPER(n), PMEVTYPER_NSH | _EVENT)
    machine.poke(0, PMCR_EL0, 1 << 7 | 1)
    machine.poke(0, PMCNTENSET_EL0, 0x3F)
    empty, batch = Burst(), Burst()
    for i in range(0, _ACCESSES, 8):
        batch.mrs(PMOVSCLR_EL0)
        batch.msr(PMCNTENCLR_EL0, 2)
        batch.msr(PMINTENCLR_EL1, 2)
        batch.mrs(PMEVCNTR(1))
        batch.msr(PMEVCNTR(1), i + 4 << 20)
        batch.msr(PMEVTYPER(1), PMEVTYPER_NSH | _EVENT)
        batch.msr(PMINTENSET_EL1, 2)
        batch.msr(PMCNTENSET_EL0, 2)
    execute = machine.execute

    def per_call(burst: Burst, repetitions: int) -> float:
        start = time.perf_counter()
        for _ in range(repetitions):
            execute(0, burst, 0, False)
        return (time.perf_counter() - start) / repetitions * 1e9

    # In turn and in short batches, as in the Rust part.
    calls, batches = zip(*((per_call(empty, 1_000), per_call(batch, 100)) for _ in range(_ROUNDS)), strict=True)
    return min(calls), min(batches)


def _posting() -> float:
    def per_post() -> float:
        burst = Burst()
        msr = burst.msr
        start = time.perf_counter()
        for _ in range(1_000):
            msr(PMCR_EL0, 1)
        return (time.perf_counter() - start) / 1_000 * 1e9

    return min(per_post() for _ in range(_ROUNDS))


def _appending() -> float:
    """Nanoseconds per prepared burst of four operations: the start of an event."""
    start_event = Burst()
    start_event.mrs(PMOVSCLR_EL0)
    for register in (PMEVCNTR(1), PMEVTYPER(1), PMCNTENSET_EL0):
        start_event.msr(register, 2)

    def per_burst() -> float:
        burst = Burst()
        extend = burst.extend
        start = time.perf_counter()
        for _ in range(1_000):
            extend(start_event)
        return (time.perf_counter() - start) / 1_000 * 1e9

    return min(per_burst() for _ in range(_ROUNDS))


def _stopping() -> float:
    machine = Machine([{"counters": 6}], [], mrs_cycles=30, msr_cycles=30, isb_cycles=30)
    machine.set_running(0, machine.add_context(False), 2, machine.add_profile([]))
    burst = Burst()
    burst.done()
    return _best(lambda: machine.execute(0, burst, 0, False), 1_000)


def _snapshot() -> tuple[float, float]:
    """A pCPU of 4 counters, of which two count, the host and two vCPUs, a dozen events; accesses in the log."""
    machine = Machine([{"counters": 4}], range(0x08, 0x14), mrs_cycles=30, msr_cycles=30, isb_cycles=30)
    profile = machine.add_profile([(event, 0x3333_3333) for event in range(0x08, 0x10)])
    host, *vcpus = (machine.add_context(guest) for guest in (False, True, True))
    burst = Burst()
    for n in range(2):
        burst.msr(PMEVTYPER(n), PMEVTYPER_NSH | _EVENT)
    burst.msr(PMCNTENSET_EL0, 3)
    burst.msr(PMCR_EL0, 1)
    for _ in range(10):
        machine.set_running(0, host, 2, profile)
        machine.execute(0, burst, 0, False)
        machine.charge(0, 30, 100)
        for vcpu in vcpus:
            machine.set_running(0, vcpu, 1, profile)
            machine.run(0, 12_345)
    state = machine.state()
    return _best(machine.state, 100), _best(lambda: machine.restore(state), 100)


def _best(call: Callable[[], object], repetitions: int) -> float:
    """Nanoseconds of a call, the loop and a Python frame included."""

    def per_call() -> float:
        start = time.perf_counter()
        for _ in range(repetitions):
            call()
        return (time.perf_counter() - start) / repetitions * 1e9

    return min(per_call() for _ in range(_ROUNDS))


def _print(lines: list[tuple[str, float, float | None, str]]) -> None:
    print(f"{'':62} {'ns':>10} {'at most':>10}")
    for name, value, limit, why in lines:
        if limit is None:
            print(f"{name:62} {value:10,.1f}")
        else:
            verdict = "" if value <= limit else "  MISSED"
            print(f"{name:62} {value:10,.1f} {limit:10,.1f}  {why}{verdict}")


def _table(title: str, sizes: tuple[int, ...], values: list[float]) -> None:
    print(title)
    print("  " + " ".join(f"{size:>15,}" for size in sizes))
    print("  " + " ".join(f"{value:>15,.1f}" for value in values))


if __name__ == "__main__":
    sys.exit(main())
