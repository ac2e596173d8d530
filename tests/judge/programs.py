"""A guest's program that does the same however it is run, and what of it must then read the same.

All its counters but the last count at EL0 alone, where nothing but its own work takes time. So what it reads follows
from its program, but for this:

- the last event counter counts at EL1, too, where traps and interrupts take as long as they take: its value, and its
  overflow flag;
- a flag that an interrupt handler of the guest's clears, in a program with interrupts: an overflow is handled before or
  after the program's next read;
- counts and flags of an emulated PMU where the judge finds that it loses counts (I4): a perf event that is started anew
  by a guest's write leaves out EL0 up to the next vcpu_load.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from services import registers as r
from services._pmu import Burst, Machine
from services.cpu import Cpu, Entry, Notice
from tests.kvm.scripted import INST_RETIRED, Scripted

COUNTERS = 4
LAST = COUNTERS - 1
ALL = r.counter_mask(COUNTERS)
USER = r.PMEVTYPER_P  # not at EL1
EVENTS = (INST_RETIRED, r.CPU_CYCLES, r.CHAIN, r.SW_INCR)
FLAGS = (r.PMOVSSET_EL0, r.PMOVSCLR_EL0)
READ = (
    r.PMCR_EL0,
    r.PMCNTENSET_EL0,
    r.PMINTENSET_EL1,
    *FLAGS,
    r.PMSELR_EL0,
    r.PMUSERENR_EL0,
    r.PMCCNTR_EL0,
    r.PMCCFILTR_EL0,
    *(register(n) for register in (r.PMEVCNTR, r.PMEVTYPER) for n in range(COUNTERS)),
)


@dataclass(frozen=True)
class Step:
    """Work at EL0 for `value` cycles, or an access."""

    what: str
    register: int = 0
    value: int = 0


Did = list[tuple[int, int]]  # register, and what it read


def program(seed: int, interrupts: bool, length: int = 60) -> tuple[Step, ...]:
    rng = random.Random(f"program {seed}")
    return (*_begins(), *(step for _ in range(length) for step in _step(rng, interrupts)))


def _begins() -> Iterator[Step]:
    """Nothing is UNKNOWN any more."""
    for register, value in (
        (r.PMCR_EL0, r.PMCR_LC),
        (r.PMCNTENCLR_EL0, r.MASK32),
        (r.PMINTENCLR_EL1, r.MASK32),
        (r.PMOVSCLR_EL0, r.MASK32),
        (r.PMSELR_EL0, 0),
        (r.PMUSERENR_EL0, 0),
        (r.PMCCFILTR_EL0, USER),
        (r.PMCCNTR_EL0, 0),
    ):
        yield Step("MSR", register, value)
    for n in range(COUNTERS):
        yield Step("MSR", r.PMEVTYPER(n), INST_RETIRED | (0 if n == LAST else USER))
        yield Step("MSR", r.PMEVCNTR(n), 0)
    yield Step("MSR", r.PMCR_EL0, r.PMCR_LC | r.PMCR_E)


def _step(rng: random.Random, interrupts: bool) -> Iterator[Step]:
    choice = rng.random()
    if choice < 0.3:
        yield Step("MRS", rng.choice(READ))
    elif choice < 0.55:
        yield Step("work", 0, rng.choice((1, 100, 3_000, 20_000)))
    elif choice < 0.75:  # a counter is programmed as a driver does
        n = rng.randrange(COUNTERS + 1)
        before = rng.choice((1, 50, 1_000, 1 << 20))
        counter, typer, bit = (
            (r.PMCCNTR_EL0, r.PMCCFILTR_EL0, r.CYCLE_BIT) if n == COUNTERS else (r.PMEVCNTR(n), r.PMEVTYPER(n), 1 << n)
        )
        event = 0 if n == COUNTERS else rng.choice(EVENTS)
        width = 64 if n == COUNTERS else 32
        yield Step("MSR", r.PMCNTENCLR_EL0, bit)
        yield Step("MSR", r.PMOVSCLR_EL0, bit)
        yield Step("MSR", typer, event | (0 if n == LAST else USER))
        yield Step("MSR", counter, (1 << width) - before)
        yield Step("MSR", r.PMCNTENSET_EL0, bit)
    elif choice < 0.85:
        yield Step("MSR", rng.choice((r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0)), rng.choice((ALL, rng.getrandbits(5))))
    elif choice < 0.9:
        views = (r.PMINTENSET_EL1, r.PMINTENCLR_EL1) if interrupts else (r.PMOVSCLR_EL0,)
        yield Step("MSR", rng.choice(views), rng.choice((ALL & ~(1 << LAST), 1, 2)))
    elif choice < 0.95:
        yield Step("MSR", r.PMSELR_EL0, rng.randrange(LAST))
        yield Step("MRS", rng.choice((r.PMXEVCNTR_EL0, r.PMXEVTYPER_EL0)))
    else:
        yield Step("MSR", r.PMCR_EL0, r.PMCR_LC | rng.choice((0, r.PMCR_E, r.PMCR_E)))


class Program(Scripted):
    """A guest's kernel that carries it out."""

    def __init__(self, steps: tuple[Step, ...]) -> None:
        super().__init__(boot=self.go_on, resume=self.go_on, pmu_irq=self.interrupt)
        self.steps = list(steps)
        self.did: Did = []

    async def go_on(self, cpu: Cpu, entry: Entry) -> None:
        while self.steps:
            step = self.steps.pop(0)
            if step.what == "MRS":
                self.did.append((step.register, await cpu.mrs(step.register)))
            elif step.what == "MSR":
                cpu.burst.msr(step.register, step.value)
                cpu.burst.isb()
                await cpu.wait()
            else:
                cpu.burst.compute(2, 0, step.value)
                return
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    async def interrupt(self, cpu: Cpu, entry: Entry) -> None:
        flags = await cpu.mrs(r.PMOVSCLR_EL0)
        cpu.burst.msr(r.PMOVSCLR_EL0, flags)
        cpu.burst.isb()
        await cpu.wait()


