"""`pmulab designs`."""

from __future__ import annotations

import argparse
import sys

from pmulab import designs


def main(_arguments: argparse.Namespace) -> int:
    sys.stdout.write("\n".join(_lines()) + "\n")
    return 0


def _lines() -> list[str]:
    """A preset, a design that only chooses other defaults, is told by what it chooses."""
    lines = []
    available = designs.available()
    for name, design in available.items():
        lines.append(f"{name}: {design.why}")
        parent = next((other for other in available if other != name and available[other] in design.__mro__), None)
        if parent is None:
            lines += [f"    {axis}={'|'.join(spec.values)}: {spec.why}" for axis, spec in design.axes.items()]
            continue
        defaults = {axis: spec.values[0] for axis, spec in available[parent].axes.items()}
        chosen = [
            f"{axis}={spec.values[0]}" for axis, spec in design.axes.items() if defaults.get(axis) != spec.values[0]
        ]
        lines.append(f"    {','.join([parent, *chosen])}")
    return lines
