"""The vPMU designs: one file each here, or an entry point of the group `pmulab.designs` in somebody else's package."""

from __future__ import annotations

from importlib.metadata import entry_points

from services.experiment import DesignSpec
from services.kvm.designs.base import Axis, Design, DesignError, Swaps, Vpmu
from services.kvm.designs.presets import PRESETS

__all__ = ["Axis", "Design", "DesignError", "Swaps", "Vpmu", "designs", "make"]


def designs() -> dict[str, type[Design]]:
    """Every design there is, presets among them, by name. Raises DesignError for an entry point that is no design."""
    found: dict[str, type[Design]] = {}
    for point in sorted(entry_points(group="pmulab.designs"), key=lambda point: point.name):
        design = point.load()
        if not (isinstance(design, type) and issubclass(design, Design)):
            raise DesignError(f"entry point {point.name!r} ({point.value}) of group pmulab.designs is no Design")
        found[point.name] = design
    for name, preset in PRESETS.items():
        found[name] = preset.of(name, found[preset.design])
    return found


def make(spec: DesignSpec) -> Design:
    """The design that `spec` names. Raises DesignError."""
    known = designs()
    if spec.name not in known:
        raise DesignError(f"unknown design {spec.name!r}; there are: {', '.join(known)}")
    return known[spec.name].make(spec.axes)
