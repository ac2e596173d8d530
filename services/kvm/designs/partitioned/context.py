"""A guest's PMU context: where the live copy of its registers is."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from services import registers as r
from services._pmu import Burst
from services.costs import Cost
from services.cpu import Eventual, awaited
from services.kvm.bill import Account
from services.kvm.designs.partitioned.guest_range import GuestRange
from services.kvm.designs.partitioned.trap_controls import NARROW, UNTIL_FULL, fine_grained
from services.kvm.guest_pmu import GuestPmu
from services.kvm.trap_setup import NONE, FineGrained
from services.kvm.vpmu import KvmVcpu, Swaps, Vpmu
from services.state import derived


def _enables() -> Burst:
    burst = Burst()
    burst.mrs(r.PMINTENSET_EL1)
    burst.mrs(r.PMCR_EL0)
    return burst


@dataclass(eq=False, slots=True)
class PmuContext:
    """On the CPU while the vCPU is loaded and owns its range there (GUEST_OWNED), in `pmu` otherwise (FREE)."""

    owned: bool = False
    loaded: bool = False

    vcpu: KvmVcpu = derived(init=False)
    pmu: GuestPmu = derived(init=False)
    swaps: Swaps = derived(init=False)
    on: GuestRange = derived(init=False)  # what is its on the CPU that the vCPU is on; CPUs may differ
    n: int = derived(init=False)  # PMCR_EL0.N as a trapped read finds it
    most: int = derived(init=False)  # event counters that `on` may come to have while the vCPU is loaded
    beyond: int = derived(init=False)  # those that it does not have yet, one bit each: they are in memory
    # One register of the CPU.
    read: Callable[[int], Coroutine[Any, Any, int]] = derived(init=False)
    write: Callable[[int, int], Coroutine[Any, Any, None]] = derived(init=False)
    on_status: Burst = derived(init=False, default_factory=_enables)  # what `enables` reads

    def fit(self, of: Vpmu, on: GuestRange, n: int, most: int | None = None) -> None:
        """To the CPU that the vCPU is on. `most`: None if it has them all."""
        self.vcpu, self.pmu, self.swaps = of.vcpu, of.pmu, of.swaps
        self.read, self.write = of.vcpu.read, of.vcpu.write
        self.on, self.n, self.most = on, n, on.hpmn if most is None else most
        self.beyond = (1 << self.most) - (1 << on.hpmn)

    @property
    def full(self) -> bool:
        """Has it all the event counters that it may come to have?"""
        return self.on.hpmn == self.most

    @property
    def resident(self) -> bool:
        """Is the live copy on the CPU?"""
        return self.owned and self.loaded

    def more_traps(self) -> FineGrained:
        """What traps besides: while its counters are not all on the CPU, or where they are wider there."""
        if not self.full:
            return UNTIL_FULL
        return NARROW if self.pmu.pmuver < r.PMUVER_P5 <= self.on.cpu.pmuver else NONE

    async def set_traps(self, mdcr: int) -> None:
        """The trap controls while the vCPU is loaded: MDCR_EL2, and the fine-grained ones where there are any."""
        fine = fine_grained(True, self.more_traps())
        await self._set_traps(mdcr, fine.reads, fine.writes, 0, 0)

    async def lift_traps(self) -> None:
        """The host's trap controls: none, and every counter is in its range."""
        await self._set_traps(self.vcpu.spec.counters, 0, 0, r.HDFGRTR2_PMU, r.HDFGWTR2_PMU)

    async def _set_traps(self, mdcr: int, reads: int, writes: int, reads2: int, writes2: int) -> None:
        burst = Burst()
        burst.msr(r.MDCR_EL2, mdcr)
        if self.vcpu.spec.fgt:
            burst.msr(r.HDFGRTR_EL2, reads)
            burst.msr(r.HDFGWTR_EL2, writes)
        if self.vcpu.spec.fgt > 1:
            burst.msr(r.HDFGRTR2_EL2, reads2)
            burst.msr(r.HDFGWTR2_EL2, writes2)
        await awaited(self.vcpu.kvm(burst))

    @contextmanager
    def charged_to_swap(self) -> Iterator[None]:
        """A swap within a trap is not the trap's cost."""
        before = self.vcpu.set_account(Account.SWAP)
        yield
        self.vcpu.set_account(Account(before))

    async def change_overflows(self, change: Callable[[int], int]) -> None:
        """Read PMOVSSET_EL0 in memory, and write back what `change` makes of it: a load, taken to last as long as the
        read of a register, then a store, which undoes what an interrupt has stored in between."""
        flags = self.pmu.ovs
        await self.vcpu.charge(Cost.MRS)
        self.pmu.ovs = change(flags)

    async def change_overflows_irqs_off(self, change: Callable[[int], int]) -> None:
        """The same within local_irq_save(), which leaves pseudo-NMIs."""
        vcpu = self.vcpu
        irqs = vcpu.local_irq_save()
        await self.change_overflows(change)
        vcpu.irqs = irqs

    # The guest's interrupt.

    def enables(self) -> Eventual[list[int]]:
        """PMINTENSET_EL1 and PMCR_EL0 of the CPU, which make the guest's interrupt of its flags."""
        return self.vcpu.kvm(self.on_status)

    async def overflow_status(self) -> bool:
        """kvm_pmu_part_overflow_status: the flags are in memory, the enables on the CPU while resident."""
        pmu, on = self.pmu, self.on
        if not pmu.ovs & on.mask:
            return False
        if not (self.owned and self.loaded):
            return bool(pmu.pmcr & r.PMCR_E and pmu.ovs & pmu.inten & on.mask)
        inten, pmcr = await awaited(self.enables())
        if not on.split:
            pmcr = pmu.pmcr
        return bool(pmcr & r.PMCR_E and pmu.ovs & inten & on.mask)

    def may_interrupt(self, register: int, write: bool) -> bool:
        """May a trapped access interrupt the guest by flags in memory, of which the CPU knows nothing?"""
        if not write:
            return False
        if register == r.PMOVSSET_EL0:
            return True
        return bool(self.pmu.ovs & self.on.mask) and register in (r.PMINTENSET_EL1, r.PMCR_EL0)

    def take_overflows(self, mask: int) -> None:
        """kvm_pmu_handle_guest_irq: the flags, which the host's handler has cleared, go into memory."""
        if self.owned and self.loaded:
            self.pmu.ovs |= mask & self.on.mask
