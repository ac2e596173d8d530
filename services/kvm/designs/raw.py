"""`raw`: guests access the PMU directly, nothing is saved or restored (Xen on Arm, `vpmu=1`). A negative control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from services import registers as r
from services._pmu import Burst
from services.experiment import CpuSpec
from services.kvm.designs.base import Axis, Design, DesignError, Vpmu
from services.kvm.errors import InjectUndef
from services.kvm.guest_pmu import CYCLE_BIT

if TYPE_CHECKING:
    from services.kvm.vcpu import VCpu


class RawPmu(Vpmu):
    """No traps, no swap, no interrupts: whoever runs finds what the last one left."""

    async def load(self) -> None:
        pcpu = self.vcpu.pcpu
        burst = Burst()
        burst.msr(r.MDCR_EL2, pcpu.spec.counters)
        pcpu.kvm(burst)

    async def put(self) -> None:
        """Nothing is saved."""

    async def access(self, register: int, write: bool, value: int) -> int:
        raise InjectUndef  # nothing of the PMU traps

    def level(self) -> bool:
        return False

    def counter_overflow(self, counter: int) -> None:
        raise AssertionError("no counter of a raw guest is backed by a perf event")

    def guest_overflow(self, mask: int) -> None:
        """A guest's overflow is nobody's; the host's handler has cleared it."""


class Raw(Design):
    """Direct access without save and restore."""

    name = "raw"
    why = "negative control: direct access, nothing swapped, no interrupts; counts leak between guests"
    axes: ClassVar[Mapping[str, Axis]] = {}

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        if counters != cpu.counters:
            raise DesignError(f"raw: the guest sees all {cpu.counters} event counters of {cpu.model}, not {counters}")
        return []

    def host_counters(self, cpu: CpuSpec) -> int:
        return ((1 << cpu.counters) - 1) | CYCLE_BIT

    def vpmu(self, vcpu: VCpu) -> RawPmu:
        return RawPmu(self, vcpu)
