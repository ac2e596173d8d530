"""The host's PMCR_EL0 while a guest has the register."""

from __future__ import annotations

from dataclasses import dataclass

from services import registers as r
from services.kvm.designs.partitioned.context import PmuContext
from services.kvm.guest_pmu import PMCR_WRITABLE


@dataclass(slots=True)
class HostPmcr:
    """As it was found at the load. With the guest's range split off, MDCR_EL2.HPME stands in for its E meanwhile,
    HLP for its LP."""

    value: int = 0

    async def keep(self, context: PmuContext) -> None:
        """At the load, before the guest's is written."""
        self.value = await context.read(r.PMCR_EL0) & PMCR_WRITABLE
        context.swaps.register_reads += 1

    def hpme(self, context: PmuContext) -> int:
        """MDCR_EL2.HPME from now on: the host's driver stops and starts its range by that."""
        return r.MDCR_EL2_HPME if self.value & r.PMCR_E or not context.on.split else 0

    def hlp(self, context: PmuContext) -> int:
        """MDCR_EL2.HLP: the host's events overflow at the bit at which its own PMCR_EL0.LP has them overflow."""
        return r.MDCR_EL2_HLP if self.value & r.PMCR_LP and context.on.split else 0

    async def follow(self, context: PmuContext) -> None:
        """At the put, while the guest's MDCR_EL2 is live: what the host's driver has left its enable at."""
        if context.on.split:
            running = await context.read(r.MDCR_EL2) & r.MDCR_EL2_HPME
            self.value = self.value & ~r.PMCR_E | (r.PMCR_E if running else 0)
