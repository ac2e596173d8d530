"""The core loses its power and has it again: cpu_pm_pmu_notify and armv8pmu_reset (drivers/perf, Linux 6.12)."""

from __future__ import annotations

from services.cpu import Cpu, Notice
from services.linux_perf.cpu_context import CpuContext
from services.linux_perf.event import PerfEvent
from services.linux_perf.schedule import off, on
from services.linux_perf.throttle import start, stop, withheld_ends
from services.registers import (
    PMCNTENCLR_EL0,
    PMCR_C,
    PMCR_EL0,
    PMCR_LC,
    PMCR_LP,
    PMCR_P,
    PMINTENCLR_EL1,
    PMOVSCLR_EL0,
)


def reset(cc: CpuContext, cpu: Cpu) -> None:
    """armv8pmu_reset: at boot, and when the core has its power again."""
    burst, mask = cpu.burst, cc.pmu.cntr_mask
    for register in (PMCNTENCLR_EL0, PMINTENCLR_EL1, PMOVSCLR_EL0):
        burst.msr(register, mask)
        burst.isb()
    burst.isb()
    burst.msr(PMCR_EL0, PMCR_P | PMCR_C | PMCR_LC | (PMCR_LP if cc.pmu.long_counters else 0))


async def enter(cc: CpuContext, cpu: Cpu) -> None:
    """CPU_PM_ENTER: the events keep their counters, and what these have counted."""
    if not cc.pmu.used:
        return
    cpu.burst.extend(off(cc))
    for event in _on_counters(cc):
        await stop(cc, cpu, event)
        event.missed += event.sampling and event.period_left <= 0  # its flag is cleared


async def leave(cc: CpuContext, cpu: Cpu) -> None:
    """CPU_PM_EXIT: nothing that the registers have is believed. A throttled event starts too: it was not *stopped*.

    cpu_do_resume has PMUSERENR_EL0 at 0, until a task with user access starts the PMU.
    """
    if cc.pmu.userenr:
        cc.pmu.userenr = 0
        cpu.burst.notify(Notice.HOST_PMUSERENR, 0)
    reset(cc, cpu)
    if not cc.pmu.used:
        return
    for event in _on_counters(cc):
        await withheld_ends(cc, cpu, event)
        start(cc, cpu, event)
        event.restarted = True
    cpu.burst.extend(on(cc))


def _on_counters(cc: CpuContext) -> list[PerfEvent]:
    return [event for event in cc.pmu.events if event is not None and event.bits & cc.pmu.cntr_mask]
