"""Serving."""

from __future__ import annotations

import contextlib
import logging
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import trio
from google.protobuf.message import Message
from grpc import StatusCode

from services.rpc.address import UNIX, Address, BindError, Tls, claimed_socket, private_umask
from services.rpc.health import Health
from services.rpc.loop import Loop
from services.rpc.method import Bidirectional, Handler, Unary, decode
from services.rpc.nursery import open_private_nursery
from services.rpc.options import server_options
from services.rpc.reflection import Reflection
from services.rpc.status import status_of
from services.rpc.stream import Stream

log = logging.getLogger(__name__)

# Calls that a server has in hand at most; more end with RESOURCE_EXHAUSTED.
CONCURRENT_CALLS = 1024

# Seconds at least that a server which stops, even by a failure, has for telling its callers.
COURTESY = 0.5

OPTIONS = server_options()


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """Calls of a server: being handled, ended with OK, ended in any other way."""

    in_flight: int
    completed: int
    failed: int


@dataclass(frozen=True, slots=True)
class _Refusal:
    """What a handler has raised to end its call with a status."""

    by: Exception


class Server:
    """A server under way. Use `serve`."""

    def __init__(self, loop: Loop, nursery: trio.Nursery, address: Address, services: Sequence[str]) -> None:
        self.address = address  # with the port that it got
        self.health = Health(services)
        self._loop = loop
        self._nursery = nursery
        self._in_flight = self._completed = self._failed = 0

    def statistics(self) -> ServerStatistics:
        return ServerStatistics(self._in_flight, self._completed, self._failed)

    def rpc_handler(self, handler: Handler) -> Any:
        """grpc.aio's handler of a method. Messages come as bytes: `decode` has the right status for nonsense."""
        method, function = handler.method, handler.function

        async def unary(data: bytes, context: Any) -> bytes:
            async def body() -> bytes:
                message: Message = await function(decode(method.request, data))
                return message.SerializeToString()

            answer: bytes = await self._handle(method.path, context, body)
            return answer

        async def answers(data: bytes, context: Any) -> None:
            stream = Stream[Any, Any](self._loop, context, lambda data: data, lambda exc: exc, reads=False)

            async def body() -> None:
                await function(decode(method.request, data), stream)

            await self._handle(method.path, context, body, stream)

        async def bidirectional(_: Any, context: Any) -> None:
            stream = Stream[Any, Any](self._loop, context, lambda data: decode(method.request, data), lambda exc: exc)
            await self._handle(method.path, context, lambda: function(stream), stream)

        if isinstance(method, Unary):
            return grpc.unary_unary_rpc_method_handler(unary)
        if isinstance(method, Bidirectional):
            return grpc.stream_stream_rpc_method_handler(bidirectional)
        return grpc.unary_stream_rpc_method_handler(answers)

    async def _handle(
        self, path: str, context: Any, body: Callable[[], Awaitable[Any]], stream: Stream[Any, Any] | None = None
    ) -> Any:
        """Run `body` as a trio task under the call's deadline; end the call with what comes of it."""
        remaining = context.time_remaining()

        async def within_deadline() -> Any:
            try:
                with trio.fail_after(math.inf if remaining is None else max(0.0, remaining)):
                    return await body()
            except Exception as exc:
                if status_of(exc) is None:
                    raise
                return _Refusal(exc)  # an answer as well: where nobody waits for one any more, nobody misses it

        self._in_flight += 1
        completed = False
        try:
            answer = await self._loop.call(self._nursery, within_deadline)
            if isinstance(answer, _Refusal):
                raise answer.by
            if stream is not None:
                await stream.flush()
            completed = True
            return answer
        except Exception as exc:  # not CancelledError: the client has gone, or the grace is over
            status = status_of(exc)
            if status is None:
                log.error("the handler of %s failed", path, exc_info=exc)
                status = StatusCode.INTERNAL, "the handler failed"
            if stream is not None:
                await stream.flush()  # the status comes after what was sent; gRPC cannot send it during a write
            await context.abort(*status)
        finally:
            if stream is not None:
                stream.kill()
            self._in_flight -= 1
            self._completed += completed
            self._failed += not completed


@contextlib.asynccontextmanager
async def serve(
    loop: Loop, address: Address, handlers: Sequence[Handler], *, tls: Tls | None = None, grace: float = 2.0
) -> AsyncIterator[Server]:
    """Serve the handlers, health and reflection while the block lasts.

    Leaving it in order, calls under way have `grace` seconds to end and new ones are refused; what is left then, and
    everything if the block fails, ends with UNAVAILABLE. Raises `BindError`; ValueError if the
    address and `tls` do not go together.
    """
    address.check(tls)
    async with open_private_nursery() as nursery:
        reflection = Reflection(handler.method.service for handler in handlers)
        server = Server(loop, nursery, address, reflection.services)
        with claimed_socket(Path(address.target)) if address.scheme == UNIX else contextlib.nullcontext():
            raw = await loop.run(_start, server, [*handlers, *server.health.handlers(), reflection.handler()], tls)
            try:
                yield server
            except BaseException:
                grace = 0.0  # a failure or Ctrl-C does not wait
                nursery.cancel_scope.cancel()
                raise
            finally:
                server.health.stop()
                with trio.CancelScope(shield=True):
                    await loop.run(raw.stop, max(grace, COURTESY))
                nursery.cancel_scope.cancel()


async def _start(server: Server, handlers: Sequence[Handler], tls: Tls | None) -> grpc.aio.Server:
    raw = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=CONCURRENT_CALLS)
    methods: dict[str, dict[str, Any]] = defaultdict(dict)
    for handler in handlers:
        methods[handler.method.service][handler.method.name] = server.rpc_handler(handler)
    for service, of_service in methods.items():
        raw.add_registered_method_handlers(service, of_service)
    address = server.address
    try:
        if tls is not None:
            port = raw.add_secure_port(address.target, tls.server())
        elif address.scheme == UNIX:
            with private_umask():  # gRPC binds here, and the socket gets the mode that the umask leaves
                port = raw.add_insecure_port(address.grpc_target)
        else:
            port = raw.add_insecure_port(address.target)
    except RuntimeError as exc:
        raise BindError(f"cannot serve at {address}: {exc}") from exc
    await raw.start()
    server.address = address.at_port(port)
    return raw
