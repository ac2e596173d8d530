"""How a call ends: statuses that a handler chooses, and what the caller of a failed call sees."""

from __future__ import annotations

from collections.abc import Iterator

import trio
from grpc import StatusCode

from services.rpc.loop import Stopped


class Abort(Exception):
    """Raised by a handler: the call ends with this status, and the caller sees the details."""

    def __init__(self, code: StatusCode, details: str) -> None:
        super().__init__(code, details)
        self.code = code
        self.details = details

    def __str__(self) -> str:
        return f"{self.code.name}: {self.details}"


class RpcError(Exception):
    """A call failed. `peer` is who was called, as people name it, with the address.

    A handler that lets the failure of its own calls pass ends with INTERNAL, not with its callee's status.
    """

    def __init__(self, code: StatusCode, details: str, *, peer: str, method: str) -> None:
        super().__init__(code, details)
        self.code = code
        self.details = details
        self.peer = peer
        self.method = method

    def __str__(self) -> str:
        return f"{self.method} of {self.peer}: {self.code.name}: {self.details}"


def status_of(exc: BaseException) -> tuple[StatusCode, str] | None:
    """The status with which a handler that raised `exc` ends; None for INTERNAL, without the text.

    A handler with a nursery raises groups: they count as the one thing that all their members say.
    """
    statuses = {_status_of_one(leaf) for leaf in _leaves(exc)}
    return statuses.pop() if len(statuses) == 1 else None


def _status_of_one(exc: BaseException) -> tuple[StatusCode, str] | None:
    if isinstance(exc, Abort):
        return exc.code, exc.details
    if isinstance(exc, trio.TooSlowError):
        return StatusCode.DEADLINE_EXCEEDED, "the handler's deadline has passed"
    if isinstance(exc, Stopped):
        return StatusCode.UNAVAILABLE, "shutting down"
    return None


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        for member in exc.exceptions:
            yield from _leaves(member)
    else:
        yield exc
