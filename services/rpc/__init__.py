"""gRPC on trio.

async with open_loop() as loop:
    async with serve(loop, address, [DESCRIBE.handled_by(lab.describe)]):
        ...
    async with connect(loop, address, name="kvm") as kvm:
        description = await kvm.call(DESCRIBE, DescribeRequest())
"""

from services.rpc.address import Address, BindError, Tls, private_directory
from services.rpc.channel import TIMEOUT, Channel, ChannelStatistics, connect
from services.rpc.health import Health
from services.rpc.loop import Loop, LoopStatistics, open_loop
from services.rpc.method import Bidirectional, Handler, Method, ServerStreaming, Unary
from services.rpc.nursery import first_of
from services.rpc.server import Server, ServerStatistics, serve
from services.rpc.status import Abort, RpcError
from services.rpc.stream import Stream, StreamStatistics

__all__ = [
    "TIMEOUT",
    "Abort",
    "Address",
    "Bidirectional",
    "BindError",
    "Channel",
    "ChannelStatistics",
    "Handler",
    "Health",
    "Loop",
    "LoopStatistics",
    "Method",
    "RpcError",
    "Server",
    "ServerStatistics",
    "ServerStreaming",
    "Stream",
    "StreamStatistics",
    "Tls",
    "Unary",
    "connect",
    "first_of",
    "open_loop",
    "private_directory",
    "serve",
]
