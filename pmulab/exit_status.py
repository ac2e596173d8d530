"""How a process ended, in words."""

from __future__ import annotations

import signal


def describe_exit(status: int) -> str:
    """What to say of a process that has ended with `status`, negative for a signal."""
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"died with exit status {status}"
