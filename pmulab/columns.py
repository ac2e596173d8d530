"""Tables of text, in columns."""

from __future__ import annotations

import textwrap

WIDTH = 118  # of a line of prose
_WRAPPED = 30  # characters of a line of a cell that holds a sentence


def align(table: list[list[str]], left: int) -> str:
    """Columns two spaces apart, the first `left` of them aligned to the left, the others to the right.

    Cells may have several lines.
    """
    lines = [line for row in table for line in _lines(row)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(table[0]))]
    aligned = []
    for line in lines:
        cells = [
            cell.ljust(width) if n < left else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        aligned.append("  ".join(cells).rstrip())
    return "\n".join(aligned)


def wrap(sentence: str) -> str:
    """A sentence as a cell of several short lines, padded to one length so that they stay aligned to the left."""
    lines = textwrap.wrap(sentence, _WRAPPED)
    width = max((len(line) for line in lines), default=0)
    return "\n".join(line.ljust(width) for line in lines)


def _lines(row: list[str]) -> list[list[str]]:
    """A row as lines; cells that have fewer than the others are empty there."""
    cells = [cell.split("\n") for cell in row]
    height = max(len(cell) for cell in cells)
    return [[cell[n] if n < len(cell) else "" for cell in cells] for n in range(height)]
