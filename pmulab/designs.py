"""Designs as a user writes them, `NAME[,axis=value…]`."""

from __future__ import annotations

from services.experiment import DesignSpec
from services.kvm.designs import named
from services.kvm.vpmu import DesignError


def parse_design(text: str) -> DesignSpec:
    """`NAME[,axis=value…]` with the axes that are not named at their defaults. Raises DesignError."""
    name, *settings = (part.strip() for part in text.split(","))
    design = named(name)
    chosen: dict[str, str] = {}
    for setting in settings:
        axis, equals, value = (part.strip() for part in setting.partition("="))
        if not equals:
            raise DesignError(f"{setting!r} in design {text!r} is not axis=value", design.known_axes())
        if axis in chosen:
            raise DesignError(f"axis {axis!r} is given twice in design {text!r}", "leave one out")
        chosen[axis] = value
    return DesignSpec(name, design.make(chosen).chosen())


def label(design: DesignSpec) -> str:
    """The shortest text that `parse_design` reads as this design."""
    axes = named(design.name).axes()
    chosen = [f"{axis}={value}" for axis, value in design.axes.items() if value != axes[axis].texts[0]]
    return ",".join([design.name, *chosen])


def heading(design: DesignSpec) -> str:
    """`label` as it is printed: with a mark if much of the design is inferred."""
    return f"{label(design)} (unverified)" if named(design.name).unverified else label(design)
