"""`raw`: guests access the PMU directly, nothing is saved or restored (Xen on Arm, `vpmu=1`). A negative control.

Xen leaves the PMU's interrupt disabled, and has no perf. Here the host has one, whose driver takes the interrupt as its
own and clears every flag; guests have none either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from services import registers as r
from services.boot import HostPolicy
from services.experiment import CpuSpec
from services.kvm.declared import Declared, Victim, given_up
from services.kvm.designs.partitioned.guest_range import host_counters
from services.kvm.errors import InjectUndef
from services.kvm.vpmu import Access, Design, KvmVcpu, Vpmu


class RawPmu(Vpmu):
    """No traps, no swap, no interrupts: whoever runs finds what the last one left."""

    async def load(self) -> None:
        await self.vcpu.write(r.MDCR_EL2, self.vcpu.spec.counters)

    async def put(self) -> None:
        """Nothing is saved."""

    def access(self, register: int, write: bool, value: int) -> Access:
        raise InjectUndef  # nothing of the PMU traps

    def level(self) -> bool:
        return False

    def guest_overflow(self, mask: int) -> None:
        """A guest's overflow is nobody's; the host's handler has cleared it."""


@dataclass(frozen=True, kw_only=True)
class Raw(Design):
    """Direct access without save and restore."""

    name = "raw"
    why = "negative control: direct access, nothing swapped, no interrupts; counts leak between guests"

    filters_events: ClassVar[bool] = False

    def nr_counters(self, cpus: Sequence[CpuSpec], wanted: int) -> int:
        """PMCR_EL0 does not trap, and HPMN is N."""
        return max(cpu.counters for cpu in cpus)

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        return []

    @property
    def declared(self) -> tuple[Declared, ...]:
        return (
            *given_up(Victim.NEIGHBOUR, "nothing is saved or restored: whoever runs finds what the last one left"),
            *given_up(Victim.HOST, "nothing traps: a guest has every counter of the CPU"),
            *given_up(
                Victim.GUEST,
                "nothing is saved or restored, and a guest has no interrupt",
                ("I1", "I4", "I5", "I6", "I7", "I8", "I11"),
            ),
        )

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        """The host goes on as if there were no guests."""
        return HostPolicy(host_counters(cpu), guest_flags=host_counters(cpu))

    def vpmu(self, vcpu: KvmVcpu) -> RawPmu:
        return RawPmu(self, vcpu)
