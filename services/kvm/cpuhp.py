"""A pCPU loses its power and has it again: deep idle states, and CPU hotplug."""

from __future__ import annotations

from typing import Protocol

from services._pmu import CPUTIME_HOST_KERNEL, CPUTIME_IDLE, Burst, Machine
from services.cpu import CpuPm, EntryKind
from services.experiment import CpuSpec
from services.kvm.board import Board
from services.kvm.runqueue import RunQueue
from services.registers import MDCR_EL2, PMUSERENR_EL0


class PoweredCpu(Protocol):
    """A pCPU as far as its power goes."""

    cpu: int
    board: Board
    machine: Machine
    spec: CpuSpec
    rq: RunQueue
    timers: dict[int, int]
    going: bool
    offline: bool
    hotplugs: int
    hotplug_time: int

    def enter_kernel(self) -> None: ...
    def kvm(self, burst: Burst) -> list[int]: ...
    def find_hotplug(self) -> None: ...
    def stop_tick(self) -> None: ...
    def rearm(self) -> int: ...
    async def preempt(self) -> None: ...
    async def calls_run(self, el: int) -> None: ...
    async def irq_work_run(self, el: int) -> None: ...
    async def enter_host(self, kind: EntryKind, argument: int = 0, el: int = -1, payload: bytes = b"") -> bytes: ...


async def power_down(pcpu: PoweredCpu, until: int) -> None:
    """An idle CPU: cpu_pm_enter, PSCI CPU_SUSPEND up to an interrupt, cpu_resume, cpu_pm_exit.

    No vCPU is loaded, so that KVM has nothing of its own to save: its notifier (hyp_init_cpu_pm_notifier) writes no
    register of the PMU.
    """
    pcpu.enter_kernel()
    await pcpu.enter_host(EntryKind.CPU_PM, CpuPm.ENTER, el=2)
    pcpu.machine.warm_reset(pcpu.cpu)
    pcpu.machine.idle(pcpu.cpu, until + pcpu.board.experiment.host.powerdown_exit)
    _resume(pcpu)
    await pcpu.enter_host(EntryKind.CPU_PM, CpuPm.EXIT, el=2)


async def take_offline(pcpu: PoweredCpu) -> None:
    """cpuhp: what runs is taken off and goes elsewhere with all others, and the CPU's perf events are off for good."""
    machine, cpu, rq = pcpu.machine, pcpu.cpu, pcpu.rq
    await pcpu.preempt()
    await pcpu.calls_run(2)  # smpcfd_dying_cpu
    await pcpu.irq_work_run(2)
    rq.online = rq.need_resched = False
    rq.evacuate()
    pcpu.enter_kernel()
    await pcpu.enter_host(EntryKind.CPUHP, 0, el=2)
    machine.warm_reset(cpu)
    machine.set_cputime(cpu, CPUTIME_IDLE)
    pcpu.going, pcpu.offline, pcpu.hotplugs = False, True, pcpu.hotplugs + 1
    pcpu.find_hotplug()
    pcpu.timers.clear()
    pcpu.stop_tick()


async def bring_online(pcpu: PoweredCpu) -> None:
    """secondary_start_kernel: the driver resets the PMU, and the CPU idles until a thread is handed to it."""
    pcpu.machine.idle(pcpu.cpu, pcpu.hotplug_time)
    pcpu.offline, pcpu.rq.online = False, True
    pcpu.find_hotplug()
    _resume(pcpu)
    await pcpu.enter_host(EntryKind.CPUHP, 1, el=2)
    pcpu.rearm()
    for queue in pcpu.rq.queues:
        queue.balance()


def _resume(pcpu: PoweredCpu) -> None:
    """What the kernel writes before anything else, as at boot: init_el2, __cpu_setup or cpu_do_resume."""
    pcpu.machine.set_cputime(pcpu.cpu, CPUTIME_HOST_KERNEL)
    pcpu.enter_kernel()
    burst = Burst()
    burst.msr(MDCR_EL2, pcpu.spec.counters)
    burst.msr(PMUSERENR_EL0, 0)
    pcpu.kvm(burst)
