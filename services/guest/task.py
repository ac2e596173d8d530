"""A task of a guest: a program as data with a position, not a coroutine."""

from __future__ import annotations

from dataclasses import dataclass

from services.experiment import PhaseSpec, TaskSpec


@dataclass(slots=True, eq=False)
class Task:
    """One program, from its start to its exit. Times are cycles of the CPU's clock, -1: not yet."""

    id: int
    spec: TaskSpec
    parent: int = -1  # the task that forked it, -1: the shell
    phase: int = 0
    turn: int = 0
    left: int = -1  # cycles left of the phase, -1: not begun
    unread: int = 0  # cycles at EL0 since it has last read its counters there
    repeated: int = 0
    began: int = -1
    ended: int = -1
    asleep_until: int = -1  # -1: awake
    utime: int = 0  # as the kernel accounts it; here in cycles, in all three not yet since it was last switched in
    stime: int = 0
    runtime: int = 0  # sum_exec_runtime
    killed: bool = False  # by a signal, with all of its program
    undefined: int = 0  # ESR_EL1 of its read that the signal was SIGILL for; 0: it made none such

    @property
    def program(self) -> int:
        """The id of the program's first task, which its session observes."""
        return self.id if self.parent < 0 else self.parent

    def work(self) -> PhaseSpec:
        """What it does when it runs, for `left` more cycles."""
        if self.left < 0:
            self.left = self.spec.part(self.phase, self.turn)
        return self.spec.phases[self.phase]

    def stretch(self) -> int:
        """The cycles that it works now: up to the end of the phase, or to where it reads its counters."""
        every = self.spec.read_every
        return min(self.left, every - self.unread) if every and not self.spec.phases[self.phase].el else self.left

    def worked(self, cycles: int) -> None:
        """So much of that has been done."""
        self.left -= cycles
        if self.spec.read_every and not self.spec.phases[self.phase].el:
            self.unread += cycles

    def advance(self, now: int) -> bool:
        """The phase is over: on to the next, to sleep, or to the end; whether there is one more now."""
        self.left = -1
        self.phase += 1
        if self.phase < len(self.spec.phases):
            return True
        self.phase = 0
        self.turn += 1
        if self.turn < self.spec.turns:
            return True
        self.turn = 0
        self.repeated += 1
        if self.repeated >= self.spec.repeat:
            return False
        if self.spec.sleep:
            self.asleep_until = now + self.spec.sleep
            return False
        return True

    def undone(self) -> int:
        """The cycles of its work that are left, those of its forks aside."""
        spec = self.spec
        if self.repeated >= spec.repeat or not spec.phases:
            return 0
        phases = range(len(spec.phases))
        parts = [*((phase, turn) for turn in range(self.turn) for phase in phases)]
        parts += ((phase, self.turn) for phase in phases[: self.phase + (self.left >= 0)])
        done = sum(spec.part(*part) for part in parts) - max(self.left, 0)
        return (spec.repeat - self.repeated) * sum(phase.cycles for phase in spec.phases) - done

    @property
    def fresh(self) -> bool:
        """It has not run yet."""
        return self.left < 0 and self.phase == 0 and self.turn == 0 and self.repeated == 0

    @property
    def over(self) -> bool:
        """All of it has been run, or will never be."""
        return self.killed or self.repeated >= self.spec.repeat or not self.spec.phases
