"""Mutants of the host's driver and perf, and how they come to be in force.

What a design asks of the host is data (`HostPolicy`), and production code has no place for another function. So a
mutant names the function, and `in_force` puts its own in that place while the mutant is searched, in the processes that
are forked meanwhile, too, and puts the host's back. Elsewhere the design is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar
from unittest.mock import patch

from services.cpu import Cpu
from services.experiment import CpuSpec
from services.kvm.designs.partitioned.reviewed import Partitioned
from services.kvm.vpmu import Design, DesignError
from services.linux_perf import cpu_pm, kernel_counters
from services.linux_perf.cpu_context import CpuContext
from services.linux_perf.perf import PerfCpu
from services.registers import PMCR_EL0, PMCR_LP


class OfDriver(Partitioned):
    """A mutant with a function of the host's own."""

    places: ClassVar[tuple[tuple[Any, str], ...]]  # where the host's is
    function: ClassVar[Callable[..., Any]]  # and what is there instead, a staticmethod

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        if any(getattr(of, name) is not self.function for of, name in self.places):
            raise DesignError(f"the host's driver is not that of {self.name}", f"python -m tests.mutants {self.name}")
        return super().check(cpu, counters)


@contextmanager
def in_force(design: type[Design]) -> Iterator[None]:
    """Meanwhile the host's driver is that of `design`, a mutant or not."""
    with ExitStack() as stack:
        if issubclass(design, OfDriver):
            for of, name in design.places:
                stack.enter_context(patch.object(of, name, design.function))
        yield


async def _moves_nothing(cc: CpuContext, cpu: Cpu, mask: int, reschedule: bool, guest_loaded: bool = False) -> None:
    await kernel_counters.set_counters(cc, cpu, mask, False, guest_loaded)


class B3(OfDriver):
    name = "B3"
    why = "v1: the host's counters are taken at run time, and its events stay on them"
    places = ((PerfCpu, "set_counters"),)
    function = staticmethod(_moves_nothing)


async def _for_every_open(cc: CpuContext, cpu: Cpu, mask: int, reschedule: bool, guest_loaded: bool = False) -> None:
    await kernel_counters.set_counters(cc, cpu, mask, reschedule, guest_loaded)
    cc.shared.pmus[cc.config.arm_pmu].cntr_mask = mask


class N3(OfDriver):
    name = "N3"
    why = "v8: perf_event_open validates a group by the cntr_mask that a loaded vCPU leaves: it depends on who runs"
    places = ((PerfCpu, "set_counters"),)
    function = staticmethod(_for_every_open)


def _reset_what_others_leave(cc: CpuContext, cpu: Cpu) -> None:
    own = cc.pmu.cntr_mask
    for driver in cc.shared.drivers.values():
        if driver.arm_pmu == cc.config.arm_pmu:
            cc.pmu.cntr_mask &= driver.cntr_mask
    _reset(cc, cpu)
    cc.pmu.cntr_mask = own


_reset = cpu_pm.reset


class N25(OfDriver):
    name = "N25"
    why = "v8: armv8pmu_reset() leaves out what another CPU's vcpu_load has taken from cntr_mask: enables stay UNKNOWN"
    places = ((cpu_pm, "reset"), (PerfCpu, "reset"))
    function = staticmethod(_reset_what_others_leave)


async def _leaves_them(cc: CpuContext, cpu: Cpu, mask: int, reschedule: bool, guest_loaded: bool = False) -> None:
    before = cc.pmu.cntr_mask
    await kernel_counters.set_counters(cc, cpu, mask, reschedule, guest_loaded)
    cc.pmu.cntr_mask |= before


class B1(OfDriver):
    name = "B1"
    why = "RFC v3: the guest's counters stay in cntr_mask: what does not test for them uses them"
    places = ((PerfCpu, "set_counters"),)
    function = staticmethod(_leaves_them)


async def _takes_everywhere(cc: CpuContext, cpu: Cpu, mask: int, reschedule: bool, guest_loaded: bool = False) -> None:
    await kernel_counters.set_counters(cc, cpu, mask, reschedule, guest_loaded)
    for driver in cc.shared.drivers.values():
        if driver is not cc.pmu and driver.arm_pmu == cc.config.arm_pmu:
            driver.cntr_mask &= mask


class B4(OfDriver):
    name = "B4"
    why = "v1: what one VM takes is taken on all CPUs, from events of the host's that are on counters there"
    places = ((PerfCpu, "set_counters"),)
    function = staticmethod(_takes_everywhere)


def _reset_without_lc(cc: CpuContext, cpu: Cpu) -> None:
    _reset(cc, cpu)
    cpu.burst.msr(PMCR_EL0, PMCR_LP if cc.pmu.long_counters else 0)


class B19(OfDriver):
    name = "B19"
    why = "v4: armv8pmu_reset() sets PMCR_EL0 without LC: the cycle counter overflows at bit 31"
    places = ((cpu_pm, "reset"), (PerfCpu, "reset"))
    function = staticmethod(_reset_without_lc)
