"""Streams: order, bounds, and how they end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from grpc import StatusCode
from trio.testing import wait_all_tasks_blocked

from services.rpc import Abort, Address, Channel, Handler, Loop, RpcError, Stream, connect, serve
from services.wire.attend_pb2 import Burst, Reply, Turn
from services.wire.lab_pb2 import Progress, WatchRequest
from services.wire.methods import ATTEND, WATCH

DEADLINE = 10.0  # seconds; a failing test ends, a slow machine passes

Served = Stream[Turn, Burst]


@asynccontextmanager
async def peer(loop: Loop, address: Address, *handlers: Handler) -> AsyncIterator[Channel]:
    """A channel to a server with these handlers, over a socket."""
    with trio.fail_after(DEADLINE):
        async with serve(loop, address, handlers), connect(loop, address, name="kvm") as channel:
            yield channel


async def echo(stream: Served) -> None:
    async for burst in stream:
        await stream.send(Turn(reply=Reply(entry=burst.entry)))


async def test_messages_arrive_in_order_in_both_directions(loop: Loop, address: Address) -> None:
    async def send(stream: Stream[Burst, Turn]) -> None:
        for number in range(1000):
            await stream.send(Burst(entry=number))
        await stream.aclose()

    async with (
        peer(loop, address, ATTEND.handled_by(echo)) as channel,
        channel.stream(ATTEND) as stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(send, stream)
        received = [turn.reply.entry async for turn in stream]
        statistics = stream.statistics()
    assert received == list(range(1000))
    assert (statistics.sent, statistics.received, statistics.unsent, statistics.unread) == (1000, 1000, 0, 0)


async def test_the_server_ends_a_stream_by_returning(loop: Loop, address: Address) -> None:
    async def three(request: WatchRequest, stream: Stream[Progress, WatchRequest]) -> None:
        for now in range(3):
            await stream.send(Progress(now=now))

    async with (
        peer(loop, address, WATCH.handled_by(three)) as channel,
        channel.answers(WATCH, WatchRequest()) as answers,
    ):
        assert [progress.now async for progress in answers] == [0, 1, 2]


async def test_the_server_ends_a_stream_with_a_status_after_what_it_has_sent(loop: Loop, address: Address) -> None:
    async def handler(stream: Served) -> None:
        await stream.send(Turn())
        raise Abort(StatusCode.FAILED_PRECONDITION, "entry: 7")

    async with peer(loop, address, ATTEND.handled_by(handler)) as channel, channel.stream(ATTEND) as stream:
        await stream.receive()
        for _ in range(2):  # and again
            with pytest.raises(RpcError, match="FAILED_PRECONDITION: entry: 7"):
                await stream.receive()
        with pytest.raises(RpcError, match="FAILED_PRECONDITION: entry: 7"):
            await stream.send(Burst())


async def test_sending_on_a_stream_that_the_server_has_ended_fails(loop: Loop, address: Address) -> None:
    async def handler(stream: Served) -> None:
        await stream.receive()

    async with peer(loop, address, ATTEND.handled_by(handler)) as channel, channel.stream(ATTEND) as stream:
        await stream.send(Burst())
        with pytest.raises(trio.EndOfChannel):
            await stream.receive()
        with pytest.raises(trio.BrokenResourceError):
            await stream.send(Burst())


async def test_leaving_a_stream_cancels_its_handler(loop: Loop, address: Address) -> None:
    entered, ended = trio.Event(), trio.Event()

    async def handler(stream: Served) -> None:
        entered.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with peer(loop, address, ATTEND.handled_by(handler)) as channel:
        async with channel.stream(ATTEND):
            await entered.wait()
        await ended.wait()


async def test_a_cancelled_receive_loses_no_message_and_does_not_end_the_call(loop: Loop, address: Address) -> None:
    async with peer(loop, address, ATTEND.handled_by(echo)) as channel, channel.stream(ATTEND) as stream:
        with trio.move_on_after(0.05) as scope:
            await stream.receive()
        assert scope.cancelled_caught
        await stream.send(Burst(entry=1))
        assert (await stream.receive()).reply.entry == 1


async def test_a_sender_waits_for_a_reader_that_does_not_read(loop: Loop, address: Address) -> None:
    go_on = trio.Event()
    read = 0
    payload = bytes(64 << 10)
    total = 400  # far more than both ends' credit and HTTP/2's windows hold
    sent = 0

    async def slow(stream: Served) -> None:
        nonlocal read
        await go_on.wait()
        async for _ in stream:
            read += 1

    async def send(stream: Stream[Burst, Turn]) -> None:
        nonlocal sent
        for _ in range(total):
            await stream.send(Burst(answer=payload))
            sent += 1
        await stream.aclose()

    async with (
        peer(loop, address, ATTEND.handled_by(slow)) as channel,
        channel.stream(ATTEND, credit=8) as stream,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(send, stream)
        await wait_all_tasks_blocked(0.2)
        assert sent < total / 2
        assert stream.statistics().unsent == 8
        go_on.set()
        with pytest.raises(trio.EndOfChannel):
            await stream.receive()
    assert (sent, read) == (total, total)


async def test_a_deadline_of_a_stream_reader_is_its_own(loop: Loop, address: Address) -> None:
    async def handler(stream: Served) -> None:
        await stream.receive()
        await stream.send(Turn())

    async with peer(loop, address, ATTEND.handled_by(handler)) as channel, channel.stream(ATTEND) as stream:
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(0.05):
                await stream.receive()
        await stream.send(Burst())
        await stream.receive()
