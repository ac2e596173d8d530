"""Names for a design with certain axes: what published versions really did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from dataclasses import fields as fields_of

from services.kvm.vpmu import Design, axis


@dataclass(frozen=True, slots=True)
class Preset:
    """A design, the axes that make it this version, and one line of why."""

    design: str
    why: str
    axes: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str, base: type[Design]) -> type[Design]:
        """The preset as a design of its own: `base` with other defaults for its axes."""
        types = {one.name: one.type for one in fields_of(base)}
        namespace: dict[str, object] = {"name": name, "why": self.why, "__doc__": self.why}
        annotations: dict[str, object] = {}
        for of_axis, text in self.axes.items():
            known = base.axes()[of_axis]
            default = next(value for value in known.values if value.value == text)
            namespace[of_axis] = axis(default, known.why, values=known.values)
            annotations[of_axis] = types[of_axis]
        namespace["__annotations__"] = annotations
        return dataclass(frozen=True, kw_only=True)(type(name, (base,), namespace))


_V1 = {
    "host_pmcr": "left",
    "host_stop": "pmcr",
    "filters": "undone",
    "userenr": "swapped",
    "hpme": "missing",
    "pmovs": "folded",
    "typer": "write-through",
    "reservation": "static",
    "irq": "whole",
    "n": "settable",
}
_V5 = _V1 | {"hpme": "set", "swap": "lazy-sticky", "free": "blind", "without_fgt": "never-resident"}
_V6 = {
    "host_pmcr": "left",
    "host_stop": "pmcr",
    "filters": "undone",
    "free": "blind",
    "userenr": "left",
    "hpme": "set",
    "pmovs": "memory",
    "typer": "at-load",
    "swap": "lazy-sticky",
}

PRESETS: Mapping[str, Preset] = {
    "emulated-6.12": Preset(
        "emulated", "Linux 6.12: each PMCR_EL0 write disables or enables every counter", {"kernel": "6.12"}
    ),
    "emulated-6.15": Preset(
        "emulated", "Linux 6.15: PMCR_EL0 acts when E changes, at the next entry", {"kernel": "6.15"}
    ),
    "partitioned-v1": Preset(
        "partitioned",
        "v1 (June 2025): eager swap, FEAT_FGT, N is HPMN",
        _V1 | {"swap": "eager", "traps": "fgt", "n": "fixed", "el2": "as-written"},
    ),
    "partitioned-v2": Preset(
        "partitioned",
        "v2 (June 2025): split at boot, works without FEAT_FGT in the hypervisor's fast path, N settable",
        _V1 | {"swap": "eager", "without_fgt": "fast-path"},
    ),
    "partitioned-v4": Preset(
        "partitioned",
        "v4 (July 2025): the first access makes it the guest's for good",
        _V1 | {"swap": "lazy-sticky", "without_fgt": "fast-path"},
    ),
    "partitioned-v5": Preset("partitioned", "v5 (December 2025): HPME set", _V5),
    "partitioned-v6": Preset(
        "partitioned",
        "v6 (February 2026): one canonical copy per register",
        _V6 | {"reservation": "static", "without_fgt": "fast-path"},
    ),
    "partitioned-v7": Preset(
        "partitioned",
        "v7 (May 2026): the host gives counters up at vcpu_load; the lazy transition loads nothing",
        _V6 | {"reservation": "dynamic", "transition": "none"},
    ),
    "partitioned-v8": Preset(
        "partitioned",
        "v8 (June 2026): as v7; the host allocates high to low",
        _V6 | {"reservation": "dynamic", "transition": "none", "allocation": "high-to-low", "without_fgt": "unsplit"},
    ),
}
