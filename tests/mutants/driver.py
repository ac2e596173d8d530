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
