"""`partitioned`: MDCR_EL2.HPMN gives the guest [0, HPMN) and the cycle counter, the host keeps the rest.

After the posted series "ARM64 PMU Partitioning". The default of each axis is what the series' reviews asked
for; the other values are what posted versions did (`designs/presets.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from services.experiment import CpuSpec
from services.kvm.designs.base import Axis, Design, DesignError
from services.kvm.designs.partitioned_pmu import PartitionedPmu
from services.kvm.guest_pmu import CYCLE_BIT, PMUVER_P1

if TYPE_CHECKING:
    from services.kvm.vcpu import VCpu


class Partitioned(Design):
    """MDCR_EL2.HPMN gives the guest a range of the real counters."""

    name = "partitioned"
    why = "the guest owns counters [0, HPMN) of the hardware; most of its accesses need no trap"
    axes: ClassVar[Mapping[str, Axis]] = {
        "swap": Axis(
            ("eager", "lazy", "lazy-sticky"),
            "when the guest's registers go onto the CPU: at each load; at a load if in use, else at the first access "
            "since; from the first access on, for the vCPU's life",
        ),
        "traps": Axis(
            ("fgt", "fast-path", "slow-path"),
            "FEAT_FGT untraps most accesses; or TPM traps them all, completed in the hypervisor or in the host kernel",
        ),
        "without_fgt": Axis(
            ("slow-path", "fast-path", "unsplit", "never-resident"),
            "what traps=fgt falls back to: the host kernel (v7), the hypervisor (v2-v6), HPMN stays N too (v8), or "
            "nothing that reaches the CPU (v5)",
        ),
        "reservation": Axis(
            ("static", "dynamic"), "when the host gives the guest's range up: at boot, or while a vCPU is resident"
        ),
        "pmcr": Axis(("untrapped", "trapped"), "PMCR_EL0.N as HPMN has it, or by TPMCR as userspace set it"),
        "typer": Axis(
            ("write-through", "at-load"),
            "when a PMEVTYPER write reaches the CPU: at once (v1-v5), at the next load (v6-v8)",
        ),
        "el2": Axis(("excluded", "as-written"), "a guest's wish to count at EL2 is masked, or not (v1)"),
        "pmovs": Axis(
            ("folded", "memory"), "a trapped PMOVS access sees the CPU's flags too, or only those in memory (v6-v8)"
        ),
        "userenr": Axis(("swapped", "left"), "PMUSERENR_EL0 is part of the swap (v1-v5) or not (v6-v8)"),
        "host_pmcr": Axis(
            ("restored", "left"),
            "at put PMCR_EL0 is what the host had, or stays the guest's, whose E=0 then stops the host (v1-v8)",
        ),
        "host_stop": Axis(
            ("hpme", "pmcr"),
            "while a guest is resident the host's driver stops its range by MDCR_EL2.HPME, or all by PMCR_EL0.E",
        ),
        "filters": Axis(
            ("kept", "undone"),
            "the EL0 filters of host events that a reservation reschedules: flipped again, or not (v7, v8)",
        ),
        "hpme": Axis(("set", "missing"), "MDCR_EL2.HPME while loaded: without it the host's counters stop (v1-v4)"),
        "free": Axis(
            ("clean", "blind"), "while not resident the host counts at EL2, or HPMD and HCCD forbid it (v5-v8)"
        ),
        "transition": Axis(
            ("reload", "none"), "does a lazy transition load the guest's state, or only change the traps (v7, v8)?"
        ),
        "n": Axis(
            ("attribute", "settable", "fixed"),
            "PMCR_EL0.N: by the number-of-counters attribute (v6-v8), also by SET_ONE_REG (v2-v5), or the host's one "
            "partition (v1)",
        ),
        "irq": Axis(
            ("split", "whole"),
            "the host's handler clears the guest's flags after its own events (v6-v8), or all at once (v1-v5)",
        ),
        "allocation": Axis(
            ("low-to-high", "high-to-low"), "the order in which the host's driver allocates its event counters (v8)"
        ),
    }

    def every_axis(self) -> dict[str, str]:
        """Every axis of this design; those that a design built on it does not have are at their defaults."""
        return {axis: spec.values[0] for axis, spec in Partitioned.axes.items()} | self.chosen

    def check(self, cpu: CpuSpec, counters: int) -> list[str]:
        if counters > cpu.counters:
            raise DesignError(f"HPMN {counters} is above the {cpu.counters} event counters of {cpu.model}")
        fallbacks = []
        if self.chosen["traps"] == "fgt" and not cpu.fgt:
            fallbacks.append(f"{cpu.model} has no FEAT_FGT: every PMU access traps (MDCR_EL2.TPM)")
        elif self.chosen["traps"] == "fgt" and cpu.icntr and cpu.fgt < 2:
            fallbacks.append(f"{cpu.model} has no FEAT_FGT2 to hide PMICNTR_EL0 with: every PMU access traps")
        if self.chosen["traps"] == "fast-path" and cpu.pmuver < PMUVER_P1:
            raise DesignError(f"traps=fast-path needs FEAT_PMUv3p1, which {cpu.model} lacks; use traps=slow-path")
        if counters == 0 and not cpu.hpmn0:
            fallbacks.append(f"{cpu.model} has no FEAT_HPMN0: HPMN stays {cpu.counters} and every PMU access traps")
        return fallbacks

    @property
    def partition(self) -> int:
        """Event counters in the range that the guests want."""
        return (self.guest_range & ~CYCLE_BIT).bit_count()

    def host_counters(self, cpu: CpuSpec) -> int:
        everything = ((1 << cpu.counters) - 1) | CYCLE_BIT
        return everything if self.chosen["reservation"] == "dynamic" else everything & ~self.guest_range

    @property
    def high_to_low(self) -> bool:
        return self.chosen.get("allocation") == "high-to-low"

    @property
    def pmcr_n(self) -> str:
        return self.chosen.get("n", "attribute")

    @property
    def split_irq(self) -> bool:
        return self.chosen.get("irq") != "whole"

    def vpmu(self, vcpu: VCpu) -> PartitionedPmu:
        return PartitionedPmu(self, vcpu)
