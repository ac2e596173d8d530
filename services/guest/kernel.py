"""A guest's kernel: boot, tick, scheduler and the PMU's interrupt, around the same perf as the host's."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from services import typed_json
from services.boot import GuestBoot
from services.costs import Cost
from services.cpu import NEVER, Cpu, Entry, EntryKind, Notice, Sgi, Timer
from services.experiment import SessionSpec, TaskSpec
from services.guest.cputime import CpuTime
from services.guest.task import Task
from services.linux_perf import RECORDS_PAGE, Perf, PerfConfig, PerfCpu, RingBuffer, Session
from services.registers import PMUVER_NONE
from services.sigill import reason
from services.state import Objects, Saved, as_frozen, derived, link, restore, save

PMU_IRQ, RESUME = EntryKind.PMU_IRQ, EntryKind.RESUME  # looked up once: these are entered by the million
IRQ_ENTRY = int(Cost.IRQ_ENTRY)


class BadRequest(ValueError):
    """A request that the guest's kernel cannot make sense of."""


class GuestKernel:
    """One VM's kernel, on all its vCPUs."""

    DERIVED = frozenset({"perf", "cpus", "tasks"})  # each has a state of its own, or is part of `state`

    def __init__(self) -> None:
        self.perf: Perf | None = None  # made by the first vCPU's BOOT
        self.cpus: dict[int, GuestCpu] = {}
        self.tasks: dict[int, Task] = {}  # of all vCPUs, by id

    def attend(self, index: int) -> GuestCpu:
        """The software that attends vCPU `index`."""
        cpu = self.cpus.get(index)
        if cpu is None:
            cpu = self.cpus[index] = GuestCpu(self, index)
        return cpu

    def perf_of(self, boot: GuestBoot) -> Perf:
        """What all vCPUs share, made by the first that boots."""
        if self.perf is None:
            guest = boot.guest
            self.perf = Perf(frequency_hz=boot.frequency_hz, hz=guest.hz, costs=boot.costs, sysctls=guest.sysctls)
        return self.perf

    def new_task(self, spec: TaskSpec, began: int, parent: int = -1) -> Task:
        """fork."""
        task = self.tasks[len(self.tasks)] = Task(len(self.tasks), spec, parent=parent, began=began)
        return task

    def state(self) -> Saved:
        """Everything of the guest, as plain data."""
        return {
            "cpus": [[index, cpu.state()] for index, cpu in self.cpus.items()],
            "perf": None if self.perf is None else self.perf.state(),
            "tasks": [save(task) for task in self.tasks.values()],
        }

    def restore(self, saved: Saved) -> None:
        """Take up what `state` gave of a guest with the same vCPUs."""
        for index, of_cpu in saved["cpus"]:
            cpu, boot = self.attend(index), of_cpu["boot"]
            if cpu.boot is None and boot is not None:
                cpu.configure(as_frozen(GuestBoot, boot))
        if saved["perf"] is None:  # no vCPU had booted
            self.perf = None
        known, self.tasks = self.tasks, {}
        for one in saved["tasks"]:
            number = one["id"]
            self.tasks[number] = known.get(number) or Task(number, as_frozen(TaskSpec, one["spec"]))
        of_perf = {} if self.perf is None else self.perf.restore(saved["perf"])
        objects = {**of_perf, Task: self.tasks}
        for one in saved["tasks"]:
            restore(self.tasks[one["id"]], one)
        for index, of_cpu in saved["cpus"]:
            self.cpus[index].restore(of_cpu, objects)


