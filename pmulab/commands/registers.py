"""`pmulab registers`: the two tables that the core decides accesses by."""

from __future__ import annotations

import argparse
import sys
import textwrap

from pmulab.columns import WIDTH
from services import _pmu


def main(_arguments: argparse.Namespace) -> int:
    sys.stdout.write("\n".join([*_registers(), "", *_rules()]) + "\n")
    return 0


def _registers() -> list[str]:
    head = (
        "register",
        "op0,op1,CRn,CRm,op2",
        "exists with",
        "EL",
        "EL0 read",
        "EL0 write",
        "traps",
        "fine-grained",
        "HPMN",
    )
    rows = [head]
    for row in _pmu.register_rows():
        traps = " ".join(name for name, set_ in (("TPM", row.tpm), ("TPMCR", row.tpmcr)) if set_)
        rows.append(
            (
                row.name + ("*" if row.unverified else ""),
                encoding(row.encoding),
                row.feature,
                f"{row.lowest_el}+",
                row.user_read if row.read else "no reads",
                row.user_write if row.write else "no writes",
                traps,
                _fine_grained(row),
                {"": "", "bits of accessible counters": "bits", "number of accessible counters": "N, P"}[row.view],
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return [
        "Who may access a register, and what traps it. EL0: any of these bits of PMUSERENR_EL0. HPMN: what it masks.",
        "",
        *("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows),
        "",
        "* the register's page was not at hand, or is followed in part",
    ]


def _fine_grained(row: _pmu.Row) -> str:
    """The field that traps both directions, or each by itself."""
    read, write = (name.partition(".")[2] for name in (row.trap_read, row.trap_write))
    if read == write:
        return read
    return " ".join(f"{name}:{direction}" for name, direction in ((read, "r"), (write, "w")) if name)


def _rules() -> list[str]:
    lines = ["Rules, in the order in which they are applied; an access to which none applies is executed.", ""]
    for number, rule in enumerate(_pmu.rules(), 1):
        lines.append(f"{number:2} {rule.name}{'*' if rule.unverified else ''}")
        choice = f"; --feature {rule.choice}=… says what then happens" if rule.choice else ""
        lines += textwrap.wrap(rule.text + choice, WIDTH, initial_indent="   ", subsequent_indent="   ")
        lines.append(f"   [{rule.source}]")
    return lines


def encoding(packed: int) -> str:
    """An encoding as op0,op1,CRn,CRm,op2."""
    return f"{packed >> 14},{packed >> 11 & 7},{packed >> 7 & 15},{packed >> 3 & 15},{packed & 7}"
