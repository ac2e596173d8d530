"""SIGINT and SIGTERM for a command that has processes to end in order."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Stopped:
    """Which signal ended the block, 0 if none did."""

    signal = 0


@asynccontextmanager
async def stopped_by_signal() -> AsyncIterator[Stopped]:
    """Cancel the block when SIGINT or SIGTERM arrives."""
    stopped = Stopped()

    async def watch(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                stopped.signal = number
                nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(watch)
            yield stopped
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise
