"""The trap set-up around a vCPU's time on a CPU: kvm_vcpu_load_vhe() and kvm_vcpu_put_vhe(), as far as it is the PMU's.

It is the same for every VM, one without a PMU too, and comes first at a load and at a put: before the EL0 filters of
the host's events are flipped, and before a design swaps anything. Two kernels: Linux 6.12.117, and those of 2026
(recorded from 7.2.13), which keep the fine-grained traps per vCPU.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from services import registers as r
from services._pmu import Burst
from services.cpu import Eventual
from services.experiment import CpuSpec
from services.kvm.guest_pmu import USERENR_ALL
from services.kvm.irqs import Irqs
from services.kvm.vpmu import KvmVcpu


class FineGrained(NamedTuple):
    """HDFGRTR_EL2 and HDFGWTR_EL2, and whether HDFGRTR2_EL2 and HDFGWTR2_EL2 (FEAT_FGT2), where a 0 traps, are set to
    hide what no guest has: PMICNTR_EL0, PMICFILTR_EL0, PMUACR_EL1, PMZR_EL0 and PMECR_EL1."""

    reads: int = 0
    writes: int = 0
    hides: bool = False


NONE = FineGrained()


@dataclass(slots=True)
class HostTraps:
    """What a load found on the CPU, for the put. PMUSERENR_EL0 is not here but `KvmVcpu.host_userenr`: the host's
    driver may have another while a vCPU is loaded (kvm_set_pmuserenr)."""

    mdcr: int = 0
    reads: int = 0
    writes: int = 0
    reads2: int = 0
    writes2: int = 0

    def load_6_12(
        self, vcpu: KvmVcpu, mdcr: int, fine: FineGrained = NONE, *, selr: bool = True, userenr: bool = True
    ) -> Eventual[None]:
        """__activate_traps_common. A fine-grained trap register without a bit to set is read all the same."""
        burst = Burst()
        _selr_and_userenr(burst, selr, userenr)
        found = [burst.mrs(r.MDCR_EL2)]
        burst.msr(r.MDCR_EL2, mdcr)
        if vcpu.spec.fgt:
            found.append(burst.mrs(r.HDFGRTR_EL2))
            if fine.reads:
                burst.msr(r.HDFGRTR_EL2, fine.reads)
            found.append(burst.mrs(r.HDFGWTR_EL2))
            if fine.writes:
                burst.msr(r.HDFGWTR_EL2, fine.writes)
        if fine.hides:
            found += _hide(vcpu.spec, burst)
        return self._irqs_off(vcpu, burst, found)

    def put_6_12(self, vcpu: KvmVcpu, fine: FineGrained = NONE, *, userenr: bool = True) -> Eventual[None]:
        """__deactivate_traps_common. `fine`: what the load set."""
        burst = Burst()
        burst.msr(r.MDCR_EL2, self.mdcr)
        if userenr:
            burst.msr(r.PMUSERENR_EL0, vcpu.host_userenr)
        if vcpu.spec.fgt and fine.reads:
            burst.msr(r.HDFGRTR_EL2, self.reads)
        if vcpu.spec.fgt and fine.writes:
            burst.msr(r.HDFGWTR_EL2, self.writes)
        if fine.hides:
            self._show(vcpu, burst)
        return self._irqs_off(vcpu, burst)

    def load_2026(
        self, vcpu: KvmVcpu, mdcr: int, fine: FineGrained = NONE, *, selr: bool = True, userenr: bool = True
    ) -> Eventual[None]:
        """MDCR_EL2 first, and the fine-grained traps as the vCPU has them, whatever these are; what the VM has not is
        hidden (`fgu`)."""
        burst = Burst()
        found = [burst.mrs(r.MDCR_EL2)]
        burst.msr(r.MDCR_EL2, mdcr)
        _selr_and_userenr(burst, selr, userenr)
        if vcpu.spec.fgt:
            found.append(burst.mrs(r.HDFGRTR_EL2))
            burst.msr(r.HDFGRTR_EL2, fine.reads)
            found.append(burst.mrs(r.HDFGWTR_EL2))
            burst.msr(r.HDFGWTR_EL2, fine.writes)
        found += _hide(vcpu.spec, burst)
        return self._irqs_off(vcpu, burst, found)

    def put_2026(self, vcpu: KvmVcpu, *, userenr: bool = True) -> Eventual[None]:
        burst = Burst()
        burst.msr(r.MDCR_EL2, self.mdcr)
        if userenr:
            burst.msr(r.PMUSERENR_EL0, vcpu.host_userenr)
        if vcpu.spec.fgt:
            burst.msr(r.HDFGRTR_EL2, self.reads)
            burst.msr(r.HDFGWTR_EL2, self.writes)
        self._show(vcpu, burst)
        return self._irqs_off(vcpu, burst)

    def _show(self, vcpu: KvmVcpu, burst: Burst) -> None:
        if vcpu.spec.fgt > 1:
            burst.msr(r.HDFGRTR2_EL2, self.reads2)
            burst.msr(r.HDFGWTR2_EL2, self.writes2)

    def _irqs_off(self, vcpu: KvmVcpu, burst: Burst, found: Sequence[int] = ()) -> Eventual[None]:
        """__vcpu_load_activate_traps, __vcpu_put_deactivate_traps: within local_irq_save(). `found`: where in a load
        the host's MDCR_EL2 is read, and the fine-grained traps."""
        irqs = vcpu.local_irq_save()
        values = vcpu.kvm(burst)
        if not isinstance(values, list):
            return self._interrupted(vcpu, values, irqs, found)
        vcpu.irqs = irqs
        self._keep(values, found)
        return None

    async def _interrupted(
        self, vcpu: KvmVcpu, values: Coroutine[Any, Any, list[int]], irqs: Irqs, found: Sequence[int]
    ) -> None:
        """By a pseudo-NMI."""
        read = await values
        vcpu.irqs = irqs
        self._keep(read, found)

    def _keep(self, values: list[int], found: Sequence[int]) -> None:
        if found:
            self.mdcr = values[found[0]]
        if len(found) > 1:
            self.reads, self.writes = values[found[1]], values[found[2]]
        if len(found) > 3:
            self.reads2, self.writes2 = values[found[3]], values[found[4]]


def _hide(cpu: CpuSpec, burst: Burst) -> list[int]:
    """Where in the burst what was there is read."""
    if cpu.fgt < 2:
        return []
    reads2 = burst.mrs(r.HDFGRTR2_EL2)
    burst.msr(r.HDFGRTR2_EL2, 0)
    writes2 = burst.mrs(r.HDFGWTR2_EL2)
    burst.msr(r.HDFGWTR2_EL2, 0)
    return [reads2, writes2]


def _selr_and_userenr(burst: Burst, selr: bool, userenr: bool) -> None:
    """PMSELR_EL0 is not to make an access UNDEFINED that is to trap, and EL0's accesses are to trap to EL2."""
    if selr:
        burst.msr(r.PMSELR_EL0, 0)
    if userenr:
        burst.mrs(r.PMUSERENR_EL0)
        burst.msr(r.PMUSERENR_EL0, USERENR_ALL)
