"""Mutants of what is swapped: kvm_pmu_load() and kvm_pmu_put(), their lists, and when they run."""

from __future__ import annotations

from collections.abc import Callable

from services import registers as r
from services._pmu import Burst
from services.cpu import awaited
from services.kvm.designs.partitioned.posted import status_on_cpu
from services.kvm.designs.partitioned.reviewed import Partitioned, PartitionedPmu
from services.kvm.designs.partitioned.swap import HardwareType, SwapIn, SwapOut, without_el2
from services.kvm.guest_pmu import USERENR_ALL
from services.registers import CYCLE_COUNTER


class B32In(SwapIn):
    async def done(self, again: Callable[[], SwapIn] | None = None) -> None:
        if self.context.on.untrapped:
            await super().done(again)


class B32Out(SwapOut):
    def host(self, register: int, value: int) -> None:
        """What the host gets back is no part of the list."""
        if self._keep and not self.context.on.untrapped:
            self.burst, self._keep = Burst(), []
        super().host(register, value)


class B32Pmu(PartitionedPmu):
    swap_in = B32In
    swap_out = B32Out


class B32(Partitioned):
    name = "B32"
    why = "v5: without FEAT_FGT kvm_pmu_load() and kvm_pmu_put() return early, and the guest's counters never count"
    of_vcpu = B32Pmu


class B36Out(SwapOut):
    def clear_overflows(self) -> None:
        pass


class B36Pmu(PartitionedPmu):
    swap_out = B36Out


class B36(Partitioned):
    name = "B36"
    why = "v5: put leaves the guest's range overflowed, and whoever has the counters next is interrupted"
    of_vcpu = B36Pmu


class B37Pmu(PartitionedPmu):
    async def _first_access(self, hpmn: int) -> None:
        self.vcpu.preemptible = True
        await super()._first_access(hpmn)
        self.vcpu.preemptible = False


class B37(Partitioned):
    name = "B37"
    why = "v5: the load from a trap handler is preemptible, and its registers go onto two CPUs"
    of_vcpu = B37Pmu


TRIGGERS = frozenset(
    (
        *(r.PMOVSSET_EL0, r.PMOVSCLR_EL0, r.PMXEVTYPER_EL0, r.PMCCFILTR_EL0),
        *map(r.PMEVTYPER, range(r.EVENT_COUNTERS)),
    )
)


class B39Pmu(PartitionedPmu):
    async def access(self, register: int, write: bool, value: int) -> int:
        if register in TRIGGERS or self.context.owned:
            return await super().access(register, write, value)
        return await self.trapped.perform(self.context, register, write, value)


class B39(Partitioned):
    name = "B39"
    why = "v5: only accesses of PMEVTYPER<n>_EL0 and PMOVS load the guest's registers; others find the host's"
    of_vcpu = B39Pmu


class B46In(SwapIn):
    def counters(self, width: int = r.MASK64) -> None:
        counter = self.pmu.counter
        for register, value in zip(self.context.on.counters, counter, strict=False):
            self.burst.msr(register, value)
        self.burst.msr(r.PMSELR_EL0, CYCLE_COUNTER)
        self.burst.isb()
        self.burst.msr(r.PMXEVCNTR_EL0, counter[CYCLE_COUNTER])


class B46Pmu(PartitionedPmu):
    swap_in = B46In


class B46(Partitioned):
    name = "B46"
    why = "v6: the load reaches PMCCNTR_EL0 by PMSELR_EL0.SEL = 31 and PMXEVCNTR_EL0, which is UNDEFINED on some CPUs"
    of_vcpu = B46Pmu


class B49In(SwapIn):
    def counters(self, width: int = r.MASK64) -> None:
        self.counters_by_selr(r.PMCCNTR_EL0)


class B49Pmu(PartitionedPmu):
    swap_in = B49In


class B49(Partitioned):
    name = "B49"
    why = "v7: the load writes PMXEVCNTR_EL0 behind PMSELR_EL0 without an ISB, and so perhaps another counter"
    of_vcpu = B49Pmu


class N1Pmu(PartitionedPmu):
    async def _first_access(self, hpmn: int) -> None:
        self.context.owned = True
        self.derive()
        await self.host_pmcr.keep(self.context)  # put gives it back
        await self._set_traps()


class N1(Partitioned):
    name = "N1"
    why = "v8: the first access lifts the traps, but loads and reserves nothing: what the CPU has is the guest's"
    of_vcpu = N1Pmu


