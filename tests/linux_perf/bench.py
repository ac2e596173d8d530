"""One CPU of the real core without KVM: software runs on it at EL2, or at EL1 with nothing trapped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services._pmu import (
    COMPUTE_EL_SHIFT,
    OP_COMPUTE,
    OP_DONE,
    OP_IPI,
    OP_NOTIFY,
    OP_TIMER,
    OP_WFI,
    Machine,
    Stop,
    register_name,
)
from services.costs import Cost
from services.cpu import NEVER, BurstError, Cpu, Entry, EntryKind, Software, awaited
from services.executor import Work, executor_of
from services.experiment import DEFAULT_SYSCTLS, PerfSysctls
from services.linux_perf import EventAttr, Perf, PerfConfig, PerfCpu, PerfEvent
from services.registers import MDCR_EL2, PMINTENSET_EL1, PMOVSSET_EL0

HZ = 1_000_000_000  # cycles per second: a cycle is a ns
CYCLES, INSTRUCTIONS = 0x11, 0x08
EVENTS = tuple(range(0x30))
MRS, MSR = 0, 1  # codes of the observer's rows
IRQ_WORK_SGI = 5
COSTS = {cost.name.lower(): 0 for cost in Cost}


@dataclass
class Access:
    """One register access as the core's observer saw it."""

    name: str
    write: bool
    value: int

    def __str__(self) -> str:
        return f"{'w' if self.write else 'r'} {self.name}"


