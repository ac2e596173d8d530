"""A nursery that is nobody else's business."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import trio


@contextlib.asynccontextmanager
async def open_private_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks raise nothing of their own: what the block raises leaves it as it is, not in a group.

    For context managers that need a nursery and whose users need not know.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        exc = group.exceptions[0]
        context = exc.__context__
        try:
            raise exc
        finally:
            exc.__context__ = context  # not the group
            del exc, context


def first_of(exc: BaseException) -> BaseException:
    """The first exception that is not a group: what to tell a person of several that came at once."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc
