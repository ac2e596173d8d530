"""Bring the tables of `docs/invariants.md` up to date.

python -m docs.invariants
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from services._pmu import judge_windows
from services.judge.invariants import INVARIANTS
from services.judge.sources import SOURCES

PAGE = Path(__file__).with_name("invariants.md")


def page() -> str:
    """The page with its tables as they are to be."""
    invariants = [(one.name, one.claim, one.observed) for one in INVARIANTS.values()]
    kinds = [(f"`{kind}`", of.replace("{register}", "the register")) for kind, of in SOURCES.items()]
    text = filled(PAGE, PAGE.read_text(), "invariants", ("", "What holds", "What is compared"), invariants)
    text = filled(PAGE, text, "kinds", ("Kind", "What has the rule"), kinds)
    return filled(
        PAGE, text, "windows", ("Window", "Opened by", "Closed by", "Allowed meanwhile", "Source"), judge_windows()
    )


def lines(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table."""
    for row in (header, ["---"] * len(header), *rows):
        yield "| " + " | ".join(row) + " |"


def filled(page: Path, text: str, block: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The text of a page with a block's table."""
    table = "\n".join(lines(header, rows))
    filled, count = re.subn(
        rf"(<!-- {block} -->\n).*?(<!-- /{block} -->)",
        lambda match: f"{match[1]}{table}\n{match[2]}",
        text,
        flags=re.DOTALL,
    )
    if count != 1:
        raise SystemExit(f"{page} has {count} blocks {block!r}, not one")
    return filled


if __name__ == "__main__":
    PAGE.write_text(page())
