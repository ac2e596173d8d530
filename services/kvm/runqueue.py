"""Which thread runs on a pCPU next: wake, push, balance, slice (what pmulab needs of Linux kernel/sched)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from services._pmu import Machine
from services.cpu import NEVER
from services.kvm.thread import Thread
from services.state import derived, link


@dataclass(slots=True, eq=False)
class RunQueue:
    """`struct rq` of one pCPU."""

    cpu: int = derived()
    machine: Machine = derived()
    slice: int = derived()  # cycles
    threads: list[Thread] = derived()  # every one there is, by id
    queues: list[RunQueue] = derived()  # of all pCPUs
    rearm: Callable[[], int] = derived()  # program the pCPU's timer anew

    online: bool = False
    current: Thread | None = link(default=None)
    waiting: list[Thread] = link(default_factory=list)  # runnable, the next one first; the current one is not in it
    arrivals: list[tuple[int, int]] = field(default_factory=list)  # (time, thread id): kicks, wake-ups, migrations
    sleepers: list[tuple[int, int]] = field(default_factory=list)  # (time, thread id): asleep until then
    slice_end: int = NEVER
    need_resched: bool = False

    @property
    def idle(self) -> bool:
        """Does nothing run here, and is nothing on its way?"""
        return self.online and self.current is None and not self.waiting and not self.arrivals

    def wake(self, thread: Thread) -> None:
        """Make a thread of this pCPU runnable: here, or on an idle one if this one is busy and the thread floats."""
        target = self._idle_queue() if thread.floats and not self.idle else None
        if target is None:
            self._enqueue(thread)
        else:
            self._push(thread, target)

    def balance(self) -> None:
        """Hand threads that wait here and float to idle pCPUs."""
        for thread in list(self.waiting):
            target = self._idle_queue() if thread.floats else None
            if target is not None:
                self.waiting.remove(thread)
                self._push(thread, target)

    def evacuate(self) -> None:
        """The CPU goes offline: its threads, which float, are others' from now on (sched_cpu_dying)."""
        target = self._idle_queue() or next(queue for queue in self.queues if queue.online)
        for thread in self.threads:
            if thread.cpu != self.cpu:
                continue
            if thread in self.waiting:
                self.waiting.remove(thread)
                self._push(thread, target)
            else:
                thread.set_task_cpu(target.cpu)
        for time, number in self.arrivals:
            target.arrive(time, number)
        self.arrivals = []
        target.rearm()

    def arrive(self, time: int, thread: int) -> None:
        """Another pCPU, or a client, has something for a thread of this one at `time`."""
        self.arrivals.append((time, thread))
        self.rearm()

    def kick(self, thread: Thread) -> None:
        """kvm_vcpu_kick, on this pCPU: have a vCPU look at what is pending, wherever it is."""
        if thread.cpu != self.cpu:
            self.queues[thread.cpu].arrive(self.machine.now(self.cpu), thread.id)
        elif thread is self.current:  # if it is blocked, it is about to be switched out: it then waits instead
            thread.unblock()
        elif thread.blocked:
            self.wake(thread)
            self.rearm()

    def sleep(self, until: int, thread: int) -> None:
        """The current thread sleeps."""
        self.sleepers.append((until, thread))
        self.rearm()

    def stay_asleep(self, thread: int) -> None:
        """It is woken by nothing of what was to wake it."""
        self.arrivals = [one for one in self.arrivals if one[1] != thread]
        self.sleepers = [one for one in self.sleepers if one[1] != thread]

    def arrived(self, now: int) -> bool:
        """Wake the threads whose time has come; was an arrival or a sleeper among them?"""
        due = [one for one in (*self.arrivals, *self.sleepers) if one[0] <= now]
        for thread in self.threads:
            if (
                thread.timer_deadline <= now
                and thread.cpu == self.cpu
                and thread.blocked
                and thread is not self.current
            ):
                self.wake(thread)
        if not due:
            return False
        self.arrivals = [one for one in self.arrivals if one[0] > now]
        self.sleepers = [one for one in self.sleepers if one[0] > now]
        for _, number in due:
            thread = self.threads[number]
            if thread.cpu == self.cpu:
                self._enqueue(thread)
        return True

    def next_event(self) -> int:
        """When the first thread that is on its way, asleep or waiting for a timer of its own is due."""
        deadline = NEVER
        for time, _ in self.arrivals:
            deadline = min(deadline, time)
        for time, _ in self.sleepers:
            deadline = min(deadline, time)
        for thread in self.threads:
            if thread.cpu == self.cpu and (thread is self.current or thread.blocked):
                deadline = min(deadline, thread.timer_deadline)
        return deadline

    def new_slice(self) -> None:
        """The current thread may run for a slice if another one waits, as long as it likes otherwise."""
        self.slice_end = self.machine.now(self.cpu) + self.slice if self.waiting else NEVER

    def _enqueue(self, thread: Thread) -> None:
        thread.unblock()
        if thread is not self.current and thread not in self.waiting:
            self.waiting.append(thread)
            if self.current is not None and self.slice_end == NEVER:
                self.new_slice()

    def _push(self, thread: Thread, target: RunQueue) -> None:
        """Migrate a thread that is not running; it arrives no earlier than it left here."""
        thread.set_task_cpu(target.cpu)
        machine = self.machine
        target.arrive(max(machine.now(self.cpu), machine.now(target.cpu)), thread.id)

    def _idle_queue(self) -> RunQueue | None:
        """That of the first idle pCPU."""
        return next((queue for queue in self.queues if queue.idle), None)
