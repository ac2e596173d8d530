"""A Linux 6.12 guest's own accesses of one recording (`tests/linux_perf`), made again under any design.

The recording has times, ways and registers, and no values. A value follows from what armv8pmu does there: a register of
bits is written for the counter that the accesses around it are of, PMCR_EL0 with E clear or set as it was read, flags
as they were read. What the recording's program chose it does not say: events are cycles and instructions in turn, a
counter begins at 0, or `PERIOD` before its overflow where it samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import tests.linux_perf
from services import registers as r
from services._pmu import register_encoding
from services.cpu import Cpu, Entry, EntryKind, Notice, Timer, TookException
from tests.kvm.recordings import COUNTERS, TYPES
from tests.kvm.scripted import INST_RETIRED, Scripted

FILE = Path(tests.linux_perf.__file__).with_name("kvm-6.12-guest-register-traffic.json")
SCENARIOS: dict[str, dict[str, Any]] = json.loads(FILE.read_text())["scenarios"]
PERIOD = 3_000  # cycles
GAP = 0.002  # s without an access, in which its program works or its kernel idles
WORK = 20_000  # cycles
OF_ONE = (r.PMCNTENSET_EL0, r.PMCNTENCLR_EL0, r.PMINTENSET_EL1, r.PMINTENCLR_EL1, r.PMOVSCLR_EL0)


class Linux612(Scripted):
    """Makes them, one after the other, in the order of the recording; between them it works or idles as there."""

    def __init__(self, scenario: str) -> None:
        super().__init__()
        rows = [row for row in SCENARIOS[scenario]["sequence"] if "ICC_" not in row[2]]
        self.accesses = [(way == "w", register_encoding(name)) for _, way, name in rows]
        self.idles = [after[0] - row[0] > GAP for row, after in pairwise(rows)]
        self.samples = (False, r.PMOVSCLR_EL0) in self.accesses
        self.steps = self._steps()
        self.pmcr = self.flags = 0
        self.interrupts = self.undefined = 0
        self.done = 0  # accesses

    async def enter(self, cpu: Cpu, entry: Entry) -> None:
        if entry.kind == EntryKind.BOOT:
            self._reset(cpu)
        if entry.kind == EntryKind.PMU_IRQ:
            self.interrupts += 1
        if entry.kind in (EntryKind.BOOT, EntryKind.RESUME, EntryKind.TIMER, EntryKind.PMU_IRQ):
            await self._go_on(cpu)
        else:
            await super().enter(cpu, entry)

    def _reset(self, cpu: Cpu) -> None:
        """armv8pmu_reset, which the recording begins after."""
        for register in (r.PMCNTENCLR_EL0, r.PMINTENCLR_EL1, r.PMOVSCLR_EL0):
            cpu.burst.msr(register, r.MASK32)
        cpu.burst.msr(r.PMCR_EL0, r.PMCR_P | r.PMCR_C | r.PMCR_LC)

    async def _go_on(self, cpu: Cpu) -> None:
        for at, rests in self.steps:
            if rests:
                if at % 2:
                    cpu.burst.compute(2, 0, WORK)
                else:
                    cpu.burst.timer(Timer.SLEEP, cpu.now + WORK)
                    cpu.burst.wfi()
                return
            await self._access(cpu, at)
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    def _steps(self) -> Iterator[tuple[int, bool]]:
        """Each access, and before it whether there is time between."""
        for at, access in enumerate(self.accesses):
            if at and (self.idles[at - 1] or access == (False, r.PMOVSCLR_EL0)):
                yield at, True
            yield at, False

    async def _access(self, cpu: Cpu, at: int) -> None:
        write, register = self.accesses[at]
        self.done += 1
        with suppress(TookException):
            if write:
                cpu.burst.msr(register, self._value(at, register))
                await cpu.wait()
                return
            value = await cpu.mrs(register)
            if register == r.PMCR_EL0:
                self.pmcr = value
            elif register == r.PMOVSCLR_EL0:
                self.flags = value
            return
        self.undefined += 1

    def _value(self, at: int, register: int) -> int:
        if register == r.PMCR_EL0:
            starts = self.accesses[at - 2] == (True, r.PMUSERENR_EL0)
            return self.pmcr & ~r.PMCR_E | (r.PMCR_E if starts else 0)
        if register in COUNTERS:
            return -PERIOD & r.MASK64 if self.samples else 0
        if register in TYPES:
            return (r.CPU_CYCLES, INST_RETIRED)[TYPES[register] % 2] if register != r.PMCCFILTR_EL0 else 0
        if register == r.PMOVSCLR_EL0 and self.accesses[at - 1] == (False, r.PMOVSCLR_EL0):
            return self.flags
        if register in OF_ONE:
            return 1 << self._counter(at)
        return 0

    def _counter(self, at: int) -> int:
        """The one that an event is put on, whose registers are written before it, or that it is taken off, which is
        read behind."""
        register = self.accesses[at][1]
        after = self.accesses[at + 1 : at + 2]
        stops = register in (r.PMINTENCLR_EL1, r.PMOVSCLR_EL0) or after == [(True, r.PMINTENCLR_EL1)]
        around = self.accesses[at:] if stops else reversed(self.accesses[: at + 1])
        of = COUNTERS | TYPES
        return next((of[register] for _, register in around if register in of), r.CYCLE_COUNTER)
