"""A progress line on a terminal; nothing where there is none."""

from __future__ import annotations

import heapq
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType

INTERVAL = 0.1  # seconds between two drawings, in wall time
_WIDEST, _NARROWEST = 30, 5  # of a bar


class Line:
    """A line on standard error, drawn over the one before and cleared at the end."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._drawn = 0.0

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._shown:
            _write("\r\x1b[K")

    def draw(self, text: Callable[[], str]) -> None:
        """Unless the last one has only just been drawn."""
        now = time.monotonic()
        if self._shown and now - self._drawn >= INTERVAL:
            self._drawn = now
            _write(f"\r{text()[: shutil.get_terminal_size().columns - 1]}\x1b[K")


class Estimate:
    """How long designs will take that run `at_once` at a time, in wall seconds from the beginning."""

    def __init__(self, designs: Sequence[str], at_once: int) -> None:
        self._at_once = min(at_once, len(designs))
        self._waiting = set(designs)
        self._began: dict[str, tuple[float, float]] = {}  # when a design was first heard of, and its share then
        self._last: dict[str, tuple[float, float]] = {}  # when its share last grew, and its share since then

    def tell(self, design: str, share: float, wall_seconds: float) -> None:
        """`share` of the work of a design is done, 1 at its end."""
        self._waiting.discard(design)
        self._began.setdefault(design, (wall_seconds, share))
        if share > self._last.get(design, (0.0, -1.0))[1]:
            self._last[design] = wall_seconds, share

    def left(self, wall_seconds: float) -> float | None:
        """Wall seconds up to the end of all: each design goes on as it has, and one that waits takes as long as those
        that have begun take on average, as soon as another has ended. None while there is nothing to go by.
        """
        whole: dict[str, float] = {}
        for design, (began, before) in self._began.items():
            at, share = self._last[design]
            if share > before:
                whole[design] = ((at if share == 1 else wall_seconds) - began) / (share - before)
        if not whole:
            return None
        average = sum(whole.values()) / len(whole)
        running = [whole.get(design, average) * (1 - share) for design, (_, share) in self._last.items() if share < 1]
        places = [*running, *[0.0] * (self._at_once - len(running))]
        heapq.heapify(places)
        for _ in self._waiting:
            heapq.heapreplace(places, places[0] + average)
        return max(places)


class Progress:
    """One line on standard error with a bar for each design, redrawn in place and cleared at the end."""

    def __init__(self, designs: Sequence[str], at_once: int = 1) -> None:
        self._shares = dict.fromkeys(designs, 0.0)
        self._virtual_seconds = dict.fromkeys(designs, 0.0)
        self._estimate = Estimate(designs, at_once)
        self._line = Line()
        self._began = time.monotonic()

    def __enter__(self) -> Progress:
        self._line.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._line.__exit__(kind, error, traceback)

    def update(self, design: str, share: float, virtual_seconds: float) -> None:
        """`share` of the work of a design is done, 0 to 1, and 1 once it has ended."""
        self._shares[design] = share = min(max(share, 0.0), 1.0)
        self._virtual_seconds[design] = virtual_seconds
        wall_seconds = time.monotonic() - self._began
        self._estimate.tell(design, share, wall_seconds)
        self._line.draw(lambda: self.line(shutil.get_terminal_size().columns - 1, wall_seconds))

    def line(self, columns: int, wall_seconds: float) -> str:
        """The line, in at most `columns` characters."""
        if len(self._shares) == 1:
            (seconds,) = self._virtual_seconds.values()
            end = f"  {seconds:.2f} s virtual, {wall_seconds:.0f} s"
        else:
            end = f"  {wall_seconds:.0f} s"
        left = self._estimate.left(wall_seconds)
        if left is not None:
            end += f", {left:.0f} s left"
        for width in range(_WIDEST, _NARROWEST - 1, -1):
            bars = "  ".join(f"{design} {_bar(share, width)}" for design, share in self._shares.items())
            if len(bars + end) <= columns:
                return bars + end
        whole = sum(self._shares.values()) / len(self._shares)
        return f"{len(self._shares)} designs {_bar(whole, _NARROWEST)}{end}"[:columns]


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _bar(share: float, width: int) -> str:
    full = int(share * width)
    return f"[{'#' * full}{'.' * (width - full)}] {100 * share:3.0f} %"
