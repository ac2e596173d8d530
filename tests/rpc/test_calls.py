"""Calls end as they should: answered, failed, late, or cancelled from either side."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import trio
from grpc import StatusCode
from trio.testing import wait_all_tasks_blocked

from services.rpc import Abort, Address, Channel, Handler, Loop, RpcError, Unary, connect, serve
from services.wire.attend_pb2 import Burst
from services.wire.lab_pb2 import DescribeRequest, Description, Progress, WatchRequest
from services.wire.methods import ATTEND, DESCRIBE, WATCH

DEADLINE = 10.0  # seconds; a failing test ends, a slow machine passes


@asynccontextmanager
async def peer(loop: Loop, address: Address, *handlers: Handler, grace: float = 2.0) -> AsyncIterator[Channel]:
    """A channel to a server with these handlers, over a socket."""
    with trio.fail_after(DEADLINE):
        async with serve(loop, address, handlers, grace=grace), connect(loop, address, name="lab") as channel:
            yield channel


async def describe(request: DescribeRequest) -> Description:
    return Description(scenario="gzip")


async def test_a_call_is_answered(loop: Loop, address: Address) -> None:
    async with peer(loop, address, DESCRIBE.handled_by(describe)) as channel:
        assert (await channel.call(DESCRIBE, DescribeRequest())).scenario == "gzip"
        statistics = channel.statistics()
    assert (statistics.in_flight, statistics.completed, statistics.failed) == (0, 1, 0)


async def test_a_handler_chooses_the_status(loop: Loop, address: Address) -> None:
    async def handler(request: DescribeRequest) -> Description:
        raise Abort(StatusCode.NOT_FOUND, "target: no vm7")

    async with peer(loop, address, DESCRIBE.handled_by(handler)) as channel:
        with pytest.raises(RpcError) as failed:
            await channel.call(DESCRIBE, DescribeRequest())
    assert failed.value.code is StatusCode.NOT_FOUND
    assert str(failed.value) == f"/pmulab.v1.Lab/Describe of lab at {address}: NOT_FOUND: target: no vm7"


async def test_a_status_chosen_in_a_task_of_the_handler_counts(loop: Loop, address: Address) -> None:
    async def abort() -> None:
        raise Abort(StatusCode.NOT_FOUND, "target: no vm7")

    async def handler(request: DescribeRequest) -> Description:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(abort)
            nursery.start_soon(trio.sleep_forever)
        return Description()

    async with peer(loop, address, DESCRIBE.handled_by(handler)) as channel:
        with pytest.raises(RpcError, match="NOT_FOUND"):
            await channel.call(DESCRIBE, DescribeRequest())


async def test_what_a_handler_raises_is_logged_and_not_told(
    loop: Loop, address: Address, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: DescribeRequest) -> Description:
        raise KeyError("the secret")

    with caplog.at_level(logging.ERROR, "services.rpc"):
        async with peer(loop, address, DESCRIBE.handled_by(handler)) as channel:
            with pytest.raises(RpcError) as failed:
                await channel.call(DESCRIBE, DescribeRequest())
    assert failed.value.code is StatusCode.INTERNAL
    assert "secret" not in str(failed.value)
    assert "the secret" in caplog.text


@pytest.mark.parametrize(("raised", "logged"), [(Abort(StatusCode.UNAVAILABLE, "no more"), False), (KeyError(), True)])
async def test_a_refusal_of_a_call_whose_client_has_gone_is_no_failure(
    loop: Loop, address: Address, caplog: pytest.LogCaptureFixture, raised: Exception, logged: bool
) -> None:
    begun = trio.Event()

    async def handler(request: DescribeRequest) -> Description:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            raise raised

    async def leaves(channel: Channel) -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.call, DESCRIBE, DescribeRequest())
                await begun.wait()
                scope.cancel()

    with caplog.at_level(logging.ERROR, "services.rpc"):
        async with peer(loop, address, DESCRIBE.handled_by(handler)) as channel:
            await leaves(channel)
            await wait_all_tasks_blocked(0.05)
    assert ("after its call had ended" in caplog.text) is logged


async def test_the_failure_of_a_handlers_own_call_is_not_its_status(
    loop: Loop, address: Address, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: DescribeRequest) -> Description:
        raise RpcError(StatusCode.NOT_FOUND, "elsewhere", peer="another", method="/x")

    async with peer(loop, address, DESCRIBE.handled_by(handler)) as channel:
        with pytest.raises(RpcError, match="INTERNAL"):
            await channel.call(DESCRIBE, DescribeRequest())


async def test_a_method_that_nobody_serves_is_unimplemented(loop: Loop, address: Address) -> None:
    async with peer(loop, address) as channel:
        with pytest.raises(RpcError, match="UNIMPLEMENTED"):
            await channel.call(DESCRIBE, DescribeRequest())


NONSENSE = b"\xff\xff"  # no protobuf message


def nonsense_to(path: str, kind: str) -> Callable[[Address], tuple[StatusCode, str]]:
    """A plain grpcio client that calls the method with `NONSENSE`; the status that it gets."""

    def client(address: Address) -> tuple[StatusCode, str]:
        with grpc.insecure_channel(address.grpc_target) as channel:
            call: Any = getattr(channel, kind)(path)
            try:
                answer = call(iter([NONSENSE]) if kind == "stream_stream" else NONSENSE, timeout=DEADLINE)
                list(answer)
            except grpc.RpcError as exc:
                failure: Any = exc
                return failure.code(), failure.details()
        return StatusCode.OK, ""

    return client


@pytest.mark.parametrize(
    ("client", "message"),
    [
        (nonsense_to(DESCRIBE.path, "unary_unary"), "DescribeRequest"),
        (nonsense_to(WATCH.path, "unary_stream"), "WatchRequest"),
        (nonsense_to(ATTEND.path, "stream_stream"), "Burst"),
    ],
)
async def test_a_malformed_message_is_an_invalid_argument(
    loop: Loop, address: Address, client: Callable[[Address], tuple[StatusCode, str]], message: str
) -> None:
    async def watch(request: WatchRequest, stream: object) -> None:
        raise AssertionError("a malformed request reached its handler")

    async def attend(stream: trio.abc.ReceiveChannel[Burst]) -> None:
        await stream.receive()

    handlers = DESCRIBE.handled_by(describe), WATCH.handled_by(watch), ATTEND.handled_by(attend)
    async with peer(loop, address, *handlers):
        code, details = await trio.to_thread.run_sync(client, address)
    assert code is StatusCode.INVALID_ARGUMENT
    assert details.startswith(f"not a pmulab.v1.{message}")


async def test_an_answer_that_does_not_decode_is_the_servers_fault(loop: Loop, address: Address) -> None:
    class Nonsense:
        def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
            return b"\xff\xff"

    async def handler(request: DescribeRequest) -> Nonsense:
        return Nonsense()

    async with peer(loop, address, Handler(DESCRIBE, handler)) as channel:
        with pytest.raises(RpcError, match=r"INTERNAL: the answer is not a pmulab\.v1\.Description"):
            await channel.call(DESCRIBE, DescribeRequest())


class Stuck:
    """A handler that only its cancellation ends, and that notes it."""

    def __init__(self) -> None:
        self.entered = trio.Event()
        self.cancelled = trio.Event()

    async def wait(self) -> None:
        self.entered.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.cancelled.set()
            raise

    async def describe(self, request: DescribeRequest) -> Description:
        await self.wait()
        return Description()


async def test_cancelling_a_call_cancels_its_handler(loop: Loop, address: Address) -> None:
    stuck = Stuck()
    async with peer(loop, address, DESCRIBE.handled_by(stuck.describe)) as channel:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.call, DESCRIBE, DescribeRequest())
            await stuck.entered.wait()
            nursery.cancel_scope.cancel()
        await stuck.cancelled.wait()
        assert channel.statistics().in_flight == 0


async def test_a_deadline_ends_the_call_and_the_handler(loop: Loop, address: Address) -> None:
    stuck = Stuck()
    async with peer(loop, address, DESCRIBE.handled_by(stuck.describe)) as channel:
        await channel.reach()
        with pytest.raises(RpcError, match="DEADLINE_EXCEEDED"):
            await channel.call(DESCRIBE, DescribeRequest(), timeout=0.1)
        await stuck.cancelled.wait()


async def test_the_deadline_of_a_scope_reaches_the_server_and_cancels_the_caller(loop: Loop, address: Address) -> None:
    remaining: list[float] = []

    async def handler(request: DescribeRequest) -> Description:
        remaining.append(trio.current_effective_deadline() - trio.current_time())
        await trio.sleep_forever()
        return Description()

    async with peer(loop, address, DESCRIBE.handled_by(handler)) as channel:
        await channel.reach()
        with trio.move_on_after(0.3) as scope:
            await channel.call(DESCRIBE, DescribeRequest())
    assert scope.cancelled_caught
    assert 0 < remaining[0] < 0.5


async def test_a_failing_sibling_cancels_the_call(loop: Loop, address: Address) -> None:
    stuck = Stuck()

    async def sibling() -> None:
        await stuck.entered.wait()
        raise ZeroDivisionError

    async with peer(loop, address, DESCRIBE.handled_by(stuck.describe)) as channel:
        with pytest.RaisesGroup(ZeroDivisionError):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.call, DESCRIBE, DescribeRequest())
                nursery.start_soon(sibling)
        await stuck.cancelled.wait()


async def test_calls_run_side_by_side(loop: Loop, address: Address) -> None:
    arrived = 0
    all_there = trio.Event()

    async def handler(request: DescribeRequest) -> Description:
        nonlocal arrived
        arrived += 1
        if arrived == 100:
            all_there.set()
        await all_there.wait()
        return Description()

    async with peer(loop, address, DESCRIBE.handled_by(handler)) as channel, trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(channel.call, DESCRIBE, DescribeRequest())


async def test_nobody_there_is_told_at_the_deadline(loop: Loop, address: Address) -> None:
    with trio.fail_after(DEADLINE):
        async with connect(loop, address, name="lab") as channel:
            with pytest.raises(RpcError, match=r"of lab at unix:.*DEADLINE_EXCEEDED: not reached in time"):
                await channel.reach(timeout=0.2)


async def test_a_call_waits_for_a_server_that_is_about_to_be_there(loop: Loop, address: Address) -> None:
    answered = trio.Event()

    async def call(channel: Channel) -> None:
        await channel.call(DESCRIBE, DescribeRequest())
        answered.set()

    with trio.fail_after(DEADLINE):
        async with connect(loop, address, name="lab") as channel, trio.open_nursery() as nursery:
            nursery.start_soon(call, channel)
            await wait_all_tasks_blocked(0.05)  # it has found nobody
            async with serve(loop, address, [DESCRIBE.handled_by(describe)]):
                await answered.wait()


async def test_a_server_that_has_gone_fails_later_calls_at_once(loop: Loop, address: Address) -> None:
    with trio.fail_after(DEADLINE):
        async with connect(loop, address, name="lab") as channel:
            async with serve(loop, address, [DESCRIBE.handled_by(describe)]):
                await channel.call(DESCRIBE, DescribeRequest())
            with pytest.raises(RpcError, match="UNAVAILABLE"):
                await channel.call(DESCRIBE, DescribeRequest(), timeout=DEADLINE)


def test_a_method_must_be_as_its_descriptor_says() -> None:
    with pytest.raises(TypeError, match=r"there is no method pmulab\.v1\.Lab\.Nothing"):
        Unary("pmulab.v1.Lab", "Nothing", DescribeRequest, Description)
    with pytest.raises(TypeError, match=r"pmulab\.v1\.Lab\.Describe is not Unary with these messages"):
        Unary("pmulab.v1.Lab", "Describe", DescribeRequest, Progress)
    with pytest.raises(TypeError, match=r"pmulab\.v1\.Lab\.Watch is not Unary"):
        Unary("pmulab.v1.Lab", "Watch", WatchRequest, Progress)
