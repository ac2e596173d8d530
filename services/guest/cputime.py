"""CPU time as a guest's own kernel accounts it: what `time` prints (Linux 6.12, kernel/sched/cputime.c).

By ticks, a tick's whole period is charged to the task that runs, as user or system time by the exception level that the
timer interrupt has interrupted. With irqtime (CONFIG_IRQ_TIME_ACCOUNTING) what handlers took since the tick before is
taken off it, and off the run time. With vtime (CONFIG_VIRT_CPU_ACCOUNTING_GEN) the tick charges nothing: user time is
what passed at EL0, all other run time is system time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from services.cpu import Entry, EntryKind
from services.experiment import IRQTIME, VTIME
from services.guest.task import Task
from services.state import derived

INTERRUPTS = frozenset({EntryKind.PMU_IRQ, EntryKind.TIMER, EntryKind.SGI})


@dataclass(slots=True, eq=False)
class CpuTime:
    """The accounting of one vCPU. Times are cycles of its clock."""

    # The work that was left where process context ended: what falls due before that, and in handlers that begin there,
    # interrupts the kernel. -1: nothing does.
    left: int = -1
    since: int = 0  # when the current task was switched in, later by what handlers have taken of its run time
    handler: int = -1  # when the interrupt handler began that was the last entry, or -1: counted already, or none
    irqs: int = 0  # that handlers have taken since the last tick

    perf: list[list[int]] = field(default_factory=list)  # since when, to when and whose perf has run in that burst

    el0_since: int = (
        -1
    )  # with `left`: the program reads counters at EL0 since then, in the burst before its work; -1: not
    seen: int = 0  # the last entry

    period: int = derived(default=0)  # of the tick
    irqtime: bool = derived(default=False)
    vtime: bool = derived(default=False)
    exact: bool = derived(default=False)  # either: each entry is to be seen

    def configure(self, accounting: str, period: int) -> None:
        """As the guest's kernel was built and booted."""
        self.period = period
        self.irqtime, self.vtime = accounting in IRQTIME, accounting in VTIME
        self.exact = self.irqtime or self.vtime

    def entered(self, entry: Entry, task: Task | None) -> None:
        """irqtime_account_irq and vtime_user_exit: what passed up to an entry was a handler's, then `task`'s."""
        if self.handler >= 0:
            self.handler_over(entry.previous_done)
        if self.vtime and task is not None:
            el = entry.el if entry.el >= 0 else task.work().el
            if el == 0:
                task.utime += entry.now - (entry.previous_done if self.el0_since < self.seen else self.el0_since)
            self.seen = entry.now
        if self.irqtime and entry.kind in INTERRUPTS:
            self.handler = entry.now

    def works(self, left: int, el0_since: int = -1) -> None:
        """A burst of process context ends with so much work of the task's, which it has begun at EL0 if so."""
        self.left, self.el0_since = left, el0_since
        self.perf.clear()

    def handler_over(self, now: int) -> None:
        """The interrupt handler has ended, or goes over to process context."""
        took = now - self.handler
        self.irqs += took
        self.since += took
        self.handler = -1

    def found(self, due: int, entry: Entry, task: Task) -> int:
        """The exception level that a tick has interrupted which was `due` then."""
        if entry.remaining == self.left and due <= entry.previous_done:
            return 1 if due <= self.el0_since or self.el0_since < 0 else 0
        return entry.el if entry.el >= 0 else task.work().el

    def whose(self, due: int, current: Task, tasks: Mapping[int, Task]) -> Task | None:
        """The task that a tick has interrupted which was `due` then: perf's are its program's, or nobody's."""
        for since, until, program in self.perf:
            if since < due <= until:
                return tasks.get(program)
        return current

    def tick(self, task: Task | None, el: int) -> None:
        """account_process_tick; with irqtime a tick that handlers took more than all of charges nothing, and what is
        left over is lost."""
        if self.vtime:
            return
        cycles = self.period
        if self.irqtime:
            cycles = max(0, cycles - self.irqs)
            self.irqs = 0
        if task is None:
            return
        if el:
            task.stime += cycles
        else:
            task.utime += cycles

    def switch(self, previous: Task | None, now: int) -> None:
        """update_curr in __schedule: what the switch takes is the next task's."""
        if self.handler >= 0:
            self.handler_over(now)
        if previous is not None:
            previous.runtime += now - self.since
        self.since = now

    def perf_ran(self, program: Task | None, now: int) -> None:
        """Up to now, that is: `time perf record -- gzip` has its time, too; None: `perf record -a`, for no task."""
        self.perf.append([self.since, now, -1 if program is None else program.id])
        self.switch(program, now)

    def printed(self, tasks: Iterable[Task], current: Task | None, now: int) -> tuple[int, int]:
        """user and sys of all programs, each as wait4 gives it (thread_group_cputime_adjusted)."""
        programs: dict[int, list[Task]] = {}
        for task in tasks:
            programs.setdefault(task.program, []).append(task)
        user = system = 0
        for program in programs.values():
            runtime = sum(task.runtime for task in program)
            if current is not None and current in program:
                runtime += now - self.since
            utime = sum(task.utime for task in program)
            stime = runtime - utime if self.vtime else sum(task.stime for task in program)
            of_program = adjusted(utime, stime, runtime)
            user += of_program[0]
            system += of_program[1]
        return user, system


def adjusted(utime: int, stime: int, runtime: int) -> tuple[int, int]:
    """cputime_adjust: what the scheduler has measured, split as the accounting has it."""
    if not stime:
        return runtime, 0
    system = stime * runtime // (utime + stime)
    return runtime - system, system
