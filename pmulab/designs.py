"""Designs as a user writes them, `NAME[,axis=value…]`: checked, and with every axis filled in."""

from __future__ import annotations

from functools import cache

from services.experiment import DesignSpec, Experiment
from services.kvm import designs as registry
from services.tables import near


class DesignError(ValueError):
    """A design that cannot be had; `remedy` says what can."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


@cache
def available() -> dict[str, type[registry.Design]]:
    """Every design there is, pmulab's own and those of other packages, by name."""
    return registry.designs()


def parse_design(text: str) -> DesignSpec:
    """`NAME[,axis=value…]` with the axes that are not named at their defaults. Raises DesignError."""
    name, *settings = (part.strip() for part in text.split(","))
    if name not in available():
        raise DesignError(f"unknown design {name!r}", near(name, available()))
    axes = available()[name].axes
    chosen: dict[str, str] = {}
    for setting in settings:
        axis, equals, value = (part.strip() for part in setting.partition("="))
        if not equals:
            raise DesignError(f"{setting!r} in design {text!r} is not axis=value", _known_axes(name))
        if axis not in axes:
            raise DesignError(f"design {name!r} has no axis {axis!r}", _known_axes(name))
        if axis in chosen:
            raise DesignError(f"axis {axis!r} is there twice in design {text!r}", "leave one out")
        if value not in axes[axis].values:
            raise DesignError(
                f"axis {axis!r} of design {name!r} has no value {value!r}", near(value, axes[axis].values)
            )
        chosen[axis] = value
    return DesignSpec(name, available()[name].make(chosen).chosen)


def label(design: DesignSpec) -> str:
    """The shortest text that `parse_design` reads as this design."""
    axes = available()[design.name].axes
    named = [f"{axis}={value}" for axis, value in design.axes.items() if value != axes[axis].values[0]]
    return ",".join([design.name, *named])


def fallbacks(experiment: Experiment) -> tuple[str, ...]:
    """What the design falls back on for want of a feature, in words. Raises DesignError if it cannot be had at all."""
    design = registry.make(experiment.design)
    words: dict[str, None] = {}
    try:
        for guest in experiment.guests:
            pinned = [vcpu.pcpu for vcpu in guest.vcpus]
            cpus = experiment.cpus if -1 in pinned else [experiment.cpus[pcpu] for pcpu in pinned]
            for cpu in cpus:
                words.update(dict.fromkeys(design.check(cpu, guest.counters)))
    except registry.DesignError as error:
        raise DesignError(str(error), "change the design, [machine] or the guest's counters") from None
    return tuple(words)


def _known_axes(name: str) -> str:
    axes = available()[name].axes
    if not axes:
        return f"{name} has no axes: write {name} alone"
    return "its axes are " + ", ".join(f"{axis}={'|'.join(spec.values)}" for axis, spec in axes.items())
