"""One end of a stream of messages, as a trio channel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import grpc.aio
import trio
from google.protobuf.message import Message

from services.rpc.loop import Loop

Out = TypeVar("Out", bound=Message)
In = TypeVar("In", bound=Message)

# Messages that may wait unread, and as many unsent, at each end of a stream.
CREDIT = 64


class RawStream(Protocol):
    """What grpc.aio's calls and contexts have in common."""

    async def read(self) -> Any: ...

    async def write(self, message: bytes, /) -> None: ...


@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """Messages so far, and those that wait at this end."""

    sent: int
    received: int
    unsent: int
    unread: int


class Stream(trio.abc.SendChannel[Out], trio.abc.ReceiveChannel[In]):
    """At most `credit` messages wait unread, then the peer is stopped by HTTP/2's flow control; at most as
    many wait unsent, then `send` waits.

    `receive` raises `trio.EndOfChannel` when the peer has ended its side in order, and what `failure`
    makes of it when the call failed; so does iteration. Reading and writing go on in tasks of their own,
    so that a `send` or `receive` that is cancelled loses no message and does not end the call.
    """

    def __init__(
        self,
        loop: Loop,
        raw: RawStream,
        decode: Callable[[bytes], In],
        failure: Callable[[grpc.aio.AioRpcError], Exception],
        *,
        reads: bool = True,
        writes: bool = True,
        credit: int = CREDIT,
    ) -> None:
        self._loop = loop
        self.raw = raw
        self._decode = decode
        self._failure = failure
        self._error: grpc.aio.AioRpcError | None = None
        self._sent = self._received = 0
        self._arrived, self._inbox = trio.open_memory_channel[bytes](credit)
        self._outbox, self._leaving = trio.open_memory_channel[bytes](credit)
        self._credit = asyncio.Semaphore(credit)
        self._more = asyncio.Event()  # to send, or the end of it
        self._reader = loop.create_task(self._read()) if reads else None
        self._writer = loop.create_task(self._write()) if writes else None
        if not reads:
            self._arrived.close()
        if not writes:
            self._leaving.close()

    # The asyncio side.

    async def _read(self) -> None:
        with self._arrived:
            try:
                while (data := await self.raw.read()) is not grpc.aio.EOF:
                    await self._credit.acquire()
                    self._arrived.send_nowait(data)
            except grpc.aio.AioRpcError as exc:
                self._error = exc
            except grpc.aio.BaseError:
                pass  # on a server: the client has gone, and the handler is being cancelled
            if isinstance(self.raw, grpc.aio.Call):
                self._leaving.close()  # the server has ended the call: nobody takes what is still to be sent

    async def _write(self) -> None:
        with self._leaving:
            while True:
                try:
                    data = self._leaving.receive_nowait()
                except trio.WouldBlock:
                    self._more.clear()
                    await self._more.wait()
                    continue
                except (trio.EndOfChannel, trio.ClosedResourceError):
                    break
                try:
                    await self.raw.write(data)
                except (grpc.aio.BaseError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    return  # the call is over: the reader, or the handler's cancellation, knows how
                self._sent += 1
            if isinstance(self.raw, grpc.aio.StreamStreamCall) and not self.raw.done():
                await self.raw.done_writing()

    async def flush(self) -> None:
        """End this side and wait until everything is written. To be run on the asyncio side."""
        self._end()
        if self._writer is not None:
            await self._writer

    def kill(self) -> None:
        """The call is over: stop reading and writing, drop what waits."""
        for task in (self._reader, self._writer):
            if task is not None:
                task.cancel()
        self._arrived.close()
        self._leaving.close()

    def _end(self) -> None:
        self._outbox.close()
        self._more.set()

    # The trio side.

    async def send(self, value: Out) -> None:
        """Raises `trio.BrokenResourceError`, or the failure of the call, when nobody takes it any more."""
        try:
            await self._outbox.send(value.SerializeToString())
        except trio.BrokenResourceError:
            if self._error is not None:
                raise self._failure(self._error) from None
            raise
        self._more.set()

    async def receive(self) -> In:
        try:
            data = await self._inbox.receive()
        except trio.EndOfChannel:
            if self._error is not None:
                raise self._failure(self._error) from None
            raise
        self._received += 1
        self._credit.release()
        return self._decode(data)

    async def aclose(self) -> None:
        """End this side: the peer sees the end once it has read what was sent."""
        self._end()
        await trio.lowlevel.checkpoint()

    def statistics(self) -> StreamStatistics:
        return StreamStatistics(
            sent=self._sent,
            received=self._received,
            unsent=self._outbox.statistics().current_buffer_used,
            unread=self._inbox.statistics().current_buffer_used,
        )