def ideal(steps: tuple[Step, ...], rate: int, pmuver: int) -> Did:
    """What it reads on a PMU of its own: a CPU with the guest's counters, on which nothing else ever runs."""
    machine = Machine(
        [{"counters": COUNTERS, "pmuver": pmuver}], [INST_RETIRED], mrs_cycles=1, msr_cycles=1, isb_cycles=1
    )
    profile = machine.add_profile([(INST_RETIRED, rate)])
    context = machine.add_context(True)
    did: Did = []
    for step in steps:
        machine.set_running(0, context, 0 if step.what == "work" else 1, profile)
        if step.what == "work":
            machine.charge(0, 0, step.value)
        elif step.what == "MSR":
            machine.write(0, step.register, step.value)
        else:
            burst = Burst()
            burst.mrs(step.register)
            machine.execute(0, burst, 0, 0)
            did.append((step.register, burst.values()[0]))
    return did


COUNTS = (r.PMCCNTR_EL0, r.PMXEVCNTR_EL0, *(r.PMEVCNTR(n) for n in range(COUNTERS)), *FLAGS)


def comparable(did: Did, interrupts: bool) -> Did:
    """What must be the same however it is run."""

    def shown(register: int, value: int) -> int:
        if register == r.PMEVCNTR(LAST):
            return 0
        if register in FLAGS:
            return 0 if interrupts else value & ~(1 << LAST)
        if register == r.PMCR_EL0:
            return value & 0xFFFF  # without IMP and IDCODE
        return value

    return [(register, shown(register, value)) for register, value in did]


def without_counts(did: Did) -> Did:
    """What must be, even if counts are lost."""
    return [(register, 0 if register in COUNTS else value) for register, value in did]
