"""Mutants of who has which counters: HPMN, the number that the VM has, and what the host gives up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from services import registers as r
from services.boot import HostPolicy
from services.experiment import CpuSpec
from services.kvm.designs.partitioned.guest_range import clamped, left_to_guests, taken_from_host
from services.kvm.designs.partitioned.reviewed import Partitioned, PartitionedPmu


class B9(Partitioned):
    name = "B9"
    why = "v1: PMCR_EL0.N is the partition's size, whatever number of counters userspace has set"

    def hpmn(self, cpu: CpuSpec, counters: int) -> int:
        return (left_to_guests(cpu, self.guest_range) & ~r.CYCLE_BIT).bit_count()


class B11(Partitioned):
    name = "B11"
    why = "v1: the host's part of cntr_mask is [HPMN, HPMN + N): indices without a counter are to be allocated"

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        policy = super().host_policy(cpu)
        hpmn = (left_to_guests(cpu, self.guest_range) & ~r.CYCLE_BIT).bit_count()
        return replace(policy, counters=policy.counters | (1 << hpmn + cpu.counters) - (1 << hpmn))


class B30Pmu(PartitionedPmu):
    def derive(self) -> None:
        super().derive()
        self.context.n = self.pmu.counters


class B30(Partitioned):
    name = "B30"
    why = "v5: a VM's number of counters is sanitised late and not by all: PMCR_EL0.N where it traps is above HPMN"
    of_vcpu = B30Pmu

    def nr_counters(self, cpus: Sequence[CpuSpec], wanted: int) -> int:
        return wanted

    def hpmn(self, cpu: CpuSpec, counters: int) -> int:
        return clamped([cpu], counters)


class B47(Partitioned):
    name = "B47"
    why = "v6: PMICNTR_EL0 is taken from the host for good, and given to nobody"

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        policy = super().host_policy(cpu)
        return replace(policy, counters=policy.counters & ~r.INSTRUCTION_BIT)


class B56(Partitioned):
    name = "B56"
    why = "v7: perf_pmu_resched_update() takes the lock of perf's contexts with interrupts on"

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        return replace(super().host_policy(cpu), resched_irqs_on=True)


class B66Pmu(PartitionedPmu):
    def derive(self) -> None:
        super().derive()
        context = self.context
        if not context.on.hpmn:
            context.fit(self, replace(context.on, mask=r.MASK64), context.n, context.most)


class B66(Partitioned):
    name = "B66"
    why = "v7: without event counters the guest's mask is GENMASK(-1, 0), every bit"
    of_vcpu = B66Pmu


class B68Pmu(PartitionedPmu):
    def _takes(self) -> int:
        on = self.context.on
        return taken_from_host(on.cpu, r.counter_mask(clamped([on.cpu], on.hpmn)))


class B68(Partitioned):
    name = "B68"
    why = "v7: a VM keeps a number of counters that is above the guests' part: HPMN reaches into the host's"
    of_vcpu = B68Pmu

    def nr_counters(self, cpus: Sequence[CpuSpec], wanted: int) -> int:
        return wanted


class N17(Partitioned):
    name = "N17"
    why = "v8: a pinned event of the host that is squeezed goes to ERROR, and nothing brings it back at put"

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        return replace(super().host_policy(cpu), swaps_pinned=False)


class N28Pmu(PartitionedPmu):
    def _takes(self) -> int:
        return self.context.on.mask


class N28(Partitioned):
    name = "N28"
    why = "v8: the host keeps PMICNTR_EL0, which stops by the guest's PMCR_EL0.E, and by HPMD at EL2"
    of_vcpu = N28Pmu


class B2Pmu(PartitionedPmu):
    def derive(self) -> None:
        super().derive()
        context = self.context
        context.fit(self, replace(context.on, hpmn=self.pmu.counters), context.n, self.pmu.counters)


class B2(Partitioned):
    name = "B2"
    why = "v1: HPMN is that of the VM's PMU, whatever the CPU has that the vCPU is on"
    of_vcpu = B2Pmu

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        return super().check(cpu, min(counters, cpu.counters))


class B31Pmu(PartitionedPmu):
    def derive(self) -> None:
        super().derive()
        context = self.context
        context.fit(self, replace(context.on, hpmn=self.pmu.counters, split=True), context.n, self.pmu.counters)


class B31(Partitioned):
    name = "B31"
    why = "v5: a vCPU on a CPU that its PMU does not support has its HPMN there all the same, 0 without FEAT_HPMN0 too"
    of_vcpu = B31Pmu

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        return super().check(cpu, min(counters, cpu.counters))


class B51(Partitioned):
    name = "B51"
    why = "v7: the host allocates its counters from the lowest index, which guests take first"

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        return replace(super().host_policy(cpu), high_to_low=False)


class N2(Partitioned):
    name = "N2"
    why = "v8: cntr_mask is one for all CPUs of a PMU: what a load or a put on one changes is changed on all"

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        return replace(super().host_policy(cpu), shared_counters=True)


class N16Pmu(PartitionedPmu):
    def _takes(self) -> int:
        on = self.context.on
        most = on.cpu.max_guest_counters
        return taken_from_host(on.cpu, on.mask if most is None else r.counter_mask(most))


class N16(Partitioned):
    name = "N16"
    why = "v8: the host gives up all counters that guests may have, of which a VM with fewer has no use"
    of_vcpu = N16Pmu