@dataclass(slots=True, eq=False)
class GuestCpu:
    """The guest's kernel on one vCPU (`services.cpu.Software`)."""

    kernel: GuestKernel = derived()
    index: int = derived()
    boot: GuestBoot | None = None
    tick_deadline: int = NEVER  # NEVER: stopped (NO_HZ)
    tasks: list[Task] = link(default_factory=list)
    queue: list[Task] = link(default_factory=list)  # runnable, the next one first; the current one is not in it
    current: Task | None = link(default=None)
    working: bool = True  # as KVM has been told
    handler_began: int = -1  # when the PMU interrupt handler that was the last entry began, in cycles
    cputime: CpuTime = field(default_factory=CpuTime)

    sessions: dict[int, Session] = derived(default_factory=dict)  # by the id of the task that they observe
    cpu_sessions: list[Session] = derived(default_factory=list)  # for as long as the run lasts
    perf: PerfCpu = derived(init=False)  # from the boot on
    costs: dict[Cost, int] = derived(init=False)
    irq_entry: int = derived(default=0)  # of costs
    period: int = derived(default=0)  # of the tick, in cycles

    def enter(self, cpu: Cpu, entry: Entry) -> Coroutine[Any, Any, object] | None:
        """Run the handler of `entry`."""
        if self.handler_began >= 0:
            self.perf.handler_took(self.handler_began, entry.previous_done)
            self.handler_began = -1
        cputime = self.cputime
        if cputime.exact:
            cputime.entered(entry, self.current)
        if entry.kind is not PMU_IRQ:
            task = self.current
            if entry.kind is RESUME and task is not None and not task.spec.read_every and self._next_phase(cpu, task):
                return None
            return self._handle(cpu, entry)
        self._interrupt(cpu)
        self.handler_began = entry.now + self.irq_entry
        return self.perf.handle_irq(cpu)

    async def _handle(self, cpu: Cpu, entry: Entry) -> None:
        match entry.kind:
            case EntryKind.TIMER:
                self._interrupt(cpu)
                await self._timer(cpu, entry)
            case EntryKind.SGI if entry.argument == Sgi.CALL_FUNC:
                self._interrupt(cpu)
                await self.perf.called(cpu)
            case EntryKind.SGI:
                self._interrupt(cpu)
                woken = self.perf.irq_work()
                if woken:
                    await self._leave_handler(cpu, entry)
                    await self._wake_readers(cpu, woken)
            case EntryKind.RESUME:
                if self.current is not None and self.current.spec.read_every:
                    await self._reader_resumed(cpu, self.current)
                else:
                    await self._work_over(cpu)
            case EntryKind.EXCEPTION:
                await self._undefined(cpu, entry.argument)
            case EntryKind.BOOT:
                await self._boot(cpu, entry.now, typed_json.loads(GuestBoot, entry.payload))
            case EntryKind.REQUEST:
                await self._request(cpu, entry, orjson.loads(entry.payload))
            case EntryKind.REPORT:
                await self._report(cpu, entry.now)
            case _:
                raise BadRequest(f"a guest's kernel has no handler for {entry.kind!r}")
        await self.perf.settle(cpu)

    def _charge(self, cpu: Cpu, cost: Cost) -> None:
        cpu.burst.charge(cost, self.costs[cost])

    def _interrupt(self, cpu: Cpu) -> None:
        cpu.burst.charge(IRQ_ENTRY, self.irq_entry)

    # Boot and requests.

    def _booted(self) -> GuestBoot:
        assert self.boot is not None
        return self.boot

    def configure(self, boot: GuestBoot) -> None:
        """What follows from the boot payload."""
        self.boot = boot
        guest = boot.guest
        self.perf = self.kernel.perf_of(boot).add_cpu(
            PerfConfig(
                pmuver=boot.pmuver,
                cpu=self.index,
                group_throttle=guest.group_throttle,
                observed=boot.observed,
                denied=guest.denied,
                mux_interval=guest.mux_interval,
            )
        )
        self.costs = self.perf.shared.costs
        self.irq_entry = self.costs[Cost.IRQ_ENTRY]
        self.period = boot.frequency_hz // guest.hz
        self.cputime.configure(guest.accounting, self.period)

    async def _boot(self, cpu: Cpu, now: int, boot: GuestBoot) -> None:
        self.configure(boot)
        if boot.pmuver not in PMUVER_NONE:
            await self.perf.probe(cpu)
        await self.perf.booted(cpu)
        spec = boot.guest.vcpus[self.index]
        for session in spec.sessions:
            await self._watch_cpu(cpu, session)
        for task in spec.tasks:
            await self._start(cpu, task, now)
        await self._reschedule(cpu)

    async def _watch_cpu(self, cpu: Cpu, spec: SessionSpec) -> None:
        session = Session(spec, None, self.perf)
        self.cpu_sessions.append(session)
        await session.open(cpu)
        if spec.interval:
            self._arm_sleep(cpu)

    async def _start(self, cpu: Cpu, spec: TaskSpec, now: int) -> None:
        """fork, and with a session perf_event_open on the child, which has yet to exec."""
        task = self.kernel.new_task(spec, began=now)
        self.tasks.append(task)
        self._start_tick(cpu)
        if spec.session is not None:
            await self._open(cpu, task, spec.session)
            if self.sessions[task.id].refused:  # evlist__cancel_workload: the child is killed before it execs
                task.ended = await self._now(cpu)
                cpu.burst.notify(Notice.WORK_UNDONE, spec.threads * task.undone())
                return
        self.queue.append(task)

    async def _open(self, cpu: Cpu, task: Task, spec: SessionSpec) -> None:
        """perf opens the events of its child: run time of the program, in whichever task's place it runs."""
        session = Session(spec, None if spec.cpu_wide else task.id, self.perf, on_exec=not spec.cpu_wide)
        self.sessions[task.id] = session
        began = await self._now(cpu)
        await session.open(cpu)
        if spec.interval:
            self._arm_sleep(cpu)
        took = await self._now(cpu) - began
        task.runtime += took
        self.cputime.since += took

    async def _request(self, cpu: Cpu, entry: Entry, request: dict[str, Any]) -> None:
        """A user's task or session, from now on. KVM takes this vCPU to be working until it says otherwise."""
        self.working = True
        self.cputime.works(entry.remaining)
        if set(request) == {"task"}:
            await self._start(cpu, typed_json.read(TaskSpec, request["task"]), entry.now)
        elif set(request) == {"session"}:
            await self._watch_cpu(cpu, typed_json.read(SessionSpec, request["session"]))
        else:
            raise BadRequest(f"a request for a guest holds one key, 'task' or 'session', not {sorted(request)}")
        if self.current is None:
            await self._reschedule(cpu)

    # Timers and IPIs.

    async def _timer(self, cpu: Cpu, entry: Entry) -> None:
        expired = entry.argument
        due: list[Session] = []
        if expired >> Timer.SLEEP & 1:
            self._wake_sleepers(cpu, entry.now)
            due = [session for session in self._sessions() if session.due <= entry.now]
        if expired >> Timer.SWEVENT & 1:
            user = self.current is not None and not self.cputime.found(self.perf.hrtimers_due, entry, self.current)
            await self.perf.hrtimers_expired(cpu, user=user)
        preempt = False
        if expired >> Timer.TICK & 1:
            await self._tick(cpu, entry)
            preempt = bool(self.queue)
        if expired >> Timer.MUX & 1:
            await self.perf.mux_timer(cpu)
        if due:
            await self._leave_handler(cpu, entry)
            await self._print_intervals(cpu, due)
        if self.current is None:
            await self._reschedule(cpu)
        elif preempt:
            self.current.worked(self.current.stretch() - entry.remaining)
            self.queue.append(self.current)
            await self._reschedule(cpu)

    async def _tick(self, cpu: Cpu, entry: Entry) -> None:
        """tick_nohz_handler: account, have perf adjust, go on. A tick that comes late counts once."""
        self._charge(cpu, Cost.TICK)
        current = self.current
        if current is not None:
            el = self.cputime.found(self.tick_deadline, entry, current)
            self.cputime.tick(self.cputime.whose(self.tick_deadline, current, self.kernel.tasks), el)
        missed = max(0, entry.now - self.tick_deadline) // self.period
        self.tick_deadline += (missed + 1) * self.period
        cpu.burst.timer(Timer.TICK, self.tick_deadline)
        await self.perf.tick(cpu)

    def _wake_sleepers(self, cpu: Cpu, now: int) -> None:
        for task in self.tasks:
            if 0 <= task.asleep_until <= now:
                task.asleep_until = -1
                self.queue.append(task)
        self._arm_sleep(cpu)

    def _arm_sleep(self, cpu: Cpu) -> None:
        asleep = (task.asleep_until for task in self.tasks if task.asleep_until >= 0)
        cpu.burst.timer(Timer.SLEEP, min((*asleep, *(session.due for session in self._sessions())), default=NEVER))

    def _sessions(self) -> tuple[Session, ...]:
        return (*self.sessions.values(), *self.cpu_sessions)

    async def _print_intervals(self, cpu: Cpu, due: Iterable[Session]) -> None:
        """perf stat -I wakes in place of the current task, reads and sleeps again. That it prints is not modelled."""
        task = self.current
        self.cputime.switch(task, await self._now(cpu))
        self._charge(cpu, Cost.CONTEXT_SWITCH)
        if task is not None:
            await self.perf.task_out(cpu, task.id)
        for session in due:
            await session.print_interval(cpu)
            self.cputime.perf_ran(self._observed(session), await self._now(cpu))
        self._arm_sleep(cpu)
        self._charge(cpu, Cost.CONTEXT_SWITCH)
        if task is not None:
            await self.perf.task_in(cpu, task.id, from_idle=True)  # from perf, as little known to it as its reader

    def _observed(self, session: Session | None) -> Task | None:
        """The program that perf has started for the session; None, of a CPU: it has started none."""
        return next((task for task in self.tasks if self.sessions.get(task.id) is session), None)

    async def _wake_readers(self, cpu: Cpu, woken: list[RingBuffer]) -> None:
        """The readers of ring buffers run in the current task's place, until there is nothing new, and sleep again."""
        task = self.current
        self.cputime.switch(task, await self._now(cpu))
        if task is not None:
            await self.perf.task_out(cpu, task.id)
        for rb in woken:
            self._charge(cpu, Cost.CONTEXT_SWITCH)
            self._charge(cpu, Cost.PERF_READER)
            for _ in range(0, rb.read(), RECORDS_PAGE):
                self._charge(cpu, Cost.PERF_READER_PAGE)
            rb.read()
            self._charge(cpu, Cost.PERF_READER)
            session = next((one for one in self._sessions() if one.buffer is rb), None)
            self.cputime.perf_ran(self._observed(session), await self._now(cpu))
        self._charge(cpu, Cost.CONTEXT_SWITCH)
        if task is not None:
            await self.perf.task_in(cpu, task.id, from_idle=True)  # from the reader, as little known to perf

    # The scheduler.

    def _next_phase(self, cpu: Cpu, task: Task) -> bool:
        """The current task's COMPUTE has come to its end: on to its next phase, if it has one now."""
        if not task.advance(cpu.now):
            return False
        self._run(cpu, task)
        return True

    async def _reader_resumed(self, cpu: Cpu, task: Task) -> None:
        """Likewise that of a task that reads its counters: on to the next stretch, or the next phase."""
        task.worked(task.stretch())
        if task.left or task.advance(cpu.now):
            await self._run_reader(cpu, task)
        else:
            await self._work_over(cpu)

    async def _work_over(self, cpu: Cpu) -> None:
        """It has none, or there is no current task."""
        task = self.current
        if task is not None and task.over:
            await self._exit(cpu, task)
        elif task is not None:
            self._arm_sleep(cpu)
        await self._reschedule(cpu)

    async def _undefined(self, cpu: Cpu, esr: int) -> None:
        """do_el0_undef: SIGILL. On its way back the task exits (do_group_exit), the others of its program when they run
        next."""
        task = self.current
        if task is None:
            raise BadRequest(f"an exception from EL0, ESR {esr:#x}, but no task is current")
        task.undefined = esr
        for one in self.tasks:
            if one.program == task.program and one.ended < 0:
                one.killed = True
                cpu.burst.notify(Notice.WORK_UNDONE, one.undone())
                if one.asleep_until >= 0:
                    one.asleep_until = -1
                    self.queue.append(one)
        self._arm_sleep(cpu)
        await self._exit(cpu, task)
        await self._reschedule(cpu)

    async def _exit(self, cpu: Cpu, task: Task) -> None:
        """exit and, with a program's last task, the session's end: perf disables, reads and closes its events."""
        await self.perf.task_exit(cpu, task.id)
        task.ended = await self._now(cpu)
        session = self.sessions.get(task.program)
        if session is not None and all(one.ended >= 0 for one in self.tasks if one.program == task.program):
            await session.close(cpu)
            if session.spec.interval:
                self._arm_sleep(cpu)
            task.ended = await self._now(cpu)

    async def _leave_handler(self, cpu: Cpu, entry: Entry) -> None:
        """From here on an entry runs in process context, after which the work goes on that it has interrupted."""
        self.cputime.works(entry.remaining)
        if self.cputime.handler >= 0:
            self.cputime.handler_over(await self._now(cpu))

    async def _now(self, cpu: Cpu) -> int:
        await self.perf.wait(cpu)
        return cpu.now

    async def _reschedule(self, cpu: Cpu) -> None:
        """__schedule: the next task of the queue in place of the current one."""
        previous, following = self.current, self.queue.pop(0) if self.queue else None
        if previous is not None or following is not None:
            self.cputime.switch(previous, await self._now(cpu))
            self._charge(cpu, Cost.CONTEXT_SWITCH)
        if previous is not None:
            await self.perf.task_out(cpu, previous.id, None if following is None else following.id)
        self.current = following
        if following is None:
            self._idle(cpu)
        else:
            await self._switch_to(cpu, following, from_idle=previous is None)

    def _idle(self, cpu: Cpu) -> None:
        """tick_nohz_idle_stop_tick, and wait for an interrupt."""
        if self.tick_deadline != NEVER:
            self.tick_deadline = NEVER
            cpu.burst.timer(Timer.TICK, NEVER)
        working = any(task.ended < 0 for task in self.tasks)
        if working is not self.working:
            self.working = working
            cpu.burst.notify(Notice.WORK_BEGUN if working else Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    def _start_tick(self, cpu: Cpu) -> None:
        """tick_nohz_idle_exit, if the CPU was idle: ticks are at whole periods since the boot."""
        if self.tick_deadline == NEVER:
            self.tick_deadline = (cpu.now // self.period + 1) * self.period
            cpu.burst.timer(Timer.TICK, self.tick_deadline)

    async def _switch_to(self, cpu: Cpu, task: Task, *, from_idle: bool) -> None:
        if not self.working:
            self.working = True
            cpu.burst.notify(Notice.WORK_BEGUN, 0)
        self._start_tick(cpu)
        fresh = task.fresh
        await self.perf.task_in(cpu, task.id, from_idle=from_idle)
        if fresh and task.parent < 0:
            await self.perf.enable_on_exec(cpu)
            self._fork(cpu, task)
        if task.over:  # a program without work
            await self._exit(cpu, task)
            await self._reschedule(cpu)
        elif not task.left:
            if task.spec.read_every:
                await self._reader_resumed(cpu, task)
            elif not self._next_phase(cpu, task):
                await self._work_over(cpu)
        elif task.spec.read_every:
            await self._run_reader(cpu, task)
        else:
            self._run(cpu, task)

    def _fork(self, cpu: Cpu, parent: Task) -> None:
        """The program's other tasks, which inherit its events."""
        for _ in range(parent.spec.threads - 1):
            child = self.kernel.new_task(parent.spec, began=cpu.now, parent=parent.id)
            self.tasks.append(child)
            self.perf.fork(cpu, parent.id, child.id)
            self.queue.append(child)

    def _run(self, cpu: Cpu, task: Task) -> None:
        phase = task.work()
        self.cputime.works(task.left)
        cpu.burst.compute(phase.profile, phase.el, task.left)

    async def _run_reader(self, cpu: Cpu, task: Task) -> None:
        """The same of one that reads its counters at EL0, up to where it does so next."""
        phase = task.work()
        since = -1
        if task.unread == task.spec.read_every and not phase.el:
            since = await self._read_at_el0(cpu, task)
        left = task.stretch()
        self.cputime.works(left, since)
        cpu.burst.compute(phase.profile, phase.el, left)

    async def _read_at_el0(self, cpu: Cpu, task: Task) -> int:
        """perf_mmap__read_self: the program reads those of its session's counters that their pages let it. When it has
        begun, or -1 if it reads none."""
        task.unread = 0
        session = None if task.parent >= 0 else self.sessions.get(task.id)
        registers = [] if session is None else session.user_readable()
        since = await self._now(cpu) if registers else -1
        for register in registers:
            cpu.burst.user_mrs(register)
        return since

    # Results.

    async def _report(self, cpu: Cpu, now: int) -> None:
        ends = [now if task.ended < 0 else task.ended for task in self.tasks]
        user, system = self.cputime.printed(self.tasks, self.current, now)
        killed = [
            {"task": task.spec.name, "session": task.spec.session_name, "reason": reason(task.undefined)}
            for task in self.tasks
            if task.undefined
        ]
        cpu.answer(
            orjson.dumps(
                {
                    "name": self._booted().guest.name,
                    "vcpu": self.index,
                    "elapsed": max(ends, default=0) - min((task.began for task in self.tasks), default=0),
                    "user": user,
                    "system": system,
                    "tasks": [
                        {"name": task.spec.name, "elapsed": end - task.began, "done": task.ended >= 0}
                        for task, end in zip(self.tasks, ends, strict=True)
                    ],
                    "sessions": [await session.report(cpu) for session in self._sessions()],
                    "max_samples_per_tick": self.perf.shared.limits.max_samples_per_tick,
                    **({"killed": killed} if killed else {}),
                }
            )
        )

    # State.

    def state(self) -> Saved:
        """Everything of this vCPU's software that is not perf's own."""
        return {
            **save(self),
            "sessions": [[task, save(session)] for task, session in self.sessions.items()],
            "cpu_sessions": [save(session) for session in self.cpu_sessions],
        }

    def restore(self, saved: Saved, objects: Objects) -> None:
        """Take up what `state` gave; `objects` has the kernel's tasks and the events of its perf."""
        restore(self, saved, objects)
        self.sessions = {task: Session.restored(self.perf, one, objects) for task, one in saved["sessions"]}
        self.cpu_sessions = [Session.restored(self.perf, one, objects) for one in saved["cpu_sessions"]]
