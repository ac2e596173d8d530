"""Cancelling all of it at once, loop included, as a signal does it to a process: everything still ends."""

from __future__ import annotations

import trio

from services.rpc import Address, connect, open_loop, serve
from services.wire.lab_pb2 import DescribeRequest, Description
from services.wire.methods import DESCRIBE


async def test_a_server_and_a_channel_end_when_their_loop_is_cancelled_with_them(address: Address) -> None:
    with trio.fail_after(5), trio.CancelScope() as all_of_it:
        async with open_loop() as loop, serve(loop, address, []), connect(loop, address, name="peer") as channel:
            await channel.reach()
            all_of_it.cancel()
            await trio.sleep_forever()
    assert all_of_it.cancelled_caught


async def test_a_call_under_way_ends_when_its_loop_is_cancelled_with_it(address: Address) -> None:
    async def stuck(request: DescribeRequest) -> Description:
        all_of_it.cancel()
        await trio.sleep_forever()
        return Description()

    with trio.fail_after(5), trio.CancelScope() as all_of_it:
        async with (
            open_loop() as loop,
            serve(loop, address, [DESCRIBE.handled_by(stuck)]),
            connect(loop, address, name="peer") as channel,
        ):
            await channel.call(DESCRIBE, DescribeRequest())
    assert all_of_it.cancelled_caught
