"""The vPMU designs that can be asked for: `NAME[,axis=value…]`, checked and with every axis filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.experiment import DesignSpec
from services.tables import near


@dataclass(frozen=True, slots=True)
class Design:
    """One design: why one would want it, and for each axis the values that it knows, the default first.

    The axis `counters` has no list: it takes an integer, and by default what userspace asks for.
    """

    name: str
    why: str
    axes: Mapping[str, tuple[str, ...]]


class DesignError(ValueError):
    """A design that there is not; `remedy` says what there is."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


DESIGNS: dict[str, Design] = {
    design.name: design
    for design in (
        Design(
            "emulated",
            "every guest access traps and is played on host perf events, as in today's kernels",
            {},
        ),
        Design(
            "partitioned",
            "MDCR_EL2.HPMN gives the guest counters of its own, swapped at vcpu_load and vcpu_put",
            {
                "swap": ("eager",),
                "traps": ("fgt",),
                "reservation": ("static",),
                "pmcr": ("untrapped",),
                "counters": (),
            },
        ),
    )
}


def parse_design(text: str) -> DesignSpec:
    """`NAME[,axis=value…]` with the axes that are not named at their defaults. Raises DesignError."""
    name, *settings = (part.strip() for part in text.split(","))
    if name not in DESIGNS:
        raise DesignError(f"unknown design {name!r}", near(name, DESIGNS))
    design = DESIGNS[name]
    axes = {axis: values[0] for axis, values in design.axes.items() if values}
    for setting in settings:
        axis, equals, value = (part.strip() for part in setting.partition("="))
        if not equals:
            raise DesignError(f"{setting!r} in design {text!r} is not axis=value", _axes_of(design))
        if axis not in design.axes:
            remedy = near(axis, design.axes) if design.axes else f"{name} has no axes"
            raise DesignError(f"design {name!r} has no axis {axis!r}", remedy)
        values = design.axes[axis]
        if values and value not in values:
            raise DesignError(f"{axis}={value} is not known to design {name!r}", near(value, values))
        if not values and not (value.isascii() and value.isdecimal()):
            raise DesignError(f"{axis}={value} is not a number of counters", f"write for example {axis}=4")
        axes[axis] = value
    return DesignSpec(name, axes)


def label(design: DesignSpec) -> str:
    """The shortest text that `parse_design` reads as this design."""
    known = DESIGNS[design.name].axes
    named = [f"{axis}={value}" for axis, value in design.axes.items() if not known[axis] or value != known[axis][0]]
    return ",".join([design.name, *named])


def _axes_of(design: Design) -> str:
    example = next(((axis, values[0] if values else "4") for axis, values in design.axes.items()), None)
    return f"write for example {design.name},{example[0]}={example[1]}" if example else f"{design.name} has no axes"