class Bench:
    """The CPU, and what software has set on it."""

    def __init__(
        self,
        *,
        hyp: bool = False,
        counters: int = 6,
        pmuver: int = 6,
        rate: int = 1 << 32,
        icntr: int = 0,
        access_cycles: int = 1,
        state: bytes | None = None,
    ) -> None:
        features = {"counters": counters, "pmuver": pmuver, "fgt": 0, "hpmn0": 0, "icntr": icntr, "vhe": 1}
        self.hyp = hyp
        cycles = access_cycles
        self.machine = Machine([features], EVENTS, mrs_cycles=cycles, msr_cycles=cycles, isb_cycles=cycles)
        contexts = self.machine.add_context(False), self.machine.add_context(True)
        # Every event happens `rate` / 2**32 times a cycle, whoever runs.
        self.machine.add_profile([(event, rate) for event in EVENTS if event not in (CYCLES, 0x1E, 0)])
        self.machine.poke(0, MDCR_EL2, counters)
        if state is not None:
            self.machine.restore(state)
        self.context = contexts[0] if hyp else contexts[1]
        self.timers: dict[int, int] = {}
        self.ipis: list[int] = []
        self.notices: list[tuple[int, int]] = []
        self.compute: tuple[int, int, int] | None = None
        self.wfi = False
        self.undefined = 0
        self.previous_done = 0
        self.executor = executor_of(self, self.machine, self.context, 0, interruptible=False)
        self.port = Cpu(self.executor)
        self.kernel_runs()

    def kernel_runs(self) -> None:
        self.machine.set_running(0, self.context, 2 if self.hyp else 1, 0)

    # The kernel's bursts (`services.executor.BurstCpu`).

    def trapped(self, register: int, write: bool, value: int, program: bool) -> int:
        raise BurstError(f"nothing traps here, not {register_name(register)}")

    def interrupted(self, stop: Stop) -> Work:
        raise BurstError(f"handlers run with interrupts masked, {stop}")

    def program_undefined(self, esr: int) -> None:
        self.undefined, self.compute, self.wfi = esr, None, False

    def operation(self, index: int, code: int, argument: int, operand: int) -> None:
        if code == OP_TIMER:
            self.timers[argument] = operand
        elif code == OP_IPI:
            self.ipis.append(argument)
        elif code == OP_NOTIFY:
            self.notices.append((argument, operand))
        elif code == OP_COMPUTE:
            el, profile = divmod(argument, 1 << COMPUTE_EL_SHIFT)
            self.compute, self.wfi = (profile, el, operand), False
        elif code == OP_WFI:
            self.compute, self.wfi = None, True
        elif code != OP_DONE:
            raise BurstError(f"operation {index} is not for a kernel alone: code {code}")

    async def flush(self) -> None:
        """Execute what has been posted, as the end of an entry does."""
        await self.port.wait()

    def work(self, cycles: int, el: int = 0) -> None:
        """The context's program runs for so long, interrupts masked."""
        self.machine.set_running(0, self.context, el, 0)
        done = self.machine.run(0, cycles)
        assert done == cycles, "an interrupt came"
        self.kernel_runs()
        self.port.now = self.machine.now(0)

    def kernel_works(self, cycles: int) -> None:
        """The kernel runs for so long with interrupts masked: what overflows meanwhile is not handled."""
        self.machine.charge(0, Cost.UNBILLED, cycles)
        self.port.now = self.machine.now(0)

    async def work_until_interrupt(self, perf: PerfCpu, limit: int = 100_000_000) -> bool:
        """The program runs until the PMU's interrupt, which is served; False if there is none within `limit` cycles."""
        while limit and not self.machine.interrupt(0):
            self.machine.set_running(0, self.context, 0, 0)
            limit -= self.machine.run(0, limit)
        self.kernel_runs()
        self.port.now = self.machine.now(0)
        if not self.machine.interrupt(0):
            return False
        served = await perf.handle_irq(self.port)
        await self.flush()
        return served

    def guest_runs_until_interrupt(self) -> None:
        """Beside a host at EL2: a guest's program runs until the PMU's interrupt."""
        self.machine.set_running(0, 1, 0, 0)
        self.machine.run(0, 1 << 33)
        assert self.machine.interrupt(0), "none within 2**33 cycles"
        self.kernel_runs()
        self.port.now = self.machine.now(0)

    def guest_works(self, cycles: int) -> None:
        """Beside a host at EL2: a guest's program runs."""
        self.machine.set_running(0, 1, 0, 0)
        self.machine.run(0, cycles)
        self.kernel_runs()
        self.port.now = self.machine.now(0)

    def raise_overflow(self, flags: int) -> None:
        """Counters overflow with their interrupt enabled."""
        self.machine.poke(0, PMINTENSET_EL1, self.machine.peek(0, PMINTENSET_EL1) | flags)
        self.machine.poke(0, PMOVSSET_EL0, flags)

    # Observation.

    def observe(self) -> None:
        self.machine.observed()
        self.machine.observe(True)

    def accesses(self) -> list[str]:
        """The accesses since the last call, as "r PMCR_EL0"."""
        seen = [
            Access(register_name(row[4]), row[3] == MSR, row[5]) for row in self.machine.observed() if row[3] <= MSR
        ]
        return [str(access) for access in seen]

    # Running software.

    async def enter(self, software: Software, kind: EntryKind, argument: int = 0, payload: bytes = b"") -> bytes:
        el, left = (-1, 0) if self.compute is None else self.compute[1:]
        self.kernel_runs()
        self.port.now = self.machine.now(0)
        entry = Entry(kind, self.port.now, argument, el, left, self.previous_done, (), payload)
        work = software.enter(self.port, entry)
        if work is not None:
            await work
        answer = await awaited(self.port.done())
        self.previous_done = self.machine.now(0)
        return answer

    async def step(self, software: Software) -> None:
        """One entry of `software`, or its work up to the next."""
        machine = self.machine
        expired = [timer for timer, deadline in self.timers.items() if deadline <= machine.now(0)]
        if self.undefined:
            esr, self.undefined = self.undefined, 0
            await self.enter(software, EntryKind.EXCEPTION, esr)
        elif self.ipis:
            self.ipis.clear()
            await self.enter(software, EntryKind.SGI, IRQ_WORK_SGI)
        elif machine.interrupt(0):
            await self.enter(software, EntryKind.PMU_IRQ)
        elif expired:
            for timer in expired:
                self.timers[timer] = NEVER
            await self.enter(software, EntryKind.TIMER, sum(1 << timer for timer in expired))
        elif self.compute is not None:
            profile, el, left = self.compute
            machine.set_running(0, self.context, el, profile)
            machine.set_deadline(0, min(self.timers.values(), default=NEVER))
            left -= machine.run(0, left)
            self.compute = (profile, el, left) if left else None
        elif self.wfi:
            machine.idle(0, min(deadline for deadline in self.timers.values() if deadline != NEVER))
        else:
            await self.enter(software, EntryKind.RESUME)


