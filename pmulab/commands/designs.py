"""`pmulab designs`."""

from __future__ import annotations

import argparse
import sys
from importlib.resources import files

import orjson

from services.judge.invariants import INVARIANTS
from services.kvm.designs import broken, designs
from services.kvm.vpmu import Axis, Design
from services.result import Victim

_TOWARDS = {Victim.GUEST: "a guest", Victim.HOST: "the host", Victim.NEIGHBOUR: "a guest's neighbours"}


def main(_arguments: argparse.Namespace) -> int:
    sys.stdout.write("\n".join(_lines()) + "\n")
    return 0


def _costs(name: str, axis: str, one: Axis) -> list[str]:
    """What each value of an axis costs a Linux guest, the others being the default, where that has been measured."""
    measured: dict[str, list[int]] = orjson.loads(files("pmulab").joinpath("traffic.json").read_bytes())
    values = {text: f"{name},{axis}={text}" for text in one.texts} | {one.texts[0]: name}
    if not all(label in measured for label in values.values()):
        return []
    alone, beside = (", ".join(f"{text} {measured[of][n]:,}" for text, of in values.items()) for n in range(2))
    return [f"        ns (docs/traffic.md): {alone}; beside host events: {beside}"]


def _given_up(design: type[Design]) -> list[str]:
    """What it declares with its default axes: a line for each victim and reason."""
    found: dict[tuple[Victim, str], list[str]] = {}
    for one in design.make({}).declared:
        found.setdefault((one.victim, one.reason), []).append(one.invariant)
    return [
        f"    gives up towards {_TOWARDS[victim]}: {_listed(names)}: {reason}"
        for (victim, reason), names in found.items()
    ]


def _listed(invariants: list[str]) -> str:
    return "all invariants" if len(invariants) == len(INVARIANTS) else ", ".join(invariants)


def _lines() -> list[str]:
    """A preset, a design that only chooses other defaults, is listed with what it chooses."""
    lines = []
    known = designs()
    for name, design in known.items():
        lines += [f"{name}: {design.why}", *_given_up(design)]
        axes = design.axes()
        parent = next((other for other in known if other != name and known[other] in design.__mro__), None)
        if parent is None:
            for axis, one in axes.items():
                lines += [f"    {axis}={'|'.join(one.texts)}: {one.why}", *_costs(name, axis, one)]
            continue
        defaults = {axis: one.texts[0] for axis, one in known[parent].axes().items()}
        chosen = [f"{axis}={one.texts[0]}" for axis, one in axes.items() if defaults.get(axis) != one.texts[0]]
        lines.append(f"    {','.join([parent, *chosen])}")
    lines += [f"{name}: {error.problem}" for name, error in broken().items()]
    return lines
