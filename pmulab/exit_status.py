"""How a process ends: the exit statuses of pmulab's commands, and any process's in words."""

from __future__ import annotations

import signal
from typing import Final

OK: Final = 0
FAILED: Final = 1
BAD_INPUT: Final = 2
VIOLATED: Final = 3  # an invariant, and it counts; over FAILED
UNSEARCHED: Final = 4  # a search could not be carried out
INTERRUPTED: Final = 128 + signal.SIGINT
BROKEN_PIPE: Final = 128 + signal.SIGPIPE
TERMINATED: Final = 128 + signal.SIGTERM


def describe_exit(status: int) -> str:
    """What to say of a process that has ended with `status`, negative for a signal."""
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"died with exit status {status}"
