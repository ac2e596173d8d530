"""Mutants of what the CPU gets for an event type: kvm_pmu_apply_event_filter(), and what a trapped write does."""

from __future__ import annotations

from services import registers as r
from services.kvm.designs.partitioned.accesses import types_written_through
from services.kvm.designs.partitioned.reviewed import Partitioned, PartitionedPmu
from services.kvm.designs.partitioned.swap import (
    NOT_EL2,
    as_written,
    enforced,
    whole_type_denied_in_memory,
)
from services.kvm.guest_pmu import GuestPmu
from services.registers import CYCLE_COUNTER
from tests.mutants.swap import typed


def b6_type(pmu: GuestPmu, n: int) -> int:
    return enforced(pmu, n) if n == CYCLE_COUNTER else as_written(pmu, n)


class B6Pmu(PartitionedPmu):
    swap_in = typed(b6_type)

    def derive(self) -> None:
        super().derive()
        self.trapped |= types_written_through(b6_type)


class B6(Partitioned):
    name = "B6"
    why = "v1: PMEVTYPER<n>_EL0 reaches the CPU with NSH as the guest wrote it: it counts the host's hypervisor"
    of_vcpu = B6Pmu


def b7_type(pmu: GuestPmu, n: int) -> int:
    return as_written(pmu, n) if n == CYCLE_COUNTER else enforced(pmu, n)


class B7Pmu(PartitionedPmu):
    swap_in = typed(b7_type)

    def derive(self) -> None:
        super().derive()
        self.trapped |= types_written_through(b7_type)

    def _mdcr(self) -> int:
        return super()._mdcr() & ~r.MDCR_EL2_HCCD


class B7(Partitioned):
    name = "B7"
    why = "v1: HPMD alone is to keep the guest's counters from EL2, and PMCCNTR_EL0 counts there as the guest wrote it"
    of_vcpu = B7Pmu


def b8_type(pmu: GuestPmu, n: int) -> int:
    return pmu.typer[n] & NOT_EL2


class B8Pmu(PartitionedPmu):
    def derive(self) -> None:
        super().derive()
        self.trapped |= types_written_through(b8_type)


class B8(Partitioned):
    name = "B8"
    why = "v1: an event type is written through to the CPU whatever the VM's filter says of it: a denied event counts"
    of_vcpu = B8Pmu


def b22_type(pmu: GuestPmu, n: int) -> int:
    return whole_type_denied_in_memory(pmu, n) & NOT_EL2


class B22Pmu(PartitionedPmu):
    swap_in = typed(b22_type)

    def derive(self) -> None:
        super().derive()
        self.trapped |= types_written_through(b22_type)


class B22(Partitioned):
    name = "B22"
    why = "v4: the filter looks up the whole type, filter bits and all, and what it adds stays in the guest's register"
    of_vcpu = B22Pmu


class N36Pmu(PartitionedPmu):
    async def access(self, register: int, write: bool, value: int) -> int:
        if self.context.owned or not write or register not in TYPES:
            return await super().access(register, write, value)
        return await self.trapped.perform(self.context, register, write, value)


class N36(Partitioned):
    name = "N36"
    why = "v9: an event type is written through while the vCPU is FREE: to a counter that an event of the host is on"
    of_vcpu = N36Pmu


TYPES = frozenset((r.PMXEVTYPER_EL0, r.PMCCFILTR_EL0, *map(r.PMEVTYPER, range(r.EVENT_COUNTERS))))
