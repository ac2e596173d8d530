"""`pmulab registers`."""

from __future__ import annotations

import argparse
import sys

from services._pmu import register_encoding, register_names

# (op0, op1, CRn, CRm, op2) in the 16 bits of an encoding, as KVM's ONE_REG ids have them: shift and width.
_FIELDS = ((14, 2), (11, 3), (7, 4), (3, 4), (0, 3))


def main(_arguments: argparse.Namespace) -> int:
    lines = [f"{'register':24} {'op0,op1,CRn,CRm,op2':20} encoding"]
    for name in register_names():
        encoding = register_encoding(name)
        operands = ",".join(str(encoding >> shift & (1 << width) - 1) for shift, width in _FIELDS)
        lines.append(f"{name:24} {operands:20} {encoding:#06x}")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