class Kernel:
    """A bench with perf on it, probed, and a task that runs."""

    TASK = 7

    def __init__(self, bench: Bench, perf: Perf, cpu: PerfCpu) -> None:
        self.bench = bench
        self.costs = {cost.name.lower(): cycles for cost, cycles in perf.shared.costs.items()}
        self.all_perf = perf
        self.perf = cpu
        self.cpu = bench.port

    @classmethod
    async def boot(
        cls,
        *,
        hz: int = 250,
        hyp: bool = False,
        counters: int = 6,
        pmuver: int = 6,
        rate: int = 1 << 32,
        costs: dict[str, int] = COSTS,
        icntr: bool = False,
        access_cycles: int = 1,
        sysctls: PerfSysctls = DEFAULT_SYSCTLS,
        **config: Any,
    ) -> Kernel:
        bench = Bench(
            hyp=hyp, counters=counters, pmuver=pmuver, rate=rate, icntr=int(icntr), access_cycles=access_cycles
        )
        perf = Perf(frequency_hz=HZ, hz=hz, costs=costs, sysctls=sysctls)
        kernel = cls(bench, perf, perf.add_cpu(PerfConfig(pmuver=pmuver, hyp=hyp, icntr=icntr, **config)))
        cpu = kernel.perf
        await cpu.probe(bench.port)
        await cpu.task_in(bench.port, cls.TASK)
        await bench.flush()
        bench.observe()
        return kernel

    async def open(
        self, event: int, *, leader: PerfEvent | None = None, task: int | None = TASK, **attributes: Any
    ) -> PerfEvent:
        return await self.open_attr(EventAttr(event=event, **attributes), leader=leader, task=task)

    async def open_attr(
        self, attr: EventAttr, *, leader: PerfEvent | None = None, task: int | None = TASK
    ) -> PerfEvent:
        event = self.perf.open(attr, leader)
        await self.perf.install(self.cpu, event, task)
        await self.done()
        return event

    async def create(self, handle: int, event: int, flags: int, period: int, task: int | None = TASK) -> PerfEvent:
        """A counter of KVM's."""
        made = self.perf.create_kernel_counter(self.cpu, handle, event, flags, period)
        await self.perf.install(self.cpu, made, task)
        await self.done()
        return made

    async def exec(self) -> None:
        await self.perf.enable_on_exec(self.cpu)
        await self.done()

    async def enable(self, event: PerfEvent) -> None:
        await self.perf.enable(self.cpu, event)
        await self.done()

    async def disable(self, event: PerfEvent) -> None:
        self.perf.disable(self.cpu, event)
        await self.done()

    async def switch(self, task: int = TASK, following: int | None = None) -> None:
        """Out of `task` and into the one that follows; without one in again, as after a task without events."""
        await self.perf.task_out(self.cpu, task, following)
        await self.perf.settle(self.cpu)
        await self.perf.task_in(self.cpu, task if following is None else following)
        await self.done()

    async def rotate(self) -> None:
        await self.perf.mux_timer(self.cpu)
        await self.done()

    async def tick(self) -> None:
        await self.perf.tick(self.cpu)
        await self.done()

    async def done(self) -> None:
        await self.perf.settle(self.cpu)
        await self.bench.flush()

    def accesses(self) -> list[str]:
        return self.bench.accesses()
