"""A running topology, for people and their programs.

    with connect("unix:/run/.../kvm.sock") as lab:                 # blocking
        lab.inject("vm0", task)
        result = lab.result(wait=True)

    async with connect_trio("unix:/run/.../kvm.sock") as lab:      # trio
        async with lab.watch() as progress:
            async for step in progress:
                ...

Both have the same methods and raise `RpcError`, whose text says who was asked, what, and why it failed.
The messages that they return are those of proto/services/wire/lab.proto, which has their units.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Literal, TypeVar, overload

import grpc
import orjson
from google.protobuf.message import Message

from services.experiment import ReservedHostCounters, SessionSpec, TaskSpec
from services.result import Result, read
from services.rpc import TIMEOUT, Address, Channel, RpcError, Tls, Unary, open_loop
from services.rpc import connect as connect_channel
from services.rpc.channel import OPTIONS
from services.typed_json import dumps
from services.wire.lab_pb2 import (
    DescribeRequest,
    Description,
    Injected,
    InjectionLog,
    InjectRequest,
    LogRequest,
    Profile,
    Progress,
    ResultRequest,
    ShutdownReply,
    ShutdownRequest,
    WatchRequest,
)
from services.wire.methods import DESCRIBE, INJECT, LOG, RESULT, SHUTDOWN, WATCH

__all__ = ["Lab", "RpcError", "TrioLab", "connect", "connect_trio"]

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)

# Seconds that `result(wait=True)` waits for the end of all work, unless the caller says otherwise.
PATIENCE = 3600.0

Work = TaskSpec | SessionSpec | ReservedHostCounters
Rates = Sequence[tuple[int, int]]  # (PMUv3 event number, occurrences per cycle as Q32.32)


class TrioLab:
    """A running topology, from a trio program. Use `connect_trio`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def describe(self) -> Description:
        """What runs there."""
        return await self._channel.call(DESCRIBE, DescribeRequest())

    async def inject(
        self,
        target: str,
        work: Work,
        *,
        cpu: int = 0,
        profiles: Sequence[Rates] = (),
    ) -> Injected:
        """Give a workload or a perf session to a CPU of `target` ("host", or a VM), or write the host's parameter (on
        whichever CPU); when it took effect.

        The phases of a task index into `profiles`.
        """
        return await self._channel.call(INJECT, _injection(target, work, cpu, profiles))

    @overload
    async def result(self, *, wait: Literal[True], timeout: float = PATIENCE) -> Result: ...
    @overload
    async def result(self, *, wait: bool = False, timeout: float = PATIENCE) -> Result | None: ...
    async def result(self, *, wait: bool = False, timeout: float = PATIENCE) -> Result | None:
        """The result, None while there is work left; with `wait`, when all work is done, within `timeout` seconds."""
        reply = await self._channel.call(RESULT, ResultRequest(wait=wait), timeout=timeout if wait else TIMEOUT)
        return _parsed(reply.json)

    @contextlib.asynccontextmanager
    async def watch(self, *, interval: float = 0.2) -> AsyncIterator[AsyncIterator[Progress]]:
        """Progress, at most every `interval` seconds of wall time, until all work is done."""
        async with self._channel.answers(WATCH, _watching(interval)) as answers:
            yield aiter(answers)

    async def log(self) -> InjectionLog:
        """What live clients have injected so far, for a replay."""
        return await self._channel.call(LOG, LogRequest())

    async def shutdown(self) -> ShutdownReply:
        """End the topology."""
        return await self._channel.call(SHUTDOWN, ShutdownRequest())


@contextlib.asynccontextmanager
async def connect_trio(address: str, *, tls: Tls | None = None) -> AsyncIterator[TrioLab]:
    """A topology at `address`, as `pmulab up` prints it. Raises ValueError if that is not an address."""
    async with open_loop() as loop, connect_channel(loop, Address.parse(address), name="kvm", tls=tls) as channel:
        yield TrioLab(channel)


