"""`pmulab designs`."""

from __future__ import annotations

import argparse
import sys

from services.kvm.designs import designs


def main(_arguments: argparse.Namespace) -> int:
    sys.stdout.write("\n".join(_lines()) + "\n")
    return 0


def _lines() -> list[str]:
    """A preset, a design that only chooses other defaults, is listed with what it chooses."""
    lines = []
    known = designs()
    for name, design in known.items():
        lines.append(f"{name}: {design.why}")
        axes = design.axes()
        parent = next((other for other in known if other != name and known[other] in design.__mro__), None)
        if parent is None:
            lines += [f"    {axis}={'|'.join(one.texts)}: {one.why}" for axis, one in axes.items()]
            continue
        defaults = {axis: one.texts[0] for axis, one in known[parent].axes().items()}
        chosen = [f"{axis}={one.texts[0]}" for axis, one in axes.items() if defaults.get(axis) != one.texts[0]]
        lines.append(f"    {','.join([parent, *chosen])}")
    return lines
