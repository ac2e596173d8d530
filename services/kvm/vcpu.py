"""A vCPU: its thread on the host, the run loop around it, and the virtual interrupts of its guest."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from services import state
from services._pmu import (
    COMPUTE_EL_SHIFT,
    CPUTIME_HOST_KERNEL,
    NOTE_INJECT_UNDEF,
    NOTE_LIVELOCK,
    NOTE_VCPU_BLOCKS,
    NOTE_VCPU_IS_PUT,
    NOTE_VCPU_LOAD,
    NOTE_VCPU_LOADED,
    NOTE_VCPU_PUT,
    NOTE_VCPU_WAKES,
    OP_COMPUTE,
    OP_DONE,
    OP_HVC,
    OP_IPI,
    OP_NOTIFY,
    OP_TIMER,
    OP_WFI,
    OP_WINDOW,
    Burst,
    Stop,
)
from services.costs import Cost
from services.cpu import NEVER, Entry, EntryKind, Eventual, Notice, Sgi, Timer, TookException, at_once, awaited, begun
from services.executor import Due, Work, executor_of
from services.experiment import CpuSpec
from services.kvm import reports
from services.kvm.attendant import Attendant
from services.kvm.bill import Account
from services.kvm.board import Board
from services.kvm.errors import InjectUndef, Livelock, ProtocolError, RetryAccess, SimulationError
from services.kvm.guest_pmu import GuestPmu
from services.kvm.halt_poll import HaltPoll
from services.kvm.irqs import Irqs
from services.kvm.latency import Latencies
from services.kvm.pcpu import IRQ_STORM, WINDOWS, PCpu
from services.kvm.preemption import Preempted
from services.kvm.vgic import Vgic
from services.kvm.vpmu import Design, Vpmu
from services.kvm.without_pmu import WithoutPmu
from services.registers import ICC_SGI1R_EL1

ESR_UNKNOWN = 1 << 25  # EC 0 (unknown reason), IL: what an UNDEFINED access takes to EL1
COMPUTE_PROFILE = (1 << COMPUTE_EL_SHIFT) - 1
PMU_IRQ = EntryKind.PMU_IRQ
# An enum's member is looked up each time.
MASKED, ON, OFF = Irqs.MASKED, Irqs.ON, Irqs.OFF
VIRQ_INJECT = Cost.VIRQ_INJECT
EXIT_FULL_NULL, EXIT_FULL_SYSREG = int(Cost.EXIT_FULL_NULL), int(Cost.EXIT_FULL_SYSREG)


@dataclass(slots=True, eq=False)
class VCpuState:
    """What a vCPU has to keep between two interactions."""

    cpu: int  # the pCPU that it is on
    pmu: GuestPmu
    vpmu: Vpmu = field(init=False)
    booted: bool = False
    ran: bool = False  # KVM_RUN has been called
    working: bool = True
    blocked: bool = False
    wfi: bool = False
    entered: bool = False  # its guest has the PMU, under a design that is `at_entry`
    reload_due: bool = True  # KVM_REQ_RELOAD_PMU
    resync_due: bool = False  # KVM_REQ_RESYNC_PMU_EL0
    halt: HaltPoll = field(init=False)
    fruitless: int = 0  # handlers in a row: since it last did work, halted, or opened the window that it is in
    compute: tuple[int, int, int] | None = None  # profile, exception level, cycles left
    undefined: int = 0  # ESR_EL1 of an exception that a program's read has taken and its kernel is yet to see; 0: none
    vgic: Vgic = field(default_factory=Vgic)
    requests: list[bytes] = field(default_factory=list)  # of live clients
    report_due: bool = False
    report: dict[str, Any] = field(default_factory=dict)  # the last one
    previous_done: int = 0
    load_times: Latencies = field(default_factory=Latencies)
    put_times: Latencies = field(default_factory=Latencies)
    computed: int = 0  # cycles of its tasks' work done
    undone: int = 0  # and of what will not be, as a task was killed
    irq_bursts: int = 0  # of its guest's bursts, those in its PMU interrupt handler
    swap_bursts: int = 0  # of the host's perf, for its loads and puts and what is switched with them


class VCpu(VCpuState):
    """One vCPU of the VM number `vm`. Between entries of its guest all of it is data."""

    DERIVED: ClassVar[tuple[str, ...]] = (
        "id",
        "vm",
        "index",
        "name",
        "floats",
        "board",
        "machine",
        "executor",  # of its guest's bursts
        "context",
        "profile",
        "traps_wfi",
        "boot",
        "guest",
        "pcpus",
        "siblings",
        "preempted",
        "pcpu",
        "fast_path",  # its vPMU's, on that pCPU
        "status_on_cpu",  # its design's
        "at_entry",
        "forwarded_irq",
        "serve_interrupts",  # on that pCPU, behind what an exit begins with
        # For the pCPU that it is on: kernel-counter operations (`PCpu.call`), and calls of the machine: the ways out
        # and in.
        "call",
        "exit_irq",
        "exit_irq_on",
        "trap_null",
        "trap_sysreg",
        "enter_null",
        "enter_el1",
        # Within one interaction only.
        "windows",  # open within one another
        "irqs",  # which interrupts are taken between two of KVM's own operations
        "preemptible",  # is preemption on in KVM's own steps?
        "syncing",  # what is left of its sync, at an exit, if a pseudo-NMI has come amid it
        "running",  # kvm_running_vcpu: not from the switch to its thread up to kvm_sched_in
    )
    __slots__ = DERIVED

    def __init__(
        self,
        board: Board,
        design: Design,
        thread_id: int,
        vm: int,
        index: int,
        cpu: int,
        *,
        pcpus: list[PCpu],
        siblings: list[VCpu],
        boot: bytes,
    ) -> None:
        experiment = board.experiment
        spec = experiment.guests[vm]
        counters = design.nr_counters(spec.allowed(experiment.cpus), spec.counters)
        super().__init__(cpu, GuestPmu(counters, spec.pmuver, list(spec.denied)))
        if design.resets_unknown:
            self.pmu.reset()
        self.id = thread_id
        self.vm = vm
        self.index = index
        self.name = spec.name
        self.floats = spec.vcpus[index].pcpu < 0
        self.board = board
        self.machine = board.machine
        self.context = board.machine.add_context(True)
        self.executor = executor_of(self, board.machine, self.context, cpu, interruptible=True)
        self.profile = experiment.guest_kernel_profile
        self.traps_wfi = experiment.traps_wfi
        self.halt = HaltPoll.of(experiment.halt_poll, experiment.frequency_hz)
        self.boot = boot  # the payload of its BOOT entry
        self.guest: Attendant | None = None
        self.windows = 0
        self.irqs = ON
        self.preemptible = True
        self.syncing: Eventual[None] = None
        self.running = True
        self.preempted = Preempted()
        self.pcpus = pcpus
        self.siblings = siblings  # the vCPUs of the same VM, this one too
        self.status_on_cpu = design.status_on_cpu and spec.pmuver != 0
        self.at_entry = design.at_entry and spec.pmuver != 0
        self.forwarded_irq = pcpus[cpu].policy.forwarded_irq
        self.set_task_cpu(cpu)
        self.vpmu = design.vpmu(self) if spec.pmuver else WithoutPmu(design, self)
        self.fast_path = self.vpmu.fast_path

    # What the host's scheduler sees.

    def runnable(self) -> bool:
        return not self.blocked

    @property
    def timer_deadline(self) -> int:
        return self.vgic.timer_deadline

    @property
    def traps(self) -> dict[int, int]:
        """How often its guest's accesses have trapped, by register << 1 | is it a write."""
        return self.machine.traps(self.context)

    def unblock(self) -> None:
        if self.blocked:
            self.blocked = False
            self._note(NOTE_VCPU_WAKES)

    def set_task_cpu(self, cpu: int) -> None:
        """Move it, while it does not run, to another pCPU."""
        machine, pcpu = self.machine, self.pcpus[cpu]
        self.cpu = cpu
        self.executor.set_task_cpu(cpu)
        self.pcpu, self.call = pcpu, pcpu.call
        self.serve_interrupts: Callable[[int], Coroutine[Any, Any, None]] = pcpu.serve_interrupts
        host, (null_out, null, null_into) = (cpu, pcpu.context, pcpu.profile), pcpu.exit_null
        sysreg_out, sysreg, sysreg_into = pcpu.exit_sysreg
        self.exit_irq: Callable[[], bool] = partial(machine.exit_guest, *host, EXIT_FULL_NULL, null_out)
        self.exit_irq_on = partial(machine.guest_timing_exit, cpu, EXIT_FULL_NULL, null)
        self.trap_null: Callable[[], bool] = partial(machine.trap_guest, *host, EXIT_FULL_NULL, (null_out, null))
        trap_sysreg = partial(machine.trap_guest, *host, EXIT_FULL_SYSREG, (sysreg_out, sysreg))
        self.trap_sysreg: Callable[[], bool] = trap_sysreg
        if self.status_on_cpu:
            self.exit_irq, self.trap_null, self.trap_sysreg = map(
                self._synced, (self.exit_irq, self.trap_null, self.trap_sysreg)
            )
            if pcpu.pseudo_nmi:
                self.serve_interrupts = self._serve_synced
        if self.at_entry:
            self.serve_interrupts = self._left
            self.exit_irq, self.trap_null, self.trap_sysreg = map(
                _behind, (self.exit_irq, self.trap_null, self.trap_sysreg)
            )
        self.enter_null = partial(machine.guest_timing_enter, cpu, EXIT_FULL_NULL, null_into)
        self.enter_el1 = partial(machine.enter_guest, cpu, self.context, self.profile, EXIT_FULL_SYSREG, sysreg_into)

    def _synced(self, leave: Callable[[], bool]) -> Callable[[], bool]:
        """A way out of the guest, with kvm_pmu_sync_hwstate behind it."""
        off = OFF if self.pcpu.pseudo_nmi else MASKED

        def synced() -> bool:
            pending = leave()
            irqs, preemptible = self.irqs, self.preemptible
            self.irqs, self.preemptible = off, False
            sync = self._update_pmu()
            self.irqs, self.preemptible = irqs, preemptible
            if sync is None:
                return pending
            self.syncing = sync
            return True

        return synced

    async def _serve_synced(self, el: int) -> None:
        """What an exit begins with where a pseudo-NMI may come amid its sync; then what is pending."""
        await self._sync()
        if self.machine.pending_interrupt(self.cpu):
            await self.pcpu.serve_interrupts(el)

    async def _sync(self) -> None:
        """The rest of a kvm_pmu_sync_hwstate that a pseudo-NMI has come amid, if there is any."""
        if self.syncing is not None:
            before = self.preemptible, self.local_irq_save()
            self.preemptible = False
            await self.syncing
            self.syncing = None
            self.preemptible, self.irqs = before

    async def _left(self, el: int) -> None:
        """What an exit begins with where the PMU has been the guest's up to it; then what is pending."""
        await self._leave()
        if self.machine.pending_interrupt(self.cpu):
            await self.pcpu.serve_interrupts(el)

    async def _leave(self) -> None:
        machine = self.machine
        if machine.interrupt(self.cpu):  # its guest's, on a vector of its own; the flags go into memory
            self.vgic.overflow(machine.raised(self.cpu))
            self.pcpu.charge(Cost.IRQ_ENTRY)
        self.entered = False
        await self.vpmu.leave()

    async def _give_pmu(self) -> None:
        self.entered = True
        await self.vpmu.enter()

    async def leave_guest(self) -> None:
        """It has been entered, and is preempted at once."""
        if self.entered:
            await self._leave()

    async def switched_in(self) -> None:
        """KVM's sched_in notifier: vcpu_load, and back into the guest. Interrupts are on since finish_lock_switch."""
        self.ran = True
        self.irqs, self.preemptible = ON, False
        if self.machine.pending_interrupt(self.cpu):
            self.running = False
            await self._take_interrupts()
            self.running = True
        self._note(NOTE_VCPU_LOAD)
        began = self.pcpu.now
        before = self.pcpu.perf_bursts
        self.machine.set_account(self.cpu, Account.SWAP)
        await awaited(self.vpmu.activate_traps())
        if self.vpmu.el0_switched():
            await awaited(self.vpmu.restore_el0(guest=True))
        self.machine.set_account(self.cpu, Account.SWAP)
        await self.vpmu.load()
        self.fast_path = self.vpmu.fast_path
        if self.machine.pending_interrupt(self.cpu):
            await self._take_interrupts()
        self.load_times.add(began, self.pcpu.now)
        self.swap_bursts += self.pcpu.perf_bursts - before
        self._note(NOTE_VCPU_LOADED)
        self.machine.set_account(self.cpu, Account.TRAP)
        if self.preempted.work is None:
            await self._scheduled()
        self.preemptible = True

    async def _scheduled(self) -> None:
        """Back into the guest, of which it was out when it was switched out."""
        self.halt.end(self.pcpu.now)
        if self.reload_due and not self._need_resched():
            self.reload_due = False
            await awaited(self.vpmu.reload())
        await self._prepare_entry()
        self.machine.guest_timing_enter(self.cpu, EXIT_FULL_NULL, 0)  # that exit has been charged when it was

    async def picked_again(self) -> None:
        """What has been left for after schedule() is not left to a load, then."""
        if (self.resync_due or self.reload_due) and self.preempted.work is None and self.halt.until < 0:
            self.machine.set_cputime(self.cpu, CPUTIME_HOST_KERNEL)
            self.pcpu.enter_kernel()
            await self.leave_guest()
            await self._scheduled()

    async def switched_out(self) -> None:
        """KVM's sched_out notifier: vcpu_put, with interrupts off."""
        self.preemptible = False
        self.local_irq_save()
        self._note(NOTE_VCPU_PUT)
        began, before = self.pcpu.now, self.pcpu.perf_bursts
        self.machine.set_account(self.cpu, Account.SWAP)
        await awaited(self.vpmu.deactivate_traps())
        if self.vpmu.el0_switched():
            await awaited(self.vpmu.restore_el0(guest=False))
        self.machine.set_account(self.cpu, Account.SWAP)
        await self.vpmu.put()
        self.put_times.add(began, self.pcpu.now)
        self.swap_bursts += self.pcpu.perf_bursts - before
        self._note(NOTE_VCPU_IS_PUT)
        self.irqs, self.preemptible = ON, True

    def _note(self, code: int) -> None:
        """For whoever observes the machine."""
        self.machine.note(self.cpu, code, self.context, 0)

    def next_interaction(self) -> int:
        """The time of what happens next on this vCPU, while it is the current thread."""
        machine, cpu = self.machine, self.cpu
        if self.preempted.work is not None:
            return machine.now(cpu)
        if self.halt.until >= 0:
            machine.set_running(cpu, self.pcpu.context, 2, self.pcpu.profile)
            return machine.next_stop(cpu, self.halt.until - machine.now(cpu))
        if self._pending() or not self._occupied():
            return machine.now(cpu)
        if self.compute is None:
            if self.traps_wfi:
                return machine.now(cpu)
            machine.set_running(cpu, self.context, 1, self.profile)
            return machine.idle_stop(cpu, self.pcpu.rearm())
        profile, el, left = self.compute
        machine.set_running(cpu, self.context, el, profile)
        return machine.next_stop(cpu, left)

    def comes_to(self, cpu: int) -> bool:
        return cpu == self.cpu

    def kill(self) -> None:
        raise ProtocolError(f"thread {self.id} is a vCPU's: it cannot be killed")

    def sigill(self, esr: int) -> None:
        raise ProtocolError(f"thread {self.id} is a vCPU's: it reads no counter at EL0")

    def counter_overflow(self, counter: int, raised: int) -> None:
        """A kernel counter that backs counter `counter` overflowed, at `raised`. Raises ProtocolError."""
        self.vpmu.counter_overflow(counter)
        self.vgic.overflow(raised)

    def resync_el0(self) -> None:
        if self.running:
            self.resync_due = True

    def guest_overflow(self, mask: int, raised: int) -> bool:
        """The host's handler found overflow flags in the guests' range, of `raised`; or, with fixed flags, none."""
        if not self.running:
            return False
        irqs, self.irqs = self.irqs, MASKED
        at_once(self.vpmu.guest_overflow(mask))
        self.irqs = irqs
        if mask:
            self.vgic.overflow(raised)
        return True

    def pmu_interrupt(self, raised: int) -> None:
        if self.vpmu.pmu_interrupt():
            self.vgic.overflow(raised)

    def step(self) -> Coroutine[Any, Any, object] | None:
        """One interaction: one handler of the guest, or its work up to an interrupt."""
        vgic = self.vgic
        if self.preempted.work is not None:
            self.board.preempted -= 1
            return self.preempted.resume()
        if self.halt.until >= 0:
            return self._poll()
        if not self.booted:
            self.booted = True
            return self._enter(EntryKind.BOOT, payload=self.boot)
        if self.undefined:
            return self._undefined()
        if vgic.sgis:
            return self._enter(EntryKind.SGI, vgic.take_sgi())
        if vgic.line:
            return self._interrupt()
        if vgic.expired:
            return self._enter(EntryKind.TIMER, vgic.take_timers())
        if self.requests:
            return self._enter(EntryKind.REQUEST, payload=self.requests.pop(0))
        if self.report_due:
            return self._report()
        if self.compute is not None:
            return self._run(*self.compute)
        if self.wfi:
            return self._halt() if self.traps_wfi else self._wait_for_interrupt()
        return self._resume()

    async def _undefined(self) -> None:
        """The guest's kernel takes the exception of its program: no interrupt comes before it."""
        esr, self.undefined = self.undefined, 0
        await self._enter(EntryKind.EXCEPTION, esr)

    async def _resume(self) -> None:
        await self._enter(EntryKind.RESUME)
        if not (self._occupied() or self.undefined):
            assert self.guest is not None
            raise self.guest.refuse(self._who(), "it was resumed and posted neither COMPUTE nor WFI")

    def without_report(self) -> None:
        """Its guest will never report: what is known is the time."""
        self.report_due, self.report = False, {"elapsed": self.machine.now(self.cpu), "user": 0, "system": 0}

    def want_report(self) -> None:
        """Have the guest report its results at its next entry, waking it for that."""
        self.report_due = True
        if self.blocked:
            self.pcpu.rq.wake(self)

    def _pending(self) -> bool:
        return not self.booted or self.vgic.pending or bool(self.requests or self.report_due)

    def _occupied(self) -> bool:
        return self.wfi or self.compute is not None

    def _who(self) -> str:
        return f"{self.name} on vCPU {self.index}"

    # What its vPMU asks of it (`services.kvm.vpmu.KvmVcpu`).

    @property
    def spec(self) -> CpuSpec:
        """The features of the pCPU that it is on."""
        return self.pcpu.spec

    @property
    def arm_pmu(self) -> int:
        """Which of the host's PMUs covers that pCPU."""
        return self.pcpu.arm_pmu

    @property
    def host_has_events(self) -> bool:
        """Does the host's perf have events of its own on that pCPU?"""
        return self.pcpu.host_has_events

    @property
    def host_userenr(self) -> int:
        """PMUSERENR_EL0 as the host's driver wants it there."""
        return self.pcpu.host_userenr

    def kvm(self, burst: Burst, again: Callable[[], Burst] | None = None) -> Eventual[list[int]]:
        """Execute KVM's own accesses, at EL2; the values read. Interrupts are taken between two of them as `irqs` has
        it."""
        stop = self.machine.execute(self.cpu, burst, 0, self.irqs)
        return self._interrupted_kvm(burst, stop, again) if type(stop) is Stop else burst.values()

    async def _interrupted_kvm(self, burst: Burst, stop: int | Stop, again: Callable[[], Burst] | None) -> list[int]:
        while isinstance(stop, Stop):
            index = stop.index
            if stop.reason == Stop.INTERRUPT:
                await self._take_interrupts()
                if self._to_be_preempted():
                    await self._preempt()
                    if again is not None:
                        burst = again()
            else:
                index = self.pcpu.oops(burst, stop)
            stop = self.machine.execute(self.cpu, burst, index, self.irqs)
        return burst.values()

    async def read(self, register: int) -> int:
        """Execute one MRS of KVM's own, at EL2."""
        if self.irqs is not MASKED and self._interrupt_pending():
            await self._served()
        return self.machine.read(self.cpu, register)

    async def write(self, register: int, value: int) -> None:
        """Execute one MSR of KVM's own, at EL2."""
        if self.irqs is not MASKED and self._interrupt_pending():
            await self._served()
        self.machine.write(self.cpu, register, value)

    def peek(self, register: int) -> int:
        return self.machine.peek(self.cpu, register)

    async def charge(self, cost: Cost) -> None:
        """Software time of KVM's own."""
        self.pcpu.charge(cost)
        if self._interrupt_pending():
            await self._served()

    def local_irq_save(self) -> Irqs:
        """From here on interrupts are off, as the host masks them; which were on before."""
        irqs, self.irqs = self.irqs, OFF if self.pcpu.pseudo_nmi else MASKED
        return irqs

    def _interrupt_pending(self) -> bool:
        """Is there one to be taken before KVM's next operation?"""
        if self.irqs is ON:
            return self.machine.pending_interrupt(self.cpu)
        return self.irqs is OFF and self.machine.interrupt(self.cpu)

    async def _served(self) -> None:
        """And preempted, if what has been taken asks for it."""
        await self._take_interrupts()
        if self._to_be_preempted():
            await self._preempt()

    def _to_be_preempted(self) -> bool:
        return self.preemptible and self._need_resched()

    def _need_resched(self) -> bool:
        return self.pcpu.rq.need_resched or self.pcpu.going

    async def _preempt(self) -> None:
        """preempt_schedule_irq: it is put, and goes on when it has been loaded, perhaps on another pCPU."""
        account, irqs = self.machine.set_account(self.cpu, Account.KERNEL), self.irqs
        self.board.preempted += 1
        await self.preempted.here()
        self.irqs = irqs
        self.machine.set_account(self.cpu, account)

    async def _take_interrupts(self) -> None:
        """Within KVM's own steps: what is pending, as `irqs` has it."""
        pcpu = self.pcpu
        if self.irqs is OFF:
            await pcpu.nmi()
            return
        await pcpu.serve_interrupts(2)
        if self.vgic.timer_deadline <= pcpu.now:  # kvm_arch_timer_handler
            self._flush_timers()

    def kvm_irqs_off(self, burst: Burst) -> list[int]:
        """Likewise, with all interrupts masked: nothing is taken between them."""
        return self.pcpu.kvm(burst)

    def set_account(self, account: Account) -> int:
        """The account to which the host's cycles are charged from now on; the one before."""
        return self.machine.set_account(self.cpu, account)

    def deactivate_interrupt(self) -> None:
        """Deactivate the PMU's interrupt on that pCPU, if it is active there."""
        if self.machine.deactivate(self.cpu):
            self.pcpu.charge(Cost.MSR)

    def kick(self) -> None:
        """kvm_vcpu_kick by the PMU's interrupt on the pCPU that it is on: if that is an NMI, by irq_work."""
        if self.pcpu.pseudo_nmi:
            self.pcpu.queue_overflow_work(self.id)
        else:
            self.pcpu.rq.kick(self)

    # In and out of the guest.

    async def _enter(self, kind: EntryKind, argument: int = 0, payload: bytes = b"") -> bytes:
        assert self.guest is not None
        machine, cpu = self.machine, self.cpu
        now = machine.mark(cpu, 16 + kind, argument, self.id)
        el, left = (-1, 0) if self.compute is None else self.compute[1:]
        self.fruitless += 1
        if self.fruitless > IRQ_STORM:
            raise self._livelock()
        machine.set_running(cpu, self.context, 1, self.profile)
        entry = Entry(kind, now, argument, el, left, self.previous_done, (), payload)
        try:
            answer = self.guest.enter(self.executor, entry)
            if not isinstance(answer, bytes):
                answer = await answer
        except TookException as exc:
            raise SimulationError(f"{self._who()}: {exc}, and its handler has ended") from None
        self.previous_done = machine.now(self.cpu)
        return answer

    def _livelock(self) -> Livelock:
        what = f"{self._who()}: {IRQ_STORM:,} handlers in a row and no work done: interrupts take all (I12)"
        return self.pcpu.livelock(NOTE_LIVELOCK, self.context, 0, what)

    async def _interrupt(self) -> None:
        """The guest's PMU interrupt handler."""
        vgic = self.vgic
        vgic.handler_entered(self.machine.now(self.cpu))
        before = self.executor.bursts
        await self._enter(PMU_IRQ)
        self.irq_bursts += self.executor.bursts - before
        if vgic.line:  # the EOI of a level that KVM still holds high: a maintenance interrupt has KVM look again
            self.vpmu.eoi()
            await self._interrupted(1, amid=self.windows > 0)

    async def _report(self) -> None:
        self.report_due = False
        answer = await self._enter(EntryKind.REPORT)
        try:
            self.report = reports.of_guest(answer)
        except ValueError as exc:
            assert self.guest is not None
            raise self.guest.refuse(self._who(), str(exc)) from None

    def _run(self, profile: int, el: int, left: int, *, amid: bool = False) -> Coroutine[Any, Any, None] | None:
        done, _, pending = self.machine.work(self.cpu, self.context, el, profile, left)
        if done:
            left -= done
            self.computed += done
            self.fruitless = 0
            self.compute = (profile, el, left) if left else None
        else:
            self.fruitless += 1
            if self.fruitless > IRQ_STORM:
                raise self._livelock()
        return self._interrupted(el, amid=amid) if pending else None

    async def _interrupted(self, el: int, *, amid: bool = False) -> None:
        """A physical interrupt: out to the host, which serves it, and back."""
        if self.exit_irq():
            await self.serve_interrupts(el)
        await self._reenter(amid=amid)

    async def _reenter(self, *, amid: bool = False) -> None:
        self.exit_irq_on()
        await self._prepare_entry(amid=amid)
        self.enter_null()

    async def _prepare_entry(self, *, amid: bool = False) -> None:
        """`amid`: the guest goes on with a handler of its own, which runs to its end before schedule()."""
        await self._check_requests(amid)
        self._flush_due_timers()
        if self.at_entry:
            await self._give_pmu()

    async def _check_requests(self, amid: bool, *, flush: bool = True) -> None:
        """check_vcpu_requests and kvm_pmu_flush_hwstate: once more if a request comes meanwhile
        (kvm_vcpu_exit_request)."""
        for _ in range(IRQ_STORM):
            if self._resync_wanted(amid):
                self.resync_due = False
                if self.vpmu.el0_switched():
                    await self._resync_pmu_el0()
            if flush:
                await awaited(self._flush_pmu())
            if not self._resync_wanted(amid):
                return
        raise self._livelock()

    def _resync_wanted(self, amid: bool) -> bool:
        """KVM_REQ_RESYNC_PMU_EL0: is it for now?

        schedule() comes before: a vCPU that is about to be preempted still has the request after its next load. But
        where its guest goes on before that, its programs are to find a guest's filters.
        """
        return self.resync_due and (amid or not self._need_resched())

    async def _resync_pmu_el0(self) -> None:
        before = self.pcpu.perf_bursts
        await awaited(self.vpmu.restore_el0(guest=True))
        self.swap_bursts += self.pcpu.perf_bursts - before

    def _flush_due_timers(self) -> None:
        if self.vgic.timer_deadline <= self.machine.now(self.cpu):
            self._flush_timers()

    def _flush_pmu(self) -> Eventual[None]:
        """kvm_pmu_flush_hwstate: interrupts are on, preemption is off."""
        before, self.preemptible = self.preemptible, False
        update = self._update_pmu()
        if update is not None:
            return self._flushing(update, before)
        self.preemptible = before
        return None

    async def _flushing(self, update: Coroutine[Any, Any, None], preemptible: bool) -> None:
        await update
        self.preemptible = preemptible

    def _update_pmu(self) -> Eventual[None]:
        """kvm_pmu_update_state: the level of the PMU interrupt."""
        asked = self.pmu.ovs or self.forwarded_irq or self.status_on_cpu
        level = self.vpmu.level() if asked else False
        if not isinstance(level, bool):
            level = begun(level)
        if isinstance(level, bool):
            self._set_level(level)
            return None
        return self._updating(level)

    async def _updating(self, level: Coroutine[Any, Any, bool]) -> None:
        self._set_level(await level)

    def _set_level(self, level: bool) -> None:
        vgic = self.vgic
        if not (self.pmu.ovs or self.forwarded_irq):
            vgic.overflowed = -1  # nor is any due that the guest has cleared without having been interrupted
        if level and not vgic.line:
            vgic.injected += 1
            self.pcpu.charge(VIRQ_INJECT)
        vgic.line = level

    def _flush_timers(self) -> None:
        """kvm_timer: those that are due are pending."""
        self.vgic.expire(self.pcpu.now)
        self.pcpu.rearm()
        self.pcpu.charge(Cost.VIRQ_INJECT)

    async def _wait_for_interrupt(self) -> None:
        """A WFI that does not trap: the CPU waits at EL1, the vCPU loaded, up to a physical interrupt."""
        machine, cpu = self.machine, self.cpu
        machine.set_running(cpu, self.context, 1, self.profile)
        machine.idle(cpu, self.pcpu.rearm())
        self.fruitless = 0
        await self._interrupted(1)

    async def _halt(self) -> None:
        """A trapped WFI (kvm_vcpu_halt): poll if what it last waited for came soon, else block."""
        pcpu = self.pcpu
        self.fruitless = 0
        if self.trap_null():
            await self._sync()
        if self.at_entry:
            await self._leave()
            await awaited(self._flush_pmu())
            if self.vgic.line:  # kvm_vcpu_check_block
                await self._resumed()
                return
        self.halt.begin(pcpu.now, not pcpu.rq.waiting)
        if self.halt.until >= 0:
            await pcpu.serve_interrupts(-1)
        else:
            await self._block()

    async def _poll(self) -> None:
        """The loop of kvm_vcpu_halt, up to an interrupt or its end: it goes on while nothing is pending for the guest
        and no other thread wants the CPU (kvm_vcpu_can_poll).
        """
        pcpu, machine, halt = self.pcpu, self.machine, self.halt
        left = max(0, halt.until - machine.now(self.cpu))
        done, _, interrupted = machine.work(self.cpu, pcpu.context, 2, pcpu.profile, left)
        halt.polled += done
        if interrupted:
            await pcpu.serve_interrupts(2)
        now = machine.now(self.cpu)
        if self._pending() or self.vgic.timer_deadline <= now:
            await self._resumed()
        elif now >= halt.until or pcpu.rq.waiting:
            halt.until = -1
            await self._block()

    async def _block(self) -> None:
        """kvm_vcpu_block, which finds out whether something is pending before it sleeps."""
        self.pcpu.charge(Cost.WFI_BLOCK)
        await self.pcpu.serve_interrupts(-1)
        await self._resumed()

    async def _resumed(self) -> None:
        """Back into the guest, unless there is nothing for it."""
        if not self.status_on_cpu:  # else kvm_vcpu_check_block goes by what the sync has found
            await awaited(self._flush_pmu())
        self._flush_due_timers()
        self.blocked = not self._pending()
        if self.blocked:  # the way back in is charged here, too: a load charges none
            self._note(NOTE_VCPU_BLOCKS)
            self.machine.charge(self.cpu, EXIT_FULL_NULL, self.pcpu.exit_null[2])
            return
        self.halt.end(self.pcpu.now)
        await self._check_requests(False, flush=self.status_on_cpu)
        if self.at_entry:
            await self._give_pmu()
        self.enter_null()

    # The guest's bursts, at EL1 (`services.executor.BurstCpu`).

    async def interrupted(self, stop: Stop) -> None:
        await self._interrupted(1, amid=True)
        self.machine.set_running(self.cpu, self.context, 1, self.profile)

    def program_undefined(self, esr: int) -> None:
        """What was to run behind the read is lost with the burst's rest, and what the entry interrupted is over."""
        self.undefined, self.compute, self.wfi = esr, None, False

    def trapped(self, register: int, write: bool, value: int, program: bool, exited: bool = False) -> int | Due:
        """An access trapped to EL2, and has perhaps `exited` to the host: the design emulates it. The value read."""
        if not exited:
            if self.fast_path and self.vpmu.fast(register, write):
                return self._trapped_fast(register, write, value, program)
            if self.trap_sysreg():
                return self._trapped_interrupted(register, write, value, program)
        access: Eventual[int]
        try:
            if program and self.vpmu.el0_disabled(register, write):
                raise InjectUndef
            access = begun(self.vpmu.access(register, write, value))
        except (InjectUndef, RetryAccess) as exc:
            access = _raised(exc)
        if self.resync_due or self.at_entry or not isinstance(access, int):
            return self._emulated(access)
        vgic = self.vgic
        if self.pmu.ovs or vgic.line or vgic.overflowed >= 0 or self.status_on_cpu:  # else it changes nothing
            flush = self._flush_pmu()
            if flush is not None or self.resync_due:
                return self._emulated(access, flush)
        if not self.enter_el1(vgic.timer_deadline):
            self._enter_expired()
        return access

    async def _trapped_interrupted(self, register: int, write: bool, value: int, program: bool) -> int | None:
        vpmu = self.vpmu
        if write and register in vpmu.loads_flags and self._interrupt_is_late():
            vpmu.flags_loaded = self.pmu.ovs
        try:
            await self.serve_interrupts(1)
            return await awaited(self.trapped(register, write, value, program, exited=True))
        finally:
            vpmu.flags_loaded = None

    def _interrupt_is_late(self) -> bool:
        """Has the PMU's interrupt come since what an exit ends with was begun: a load, which lasts as the read of a
        register does?"""
        pcpu, machine = self.pcpu, self.machine
        arrived = machine.raised(self.cpu) + pcpu.spec.pmi_delay
        return machine.interrupt(self.cpu) and arrived > pcpu.now - pcpu.costs[Cost.MRS]

    async def _emulated(self, access: Eventual[int], flush: Eventual[None] = None) -> int | None:
        """Back into the guest with what an access gives that waits, or after which the host's perf has run.

        `flush`: it is under way, and waits.
        """
        value, undefined = None, False
        try:
            value = access if isinstance(access, int) else await access
        except InjectUndef:
            undefined = True
        except RetryAccess:
            pass
        if flush is not None:
            await flush
        if flush is None or self.resync_due:
            await self._check_requests(True)
        if self.at_entry:
            await self._give_pmu()
        if not self.enter_el1(self.vgic.timer_deadline):
            self._enter_expired()
        if undefined:
            self._note(NOTE_INJECT_UNDEF)
            raise TookException(ESR_UNKNOWN)
        return value

    def _enter_expired(self) -> None:
        """Enter the guest with a timer that has expired."""
        self._flush_timers()
        self.enter_el1(NEVER)

    async def _trapped_fast(self, register: int, write: bool, value: int, program: bool) -> int:
        """Within the hypervisor's own code: no interrupt window, no vGIC, the time is the guest's."""
        pcpu = self.pcpu
        pcpu.enter_kernel()
        pcpu.charge(Cost.EXIT_FAST)
        self.irqs = MASKED
        try:
            if program and self.vpmu.el0_disabled_fast(register, write):
                raise InjectUndef
            return await awaited(self.vpmu.access(register, write, value))
        except InjectUndef:
            self._note(NOTE_INJECT_UNDEF)
            raise TookException(ESR_UNKNOWN) from None
        finally:
            self.irqs = ON
            self.machine.set_running(self.cpu, self.context, 1, self.profile)

    async def _ipi(self, target: int) -> None:
        """The guest's write of ICC_SGI1R_EL1, which traps to access_gic_sgi(): no fast path has it."""
        self.pcpu.charge(Cost.MSR)
        self.machine.trap(self.context, ICC_SGI1R_EL1, True)
        if self.trap_sysreg():
            await self.serve_interrupts(1)
        self._send_sgi(target)
        await self._emulated(target)

    def _send_sgi(self, target: int) -> None:
        """vgic_v3_dispatch_sgi: an IPI to a vCPU of the same VM, by its index."""
        pcpu = self.pcpu
        pcpu.charge(Cost.SGI)
        if target >= len(self.siblings):
            raise ProtocolError(
                f"an IPI to vCPU {target}, but {self.name} has vCPUs 0 to {len(self.siblings) - 1} only"
            )
        other = self.siblings[target]
        other.vgic.sgis |= 1 << (Sgi.IRQ_WORK if other is self else Sgi.CALL_FUNC)
        if other is not self:
            other.pcpu.rq.arrive(pcpu.now, other.id)

    def operation(self, index: int, code: int, argument: int, operand: int) -> Work | None:
        if code == OP_TIMER:
            self._check(index, "timer", argument, len(Timer))
            self.vgic.set_timer(argument, operand)
            self.pcpu.rearm()
        elif code == OP_COMPUTE:
            self.wfi = False
            profile, el = argument & COMPUTE_PROFILE, argument >> COMPUTE_EL_SHIFT
            self._check(index, "profile", profile, self.board.profiles)
            self._check(index, "exception level", el, 2)
            self.compute = (profile, el, operand) if operand else None
        elif code == OP_WFI:
            self.compute, self.wfi = None, True
        elif code == OP_IPI:
            return self._ipi(argument)
        elif code == OP_NOTIFY:
            if argument == Notice.WORK_UNDONE:
                self.undone += operand
            elif argument in (Notice.WORK_DONE, Notice.WORK_BEGUN):
                self.working = argument == Notice.WORK_BEGUN
            else:
                raise ProtocolError(f"operation {index}: notice {argument} is not for a guest")
        elif code == OP_WINDOW:
            return self._window(index)
        elif code == OP_HVC:
            return self._hypercall()
        elif code != OP_DONE:
            raise ProtocolError(f"operation {index} is not for a guest: code {code}")
        return None

    async def _window(self, index: int) -> None:
        if self.windows == WINDOWS:
            raise ProtocolError(f"operation {index}: a WINDOW within {WINDOWS} others, each in a handler entered there")
        self.windows += 1
        before, self.fruitless = self.fruitless, 0
        try:
            while self.vgic.pending:
                work = self.step()
                if work is not None:
                    await work
        finally:
            self.windows -= 1
            self.fruitless = before

    async def _hypercall(self) -> None:
        if self.trap_null():
            await self.serve_interrupts(1)
        await self._prepare_entry(amid=True)
        self.enter_null()
        self.machine.set_running(self.cpu, self.context, 1, self.profile)

    def _check(self, index: int, what: str, value: int, limit: int) -> None:
        if value >= limit:
            raise ProtocolError(f"operation {index}: there is no {what} {value}, only 0 to {limit - 1}")

    # State.

    def save(self) -> state.Saved:
        return state.save(self)

    def restore(self, saved: state.Saved) -> None:
        """Take up what `save` gave."""
        self.windows, self.irqs, self.preemptible, self.running, self.syncing = 0, ON, True, True, None
        before = self.cpu
        state.restore(self, saved)
        if self.cpu != before:
            self.set_task_cpu(self.cpu)
        self.vgic.derive()
        self.pmu.derive()
        self.vpmu.derive()
        self.fast_path = self.vpmu.fast_path


def _behind(leave: Callable[[], bool]) -> Callable[[], bool]:
    """A way out of the guest behind which there is something to be done, an interrupt or none."""

    def left() -> bool:
        leave()
        return True

    return left


async def _raised(exc: InjectUndef | RetryAccess) -> int:
    """An access that raised at once, as one that raises when it is awaited."""
    raise exc