class N8Pmu(PartitionedPmu):
    def _in_use(self) -> bool:
        return self.context.owned


class N8(Partitioned):
    name = "N8"
    why = "v8: a restored vCPU is FREE, and what its registers in memory enable stands still up to its first access"
    of_vcpu = N8Pmu


class N21In(SwapIn):
    def userenr(self) -> None:
        self.burst.msr(r.PMUSERENR_EL0, USERENR_ALL)


class N21Out(SwapOut):
    def userenr(self) -> None:
        pass


class N21Pmu(PartitionedPmu):
    swap_in = N21In
    swap_out = N21Out


class N21(Partitioned):
    name = "N21"
    why = "v6: PMUSERENR_EL0 is not swapped: all ones while loaded, and what the guest writes is lost at put"
    of_vcpu = N21Pmu


class N23Pmu(PartitionedPmu):
    async def level(self) -> bool:
        context, pmu = self.context, self.pmu
        if not context.owned and pmu.pmcr & r.PMCR_E and pmu.ovs & pmu.inten & context.on.mask:
            context.owned = True
            await self.host_pmcr.keep(context)  # put gives it back
            await self._set_traps()
            return await awaited(status_on_cpu(context))
        return await super().level()


class N23(Partitioned):
    name = "N23"
    why = "v8: an overflow that is pending makes a FREE vCPU GUEST_OWNED without a load; another's enables decide of it"
    of_vcpu = N23Pmu


class N26Out(SwapOut):
    def clear_overflows(self) -> None:
        pass

    def disable(self) -> None:
        self.burst.msr(r.PMCNTENCLR_EL0, self.context.on.mask)


class N26Pmu(PartitionedPmu):
    swap_out = N26Out


class N26(Partitioned):
    name = "N26"
    why = "v7: put leaves PMINTEN and PMOVS as the guest had them; the next vCPU that is loaded has its interrupt"
    of_vcpu = N26Pmu


def typed(hardware_type: HardwareType) -> type[SwapIn]:
    """A load that writes event types so."""

    class Typed(SwapIn):
        def types(self, _: HardwareType = without_el2) -> None:
            super().types(hardware_type)

    return Typed


class B33Out(SwapOut):
    def host(self, register: int, value: int) -> None:
        if register != r.PMUSERENR_EL0:
            super().host(register, value)


class B33Pmu(PartitionedPmu):
    swap_out = B33Out


class B33(Partitioned):
    name = "B33"
    why = "v5: the load writes the guest's PMUSERENR_EL0, and the host does not get its own back at put"
    of_vcpu = B33Pmu


class B40(Partitioned):
    name = "B40"
    why = "v5: neither is it decided at the load whether the guest's registers go onto the CPU, nor reset at put"
    of_vcpu = N8Pmu


class B54Pmu(PartitionedPmu):
    async def _first_access(self, hpmn: int) -> None:
        self.context.owned = True
        self.derive()
        await self._take_from_host()
        await self.host_pmcr.keep(self.context)  # put gives it back
        await self._set_traps()


class B54(Partitioned):
    name = "B54"
    why = "v7: the first access lifts the traps and reserves, but loads nothing: what the CPU has is the guest's"
    of_vcpu = B54Pmu


class B55In(SwapIn):
    def selr(self) -> None:
        pass


class B55Pmu(PartitionedPmu):
    swap_in = B55In


class B55(Partitioned):
    name = "B55"
    why = "v7: PMSELR_EL0 on the CPU is stale, and PMXEVCNTR_EL0 and PMXEVTYPER_EL0 are another counter's"
    of_vcpu = B55Pmu


class N13In(SwapIn):
    def overflows(self) -> None:
        self.clear_overflows()


class N13Pmu(PartitionedPmu):
    swap_in = N13In

    async def level(self) -> bool:
        return await self.context.overflow_status()


class N13(Partitioned):
    name = "N13"
    why = (
        "v8: flags are in memory and their enables, untrapped, on the CPU: one let in interrupts at the next exit only"
    )
    of_vcpu = N13Pmu


class N27Pmu(PartitionedPmu):
    def _in_use(self) -> bool:
        return self.context.owned or super()._in_use()


class N27(Partitioned):
    name = "N27"
    why = "v8: a vCPU that has once used its PMU takes the counters from the host at every load, in use or not"
    of_vcpu = N27Pmu
