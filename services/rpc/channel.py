"""Calling services."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc.aio
import trio
from google.protobuf.message import Message
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest

from services.rpc.address import Address, Tls
from services.rpc.health import CHECK
from services.rpc.loop import Loop, Stopped
from services.rpc.method import Bidirectional, ServerStreaming, Unary, decode
from services.rpc.options import client_options
from services.rpc.status import Abort, RpcError
from services.rpc.stream import CREDIT, Stream

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


# Seconds after which a call ends with DEADLINE_EXCEEDED unless the caller says otherwise.
TIMEOUT = 10.0

OPTIONS = client_options()


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """Calls of a channel: under way, ended with OK, ended in any other way (cancelled ones too)."""

    in_flight: int
    completed: int
    failed: int


class Channel:
    """Calls to one peer. Use `connect`.

    Until a call has been answered, calls wait for the peer to be there, within their deadline; from then on a
    peer that is not there fails them at once.
    """

    def __init__(self, loop: Loop, raw: grpc.aio.Channel, peer: str) -> None:
        self.peer = peer
        self._loop = loop
        self._raw = raw
        self._reached = False
        self._in_flight = self._completed = self._failed = 0

    async def call(self, method: Unary[Q, A], request: Q, *, timeout: float = TIMEOUT) -> A:
        """The answer. Raises `RpcError`.

        The deadline is `timeout` seconds from now or that of the surrounding cancel scope, whichever is earlier; it
        goes to the server. When the scope's passes, this raises `trio.Cancelled`, as all of trio does.
        """
        rpc: Callable[..., Any] = self._raw.unary_unary(method.path)
        scope_deadline = trio.current_effective_deadline()
        deadline = min(scope_deadline, trio.current_time() + timeout)
        data = request.SerializeToString()

        async def answered() -> bytes:
            remaining = None if deadline == math.inf else max(0.0, deadline - trio.current_time())
            answer: bytes = await rpc(data, timeout=remaining, wait_for_ready=not self._reached)
            return answer

        with self._counted(method.path):
            try:
                answer = await self._loop.run(answered)
            except grpc.aio.AioRpcError as exc:
                if exc.code() is StatusCode.DEADLINE_EXCEEDED and trio.current_time() > scope_deadline - 0.05:
                    await trio.sleep_until(scope_deadline)  # at most the wire's rounding away: becomes Cancelled
                raise self._failure(method.path, exc) from None
            except Stopped:
                raise RpcError(
                    StatusCode.CANCELLED, "the channel is closed", peer=self.peer, method=method.path
                ) from None
            return self._decoded(method.path, method.answer, answer)

    @contextlib.asynccontextmanager
    async def stream(self, method: Bidirectional[Q, A], *, credit: int = CREDIT) -> AsyncIterator[Stream[Q, A]]:
        """A call that lasts as long as the block; leaving it cancels the call unless the server has ended it."""
        rpc: Callable[..., Any] = self._raw.stream_stream(method.path)

        async def start() -> Stream[Q, A]:
            return self._stream(method, rpc(wait_for_ready=not self._reached), credit, writes=True)

        with self._counted(method.path):
            stream = await self._loop.run(start)
            try:
                yield stream
            finally:
                self._end(stream)

    @contextlib.asynccontextmanager
    async def answers(
        self, method: ServerStreaming[Q, A], request: Q, *, credit: int = CREDIT
    ) -> AsyncIterator[Stream[Q, A]]:
        """The answers of the server, to be received or iterated over; leaving the block cancels the call."""
        rpc: Callable[..., Any] = self._raw.unary_stream(method.path)
        data = request.SerializeToString()

        async def start() -> Stream[Q, A]:
            return self._stream(method, rpc(data, wait_for_ready=not self._reached), credit, writes=False)

        with self._counted(method.path):
            stream = await self._loop.run(start)
            try:
                yield stream
            finally:
                self._end(stream)

    async def reach(self, *, timeout: float = TIMEOUT) -> None:
        """Wait until the peer answers a health check. Raises `RpcError` if it has not within `timeout` seconds."""
        await self.call(CHECK, HealthCheckRequest(), timeout=timeout)

    def statistics(self) -> ChannelStatistics:
        return ChannelStatistics(self._in_flight, self._completed, self._failed)

    def _stream(
        self, method: Bidirectional[Q, A] | ServerStreaming[Q, A], raw: Any, credit: int, *, writes: bool
    ) -> Stream[Q, A]:
        def decoded(data: bytes) -> A:
            self._reached = True
            return self._decoded(method.path, method.answer, data)

        def failure(exc: grpc.aio.AioRpcError) -> Exception:
            return self._failure(method.path, exc)

        return Stream(self._loop, raw, decoded, failure, writes=writes, credit=credit)

    def _end(self, stream: Stream[Any, Any]) -> None:
        stream.kill()
        raw: Any = stream.raw
        raw.cancel()

    def _decoded(self, path: str, kind: type[A], data: bytes) -> A:
        try:
            return decode(kind, data)
        except Abort as exc:
            raise RpcError(StatusCode.INTERNAL, f"the answer is {exc.details}", peer=self.peer, method=path) from exc

    def _failure(self, path: str, exc: grpc.aio.AioRpcError) -> RpcError:
        details = exc.details() or "no details"
        if not self._reached and exc.code() is StatusCode.DEADLINE_EXCEEDED:
            details = f"not reached in time ({details})"
        return RpcError(exc.code(), details, peer=self.peer, method=path)

    @contextlib.contextmanager
    def _counted(self, path: str) -> Any:
        self._in_flight += 1
        try:
            yield
        except BaseException:
            self._failed += 1
            raise
        else:
            self._completed += 1
            self._reached = True
        finally:
            self._in_flight -= 1


@contextlib.asynccontextmanager
async def connect(loop: Loop, address: Address, *, name: str, tls: Tls | None = None) -> AsyncIterator[Channel]:
    """A channel to the service that people call `name`. Nothing is sent before the first call.

    Raises ValueError if the address and `tls` do not go together.
    """
    address.check(tls)

    async def start() -> grpc.aio.Channel:
        if tls is not None:
            return grpc.aio.secure_channel(address.grpc_target, tls.client(), options=OPTIONS)
        return grpc.aio.insecure_channel(address.grpc_target, options=OPTIONS)

    raw = await loop.run(start)

    async def close() -> None:
        await raw.close()
        await asyncio.sleep(0)  # let cancelled calls end while their loop still runs

    try:
        yield Channel(loop, raw, f"{name} at {address}")
    finally:
        with trio.CancelScope(shield=True):
            await loop.run(close)
