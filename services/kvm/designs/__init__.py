"""The vPMU designs: one file each here, or an entry point of the group `pmulab.designs` in somebody else's package."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import entry_points

from services.core_pmus import core_pmus
from services.experiment import NO_PARTITION, DesignSpec, Experiment, GuestSpec
from services.kvm import parameter
from services.kvm.designs import emulated, partitioned
from services.kvm.vpmu import Design, DesignError
from services.registers import counter_mask
from services.tables import near


@cache
def offered() -> dict[str, type[Design] | DesignError]:
    """What each entry point gives, by its name: a design, or why there is none."""
    found: dict[str, type[Design] | DesignError] = {}
    for point in sorted(entry_points(group="pmulab.designs"), key=lambda point: point.name):
        where = f"entry point {point.name!r} ({point.value}) of group pmulab.designs"
        try:
            design = point.load()
        except Exception as error:  # whatever somebody else's module raises concerns its designs alone
            problem = f"{where} cannot be loaded: {type(error).__name__}: {error}"
            found[point.name] = DesignError(problem, "mend or uninstall its package")
            continue
        if isinstance(design, type) and issubclass(design, Design):
            found[point.name] = design
        else:
            remedy = "name a subclass of services.kvm.vpmu.Design, or uninstall its package"
            found[point.name] = DesignError(f"{where} is not a Design", remedy)
    return found


def designs() -> dict[str, type[Design]]:
    """Every design there is, by name."""
    found = {name: design for name, design in offered().items() if not isinstance(design, DesignError)}
    for version in (*emulated.VERSIONS, *partitioned.VERSIONS):
        found[version.name] = version
    return found


def broken() -> dict[str, DesignError]:
    """The entry points that give no design, by name, and why."""
    return {name: error for name, error in offered().items() if isinstance(error, DesignError)}


def named(name: str) -> type[Design]:
    """The design of that name. Raises DesignError."""
    known = designs()
    unlisted = {design.name: design for design in partitioned.UNLISTED}
    if name in known:
        return known[name]
    if name in unlisted:
        return unlisted[name]
    raise broken().get(name) or DesignError(f"unknown design {name!r}", near(name, known))


def make(spec: DesignSpec, guests: Iterable[GuestSpec] = ()) -> Design:
    """The design that `spec` names, on a machine with `guests`. Raises DesignError."""
    guest_range = 0
    for guest in _with_pmu(guests):
        guest_range |= counter_mask(guest.counters)
    return named(spec.name).make(spec.axes, guest_range)


def _with_pmu(guests: Iterable[GuestSpec]) -> Iterator[GuestSpec]:
    """What a guest without a PMU asks for concerns no design."""
    return (guest for guest in guests if guest.pmuver)


def fallbacks(design: Design, experiment: Experiment) -> list[str]:
    """What `design` falls back on in `experiment` for want of a feature, in words. Raises DesignError."""
    found: set[str] = set()
    pmus = core_pmus(experiment.cpus)
    for guest in _with_pmu(experiment.guests):
        pinned = {vcpu.pcpu for vcpu in guest.vcpus}
        if design.one_pmu and len(pmus) > 1 and not any(pinned <= set(pmu.cpus) for pmu in pmus):
            raise DesignError(
                f"{guest.name} has no PMU until one is chosen (KVM_ARM_VCPU_PMU_V3_SET_PMU), and is on its CPUs",
                "pin its vCPUs to the pCPUs of one of " + ", ".join(pmu.name for pmu in pmus),
            )
        cpus = guest.allowed(experiment.cpus)
        counters = design.nr_counters(cpus, guest.counters)
        if counters < guest.counters:
            limited = any(cpu.max_guest_counters == counters for cpu in cpus)
            leaves = "reserved_host_counters" if limited else design.name
            found.add(f"{guest.name} gets {counters} event counters: {leaves} leaves no more")
        elif counters > guest.counters:
            found.add(f"{guest.name} gets {counters} event counters, not {guest.counters}: PMCR_EL0 does not trap")
        if guest.denied and not design.filters_events:
            found.add(f"{guest.name}'s event filter is not enforced: what its counters count does not trap")
        for cpu in cpus:
            found.update(design.check(cpu, counters))
    if not design.parameter and any((cpu.reserved_host_counters or NO_PARTITION) > 0 for cpu in experiment.cpus):
        found.add(f"reserved_host_counters reserves nothing: {design.name} does not read it")
    return [*sorted(found), *parameter.failures(design, experiment)]
