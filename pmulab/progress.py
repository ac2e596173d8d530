"""A progress line on a terminal; nothing where there is none."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from types import TracebackType

INTERVAL = 0.1  # seconds between two drawings, in wall time
_WIDEST, _NARROWEST = 30, 5  # of a bar


class Progress:
    """One line on standard error with a bar for each design, redrawn in place and cleared at the end."""

    def __init__(self, designs: Sequence[str]) -> None:
        self._shares = dict.fromkeys(designs, 0.0)
        self._virtual_seconds = dict.fromkeys(designs, 0.0)
        self._first: dict[str, float] = {}  # when a design was first heard of, in wall seconds from the beginning
        self._shown = sys.stderr.isatty()
        self._began = time.monotonic()
        self._drawn = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._shown:
            self._write("\r\x1b[K")

    def update(self, design: str, share: float, virtual_seconds: float) -> None:
        """`share` of the work of a design is done, 0 to 1."""
        self._shares[design] = min(max(share, 0.0), 1.0)
        self._virtual_seconds[design] = virtual_seconds
        now = time.monotonic()
        self._first.setdefault(design, now - self._began)
        if self._shown and now - self._drawn >= INTERVAL:
            self._drawn = now
            self._write(f"\r{self.line(shutil.get_terminal_size().columns - 1, now - self._began)}\x1b[K")

    def line(self, columns: int, wall_seconds: float) -> str:
        """The line, in at most `columns` characters."""
        if len(self._shares) == 1:
            (seconds,) = self._virtual_seconds.values()
            end = f"  {seconds:.2f} s virtual, {wall_seconds:.0f} s"
        else:
            end = f"  {wall_seconds:.0f} s"
        left = self._left(wall_seconds)
        if left is not None:
            end += f", {left:.0f} s left"
        for width in range(_WIDEST, _NARROWEST - 1, -1):
            bars = "  ".join(f"{design} {_bar(share, width)}" for design, share in self._shares.items())
            if len(bars + end) <= columns:
                return bars + end
        whole = sum(self._shares.values()) / len(self._shares)
        return f"{len(self._shares)} designs {_bar(whole, _NARROWEST)}{end}"[:columns]

    def _left(self, wall_seconds: float) -> float | None:
        """Wall seconds up to the end, each design going on as it has: those that wait take as long as the others and
        run in their places. None while there is nothing to go by.
        """
        running = {design: share for design, share in self._shares.items() if design in self._first and 0 < share < 1}
        if not running:
            return None
        whole = {design: (wall_seconds - self._first[design]) / share for design, share in running.items()}
        left = [whole[design] * (1 - share) for design, share in running.items()]
        waiting = (len(self._shares) - len(self._first)) * sum(whole.values()) / len(whole)
        return max(*left, (sum(left) + waiting) / len(left))

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def _bar(share: float, width: int) -> str:
    full = int(share * width)
    return f"[{'#' * full}{'.' * (width - full)}] {100 * share:3.0f} %"
