"""An actor as a process of its own: its command line, how it is told to stop, and how it fails."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio

from services.rpc import Address

GRACE = 4.0  # seconds that an actor has to end in order after a signal


class Failure(Exception):
    """The actor cannot go on; the text is for people. The process ends with status 1."""


def parser(name: str, what: str) -> argparse.ArgumentParser:
    """The options that every actor has."""
    arguments = argparse.ArgumentParser(prog=f"python -m services.{name}", description=what, allow_abbrev=False)
    arguments.add_argument(
        "--with-parent", action="store_true", help="end when standard input closes: whoever started this has gone"
    )
    return arguments


def address(text: str) -> Address:
    """The type of an address option."""
    try:
        return Address.parse(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def run(
    name: str, actor: Callable[[], Awaitable[None]], *, with_parent: bool, stop: Callable[[], None] | None = None
) -> int:
    """Run `actor` until it ends, SIGTERM, Ctrl-C, or (`with_parent`) until standard input closes. Its exit status.

    After a signal `stop` asks the actor to end in order, for which it has `GRACE` seconds; without it, it is cancelled.
    """
    logging.basicConfig(level=logging.WARNING, format=f"{name}: %(message)s", stream=sys.stderr)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_signal, nursery.cancel_scope, stop)
            if with_parent:
                nursery.start_soon(_until_orphaned, nursery.cancel_scope)
            await actor()
            nursery.cancel_scope.cancel()

    try:
        with _unwrapped():
            trio.run(main)
    except Failure as exc:
        print(f"{name}: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


async def _until_signal(scope: trio.CancelScope, stop: Callable[[], None] | None) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            break
    if stop is not None:
        stop()
        await trio.sleep(GRACE)
    scope.cancel()


async def _until_orphaned(scope: trio.CancelScope) -> None:
    fd = os.dup(sys.stdin.fileno())
    async with trio.lowlevel.FdStream(fd) as stdin:
        async for _ in stdin:
            pass
    scope.cancel()


@contextmanager
def _unwrapped() -> Iterator[None]:
    """A lone exception out of nurseries' groups; several stay a group."""
    try:
        yield
    except BaseExceptionGroup as group:
        inner: BaseException = group
        while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
            inner = inner.exceptions[0]
        raise inner from None
