"""Methods of services as typed values, checked against the descriptors that the wire's modules carry.

    DESCRIBE = Unary("pmulab.v1.Lab", "Describe", DescribeRequest, Description)

    await channel.call(DESCRIBE, DescribeRequest())         # a Description
    serve(loop, address, [DESCRIBE.handled_by(lab.describe)])

No generated stub is needed, and a handler or a caller with the wrong types does not pass mypy.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError, Message
from grpc import StatusCode

from services.rpc.status import Abort

if TYPE_CHECKING:
    from services.rpc.stream import Stream

Q = TypeVar("Q", bound=Message)  # request
A = TypeVar("A", bound=Message)  # answer
M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Method(Generic[Q, A]):
    """What all methods have. Raises TypeError if the descriptor says otherwise."""

    service: str  # full name, package included
    name: str
    request: type[Q]
    answer: type[A]

    client_streams: ClassVar[bool]
    server_streams: ClassVar[bool]

    def __post_init__(self) -> None:
        try:
            method = descriptor_pool.Default().FindMethodByName(f"{self.service}.{self.name}")
        except KeyError:
            raise TypeError(f"there is no method {self.service}.{self.name}") from None
        described = method.input_type, method.output_type, method.client_streaming, method.server_streaming
        declared = self.request.DESCRIPTOR, self.answer.DESCRIPTOR, self.client_streams, self.server_streams
        if described != declared:
            raise TypeError(f"{method.full_name} is not {type(self).__name__} with these messages")

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"


@dataclass(frozen=True)
class Handler:
    """A method and the coroutine function that serves it."""

    method: Method[Any, Any]
    function: Callable[..., Awaitable[Any]]


class Unary(Method[Q, A]):
    """One request, one answer."""

    client_streams = False
    server_streams = False

    def handled_by(self, function: Callable[[Q], Awaitable[A]]) -> Handler:
        return Handler(self, function)


class ServerStreaming(Method[Q, A]):
    """One request, answers until the handler returns."""

    client_streams = False
    server_streams = True

    def handled_by(self, function: Callable[[Q, Stream[A, Q]], Awaitable[None]]) -> Handler:
        """`function` sends its answers to the stream, from which it receives nothing."""
        return Handler(self, function)


class Bidirectional(Method[Q, A]):
    """Messages in both directions until the handler returns."""

    client_streams = True
    server_streams = True

    def handled_by(self, function: Callable[[Stream[A, Q]], Awaitable[None]]) -> Handler:
        return Handler(self, function)


def decode(kind: type[M], data: bytes) -> M:
    """The message in `data`. Raises `Abort` with INVALID_ARGUMENT if there is none.

    gRPC would answer INTERNAL if it were left to decode; nothing failed here but the caller.
    """
    try:
        return kind.FromString(data)
    except DecodeError as exc:
        raise Abort(StatusCode.INVALID_ARGUMENT, f"not a {kind.DESCRIPTOR.full_name}: {exc}") from exc
