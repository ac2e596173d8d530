"""Guests' kernels by chance: they do to their PMUs whatever software may, at EL1 and EL0, well-behaved or not."""

from __future__ import annotations

import random
from collections.abc import Sequence

from services import registers as r
from services.cpu import Cpu, Entry, Notice, Timer, TookException
from tests.kvm.scripted import INST_RETIRED, Scripted

TICK = 20_000  # cycles
STEPS = 40  # of a guest's program
BRANCHES, ABSENT = 0x21, 0x77
EVENTS = (r.SW_INCR, INST_RETIRED, r.CPU_CYCLES, r.CHAIN, BRANCHES, ABSENT)
VIEWS = (
    r.PMCNTENSET_EL0,
    r.PMCNTENCLR_EL0,
    r.PMINTENSET_EL1,
    r.PMINTENCLR_EL1,
    r.PMOVSSET_EL0,
    r.PMOVSCLR_EL0,
)
OTHERS = (
    r.PMCR_EL0,
    r.PMSELR_EL0,
    r.PMUSERENR_EL0,
    r.PMCCNTR_EL0,
    r.PMCCFILTR_EL0,
    r.PMXEVCNTR_EL0,
    r.PMXEVTYPER_EL0,
    r.PMSWINC_EL0,
    r.PMCEID0_EL0,
    r.PMCEID1_EL0,
    r.PMMIR_EL1,
)
ABSENT_REGISTERS = (r.PMICNTR_EL0, r.PMICFILTR_EL0, r.PMZR_EL0, r.PMUACR_EL1, r.PMECR_EL1)  # from any guest
FILTERS = (0, 0, 0, r.PMEVTYPER_P, r.PMEVTYPER_U, r.PMEVTYPER_P | r.PMEVTYPER_U, r.PMEVTYPER_NSK, r.PMEVTYPER_NSH)
TYPES = {r.PMXEVTYPER_EL0, r.PMCCFILTR_EL0, *(r.PMEVTYPER(n) for n in range(r.EVENT_COUNTERS))}


def value_of(rng: random.Random, register: int, counters: int) -> int:
    """What a write has that matters."""
    if register in VIEWS or register == r.PMSWINC_EL0:
        return rng.choice((r.MASK32, r.CYCLE_BIT, 1 << rng.randrange(8), rng.getrandbits(32)))
    if register == r.PMCR_EL0:
        return rng.choice((r.PMCR_E, r.PMCR_E, r.PMCR_E | r.PMCR_LP | r.PMCR_LC, 0, rng.getrandbits(8)))
    if register == r.PMSELR_EL0:
        return rng.choice((rng.randrange(counters + 1), 31, rng.getrandbits(5)))
    if register == r.PMUSERENR_EL0:
        return rng.choice((0, rng.getrandbits(4), 0xF))
    if register in TYPES:
        return rng.choice(EVENTS) | rng.choice(FILTERS)
    before = rng.choice((1, 2, 100, 3_000, TICK))  # so many before an overflow
    return rng.choice((0, 1 << 32, 1 << 64, 1 << 32, rng.getrandbits(64))) - before & r.MASK64


