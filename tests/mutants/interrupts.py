"""Mutants of the guest's interrupt, and of whose flags the host's handler finds."""

from __future__ import annotations

from dataclasses import replace

from services import registers as r
from services.boot import HostPolicy
from services.cpu import Call, awaited
from services.experiment import CpuSpec
from services.kvm.bill import Account
from services.kvm.designs.partitioned.posted import status_on_cpu
from services.kvm.designs.partitioned.reviewed import Partitioned, PartitionedPmu


class B42Pmu(PartitionedPmu):
    async def level(self) -> bool:
        if self.context.owned:
            return await super().level()
        return await awaited(status_on_cpu(self.context))


class B42(Partitioned):
    name = "B42"
    why = "v5: the overflow status goes by PMINTENSET_EL1 and PMCR_EL0 of the CPU, while the vCPU is FREE another's"
    of_vcpu = B42Pmu


class B59Pmu(PartitionedPmu):
    async def _kick_if_due(self) -> None:
        pass


class B59(Partitioned):
    name = "B59"
    why = "v7: an overflow kicks nobody: a vCPU that is about to block sleeps over it"
    of_vcpu = B59Pmu


class N20(Partitioned):
    name = "N20"
    why = "v8: PMICNTR_EL0's overflow flag is in neither the host's nor the guest's mask, and is never cleared"

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        policy = super().host_policy(cpu)
        return replace(policy, own_flags=policy.own_flags & ~r.INSTRUCTION_BIT)


class N34Pmu(PartitionedPmu):
    async def load(self) -> None:
        await super().load()
        if not self.context.owned:
            await self._claim_flags(self.context.on.mask)

    async def put(self) -> None:
        await super().put()
        if not self.context.owned:
            await self._claim_flags(0)

    async def _claim_flags(self, mask: int) -> None:
        await awaited(self.vcpu.call([(Call.GUEST_COUNTERS, 0, 0, mask, 0)], Account.RESERVE))

    def guest_overflow(self, mask: int) -> None:
        self.pmu.ovs |= mask & self.context.on.mask


class N34(Partitioned):
    name = "N34"
    why = "v9: flags are a guest's by the vCPU that runs, FREE or not: overflows of the host's events become its own"
    of_vcpu = N34Pmu


class B41(Partitioned):
    name = "B41"
    why = "v5: the host's handler clears all overflow flags at once, a guest's among them"

    def host_policy(self, cpu: CpuSpec) -> HostPolicy:
        return replace(super().host_policy(cpu), split_irq=False)
