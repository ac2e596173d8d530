"""The PMUs of a machine's CPUs as its kernel has them, one `arm_pmu` for each kind of core; whether KVM has any."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.cores import PMUVER
from services.experiment import CpuSpec


@dataclass(frozen=True, slots=True)
class CorePmu:
    """One of the host's `arm_pmu`s: its name as devicetree gives it, and the CPUs that it covers."""

    name: str
    cpus: tuple[int, ...]


def core_pmus(cpus: Sequence[CpuSpec]) -> tuple[CorePmu, ...]:
    """All of them, in the order of their first CPUs. CPUs that differ in what their PMU has are not of one kind."""
    kinds: dict[CpuSpec, list[int]] = {}
    for number, cpu in enumerate(cpus):
        kind = replace(cpu, fgt=0, hpmn0=False, pmi_delay=0, reserved_host_counters=None)
        kinds.setdefault(kind, []).append(number)
    names = [f"armv8_{re.sub(r'[^0-9a-z]+', '_', kind.model.lower())}" for kind in kinds]
    return tuple(
        CorePmu(name if names.count(name) == 1 else f"{name}_{names[:n].count(name)}", tuple(covered))
        for n, (name, covered) in enumerate(zip(names, kinds.values(), strict=True))
    )


def no_vpmu(cpus: Sequence[CpuSpec]) -> str:
    """Why KVM has no vPMU at all, whatever its design: ID_AA64DFR0_EL1.PMUVer is one value for all CPUs, or none.

    Where it differs, the sanitised register has 0 (kvm_host_pmu_init, Linux 6.12). Empty if it does not.
    """
    versions: dict[int, list[str]] = {}
    for number, cpu in enumerate(cpus):
        versions.setdefault(cpu.pmuver, []).append(str(number))
    if len(versions) == 1:
        return ""
    having = ", ".join(f"{PMUVER[version]} on pCPU {', '.join(on)}" for version, on in versions.items())
    return f"PMUVer differs over the CPUs ({having}), so that KVM has no vPMU"