class RandomGuest(Scripted):
    """One vCPU's kernel. Its driver sets the PMU up, or does not; then there are so many steps, each an access, a
    program's access at EL0, work, sleep or a hypercall."""

    def __init__(self, rng: random.Random, counters: int, steps: int = STEPS) -> None:
        super().__init__(
            boot=self.boot, resume=self.go_on, timer=self.go_on, exception=self.go_on, pmu_irq=self.interrupt
        )
        self.rng = rng
        self.counters = counters
        self.left = steps

    async def boot(self, cpu: Cpu, entry: Entry) -> None:
        if self.rng.random() < 0.7:
            await self._set_up(cpu)
        await self.go_on(cpu, entry)

    async def interrupt(self, cpu: Cpu, entry: Entry) -> None:
        """Whatever its handler does besides, it clears the flags."""
        flags = await cpu.mrs(r.PMOVSCLR_EL0)
        cpu.burst.msr(r.PMOVSCLR_EL0, flags)
        cpu.burst.isb()
        if self.rng.random() < 0.3:
            await self._access(cpu)
        await cpu.wait()

    async def go_on(self, cpu: Cpu, entry: Entry) -> None:
        rng = self.rng
        while self.left:
            self.left -= 1
            choice = rng.random()
            if choice < 0.55:
                await self._access(cpu)
            elif choice < 0.65:
                await self._user_access(cpu)
            elif choice < 0.7:
                cpu.burst.isb()
            elif choice < 0.75:
                cpu.burst.hvc(0)
            elif choice < 0.83:
                _sleep(cpu, rng)
                return
            else:
                _compute(cpu, rng, (1, 10, 100, 1_000, TICK // 2, 2 * TICK))
                return
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    async def _set_up(self, cpu: Cpu) -> None:
        """armv8pmu_reset, then events on its counters, near their overflow or not, and programs that may read them."""
        rng = self.rng
        for register in (r.PMCNTENCLR_EL0, r.PMINTENCLR_EL1, r.PMOVSCLR_EL0):
            cpu.burst.msr(register, r.MASK32)
        control = rng.choice((0, r.PMCR_LC, r.PMCR_LC | r.PMCR_LP))
        cpu.burst.msr(r.PMCR_EL0, control | r.PMCR_P | r.PMCR_C)
        for n in range(self.counters):
            for register in (r.PMEVCNTR(n), r.PMEVTYPER(n)):
                cpu.burst.msr(register, value_of(rng, register, self.counters))
        for register in (r.PMCCNTR_EL0, r.PMCCFILTR_EL0, r.PMUSERENR_EL0):
            cpu.burst.msr(register, value_of(rng, register, self.counters))
        cpu.burst.msr(r.PMSELR_EL0, rng.randrange(self.counters + 1))
        cpu.burst.msr(r.PMINTENSET_EL1, rng.choice((0, rng.getrandbits(32), r.MASK32)))
        cpu.burst.msr(r.PMCNTENSET_EL0, rng.choice((rng.getrandbits(32), r.MASK32)))
        cpu.burst.msr(r.PMCR_EL0, control | r.PMCR_E)
        cpu.burst.isb()
        await cpu.wait()

    async def _access(self, cpu: Cpu) -> None:
        register = self._register()
        try:
            if self.rng.random() < 0.6:
                cpu.burst.msr(register, value_of(self.rng, register, self.counters))
                await cpu.wait()
            else:
                await cpu.mrs(register)
        except TookException:
            pass

    async def _user_access(self, cpu: Cpu) -> None:
        register = self._register()
        if self.rng.random() < 0.3:
            cpu.burst.user_msr(register, value_of(self.rng, register, self.counters))
        else:
            cpu.burst.user_mrs(register)
        await cpu.wait()

    def _register(self) -> int:
        rng, choice = self.rng, self.rng.random()
        n = rng.randrange(self.counters + 1)  # one above them, too
        if choice < 0.2:
            return r.PMEVCNTR(n)
        if choice < 0.35:
            return r.PMEVTYPER(n)
        if choice > 0.97:
            return rng.choice(ABSENT_REGISTERS)
        return rng.choice(VIEWS if choice < 0.65 else OTHERS)


def _sleep(cpu: Cpu, rng: random.Random) -> None:
    cpu.burst.timer(Timer.SLEEP, cpu.now + rng.choice((1, 1_000, TICK, 3 * TICK)))
    cpu.burst.wfi()


def _compute(cpu: Cpu, rng: random.Random, lengths: Sequence[int]) -> None:
    cycles = rng.choice(lengths)
    cpu.burst.compute(rng.choice((1, 2)), rng.choice((0, 1)), cycles)


class DriverGuest(Scripted):
    """One vCPU's kernel, whose driver does what Linux's does: it stops the PMU or the counter, writes its counter, and
    starts it; an overflow has the counter's next period written. Programs at EL0 read at most."""

    def __init__(self, rng: random.Random, counters: int, long: bool, steps: int = STEPS) -> None:
        super().__init__(
            boot=self.boot, resume=self.go_on, timer=self.go_on, exception=self.go_on, pmu_irq=self.interrupt
        )
        self.rng = rng
        self.counters = [*range(counters), r.CYCLE_COUNTER]
        self.long = long  # counters of 64 bits (FEAT_PMUv3p5)
        self.left = steps
        self.control = r.PMCR_LC | (r.PMCR_LP if long else 0)
        self.periods: dict[int, int] = {}  # of the counters that are enabled; 0: it counts on

    async def boot(self, cpu: Cpu, entry: Entry) -> None:
        """armv8pmu_reset."""
        for register in (r.PMCNTENCLR_EL0, r.PMINTENCLR_EL1, r.PMOVSCLR_EL0):
            cpu.burst.msr(register, r.MASK32)
        cpu.burst.msr(r.PMUSERENR_EL0, self.rng.choice((0, r.PMUSERENR_CR | r.PMUSERENR_ER)))
        cpu.burst.msr(r.PMCR_EL0, self.control | r.PMCR_P | r.PMCR_C)
        cpu.burst.isb()
        await cpu.wait()
        for n in self.counters:
            if self.rng.random() < 0.7:
                self._add(cpu, n)
        self._start(cpu)
        await cpu.wait()
        await self.go_on(cpu, entry)

    async def interrupt(self, cpu: Cpu, entry: Entry) -> None:
        """armv8pmu_handle_irq."""
        flags = await cpu.mrs(r.PMOVSCLR_EL0)
        cpu.burst.msr(r.PMOVSCLR_EL0, flags)
        self._stop(cpu)
        for n, period in self.periods.items():
            if flags >> n & 1:
                cpu.burst.mrs(self._counter(n))
                if period:
                    cpu.burst.msr(self._counter(n), -period & r.MASK64)
        self._start(cpu)
        await cpu.wait()

    async def go_on(self, cpu: Cpu, entry: Entry) -> None:
        rng = self.rng
        while self.left:
            self.left -= 1
            choice = rng.random()
            if choice < 0.15:
                await self._schedule(cpu)
            elif choice < 0.35:
                cpu.burst.mrs(self._counter(rng.choice(self.counters)))
                await cpu.wait()
            elif choice < 0.4:
                cpu.burst.user_mrs(self._counter(rng.choice(self.counters)))
                await cpu.wait()
            elif choice < 0.45:
                cpu.burst.hvc(0)
            elif choice < 0.55:
                _sleep(cpu, rng)
                return
            else:
                _compute(cpu, rng, (10, 100, 1_000, TICK // 2, 2 * TICK))
                return
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    async def _schedule(self, cpu: Cpu) -> None:
        """perf_pmu_disable() to perf_pmu_enable(): an event goes, or comes in."""
        n = self.rng.choice(self.counters)
        self._stop(cpu)
        if n in self.periods:
            self._delete(cpu, n)
        else:
            self._add(cpu, n)
        self._start(cpu)
        await cpu.wait()

    def _add(self, cpu: Cpu, n: int) -> None:
        """armpmu_add, armpmu_start: a period, or half a counter's range for what does not sample."""
        rng = self.rng
        self.periods[n] = period = rng.choice((0, 1_000, 3_000, TICK))
        event = rng.choice((INST_RETIRED, r.CPU_CYCLES, BRANCHES)) if n != r.CYCLE_COUNTER else 0
        kind = r.PMCCFILTR_EL0 if n == r.CYCLE_COUNTER else r.PMEVTYPER(n)
        cpu.burst.msr(kind, event | rng.choice((0, 0, r.PMEVTYPER_P, r.PMEVTYPER_U)))
        cpu.burst.msr(self._counter(n), -(period or 1 << 31) & r.MASK64)
        cpu.burst.msr(r.PMINTENSET_EL1, 1 << n)
        cpu.burst.msr(r.PMCNTENSET_EL0, 1 << n)

    def _delete(self, cpu: Cpu, n: int) -> None:
        """armpmu_del."""
        del self.periods[n]
        cpu.burst.msr(r.PMCNTENCLR_EL0, 1 << n)
        cpu.burst.msr(r.PMINTENCLR_EL1, 1 << n)
        cpu.burst.isb()
        cpu.burst.msr(r.PMOVSCLR_EL0, 1 << n)
        cpu.burst.mrs(self._counter(n))

    def _counter(self, n: int) -> int:
        return r.PMCCNTR_EL0 if n == r.CYCLE_COUNTER else r.PMEVCNTR(n)

    def _stop(self, cpu: Cpu) -> None:
        """armv8pmu_stop."""
        cpu.burst.msr(r.PMCR_EL0, self.control)
        cpu.burst.isb()

    def _start(self, cpu: Cpu) -> None:
        """armv8pmu_start."""
        cpu.burst.isb()
        cpu.burst.msr(r.PMCR_EL0, self.control | r.PMCR_E)
        cpu.burst.isb()
