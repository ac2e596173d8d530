"""A progress line on a terminal; nothing where there is none."""

from __future__ import annotations

import sys
import time
from types import TracebackType

_INTERVAL = 0.1  # seconds between two drawings
_WIDTH = 30


class Progress:
    """One line on standard error, redrawn in place and cleared at the end."""

    def __init__(self, title: str) -> None:
        self._title = title
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

    def update(self, done: float, virtual_seconds: float) -> None:
        """`done` is the share of the work that is done, 0 to 1."""
        now = time.monotonic()
        if not self._shown or now - self._drawn < _INTERVAL:
            return
        self._drawn = now
        full = int(min(max(done, 0.0), 1.0) * _WIDTH)
        bar = "#" * full + "." * (_WIDTH - full)
        text = f"{self._title} [{bar}] {100 * done:3.0f} %  {virtual_seconds:.2f} s virtual, {now - self._began:.0f} s"
        self._write(f"\r{text}\x1b[K")

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