class Lab:
    """A running topology, from a program without trio. Use `connect`. Any thread may use it."""

    def __init__(self, channel: grpc.Channel, peer: str) -> None:
        self._channel = channel
        self._peer = peer

    def describe(self) -> Description:
        """What runs there."""
        return self._call(DESCRIBE, DescribeRequest())

    def inject(
        self,
        target: str,
        work: Work,
        *,
        cpu: int = 0,
        profiles: Sequence[Rates] = (),
    ) -> Injected:
        """Give a workload or a perf session to a CPU of `target` ("host", or a VM), or write the host's parameter (on
        whichever CPU); when it took effect.

        The phases of a task index into `profiles`.
        """
        return self._call(INJECT, _injection(target, work, cpu, profiles))

    @overload
    def result(self, *, wait: Literal[True], timeout: float = PATIENCE) -> Result: ...
    @overload
    def result(self, *, wait: bool = False, timeout: float = PATIENCE) -> Result | None: ...
    def result(self, *, wait: bool = False, timeout: float = PATIENCE) -> Result | None:
        """The result, None while there is work left; with `wait`, when all work is done, within `timeout` seconds."""
        return _parsed(self._call(RESULT, ResultRequest(wait=wait), timeout if wait else TIMEOUT).json)

    def watch(self, *, interval: float = 0.2) -> Iterator[Progress]:
        """Progress, at most every `interval` seconds of wall time, until all work is done."""
        serialize, parse = WatchRequest.SerializeToString, Progress.FromString
        call = self._channel.unary_stream(WATCH.path, serialize, parse)(_watching(interval), wait_for_ready=True)
        try:
            yield from call
        except grpc.RpcError as exc:
            raise self._failure(WATCH.path, exc) from None
        finally:
            call.cancel()

    def log(self) -> InjectionLog:
        """What live clients have injected so far, for a replay."""
        return self._call(LOG, LogRequest())

    def shutdown(self) -> ShutdownReply:
        """End the topology."""
        return self._call(SHUTDOWN, ShutdownRequest())

    def _call(self, method: Unary[Q, A], request: Q, timeout: float = TIMEOUT) -> A:
        call = self._channel.unary_unary(method.path, method.request.SerializeToString, method.answer.FromString)
        try:
            answer: A = call(request, timeout=timeout, wait_for_ready=True)
        except grpc.RpcError as exc:
            raise self._failure(method.path, exc) from None
        return answer

    def _failure(self, path: str, exc: Any) -> RpcError:
        return RpcError(exc.code(), exc.details(), peer=self._peer, method=path)


@contextlib.contextmanager
def connect(address: str, *, tls: Tls | None = None) -> Iterator[Lab]:
    """A topology at `address`, as `pmulab up` prints it. Raises ValueError if that is not an address."""
    parsed = Address.parse(address)
    parsed.check(tls)
    if tls is not None:
        channel = grpc.secure_channel(parsed.grpc_target, tls.client(), options=OPTIONS)
    else:
        channel = grpc.insecure_channel(parsed.grpc_target, options=OPTIONS)
    with channel:
        yield Lab(channel, f"kvm at {parsed}")


def _injection(target: str, work: Work, cpu: int, profiles: Sequence[Rates]) -> InjectRequest:
    request = InjectRequest(target=target, cpu=cpu)
    for rates in profiles:
        request.profiles.append(Profile(events=[event for event, _ in rates], rates=[rate for _, rate in rates]))
    if isinstance(work, TaskSpec):
        request.task = dumps(work).decode()
    elif isinstance(work, SessionSpec):
        request.session = dumps(work).decode()
    else:
        request.parameter = dumps(work).decode()
    return request


def _watching(interval: float) -> WatchRequest:
    return WatchRequest(interval_ms=max(1, round(interval * 1000)))


def _parsed(json: bytes) -> Result | None:
    plain = orjson.loads(json)
    return None if plain is None else read(plain)
