"""`pmulab.client`: the same methods from a trio program and from one without."""

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import orjson
import pytest
import trio
from grpc import StatusCode

from pmulab.client import Lab, RpcError, connect, connect_trio
from services.experiment import EventSpec, PhaseSpec, SessionSpec, TaskSpec
from services.result import SCHEMA, Result
from services.rpc import Abort, Address, Loop, Stream, serve
from services.typed_json import dumps, loads
from services.wire.lab_pb2 import (
    DescribeRequest,
    Description,
    Injected,
    InjectionLog,
    InjectRequest,
    LoggedInjection,
    LogRequest,
    Progress,
    ResultReply,
    ResultRequest,
    ShutdownReply,
    ShutdownRequest,
    WatchRequest,
)
from services.wire.methods import DESCRIBE, INJECT, LOG, RESULT, SHUTDOWN, WATCH

T = TypeVar("T")

DEADLINE = 10.0  # seconds; a failing test ends, a slow machine passes

TASK = TaskSpec("gzip", (PhaseSpec(profile=0, cycles=1000),), repeat=2)
SESSION = SessionSpec("stat", (EventSpec("cycles", 0x11, leader=0),))
RATES = ((0x08, 3 << 31), (0x11, 1 << 32))


DONE = Result(SCHEMA, "0.1.0", "gzip-record", 1, "processes", (), (), {}, {})


class SmallLab:
    """A `Lab` service whose work is done when it is first asked to wait."""

    def __init__(self) -> None:
        self.requests: list[InjectRequest] = []
        self.done = False

    async def describe(self, request: DescribeRequest) -> Description:
        return Description(scenario="gzip-record", frequency_hz=10**9)

    async def inject(self, request: InjectRequest) -> Injected:
        if request.target != "vm0":
            raise Abort(StatusCode.NOT_FOUND, f"target: no {request.target!r}")
        self.requests.append(request)
        return Injected(id=len(self.requests), entry=7, now=8)

    async def result(self, request: ResultRequest) -> ResultReply:
        self.done = self.done or request.wait
        return ResultReply(json=orjson.dumps(DONE if self.done else None), done=self.done)

    async def watch(self, request: WatchRequest, stream: Stream[Progress, WatchRequest]) -> None:
        for left in (2, 1, 0):
            await stream.send(Progress(total=2, left=left, done=not left))

    async def log(self, request: LogRequest) -> InjectionLog:
        return InjectionLog(injections=[LoggedInjection(request=request) for request in self.requests])

    async def shutdown(self, request: ShutdownRequest) -> ShutdownReply:
        return ShutdownReply(now=9)


@asynccontextmanager
async def served(loop: Loop, address: Address) -> AsyncIterator[SmallLab]:
    lab = SmallLab()
    handlers = [
        DESCRIBE.handled_by(lab.describe),
        INJECT.handled_by(lab.inject),
        RESULT.handled_by(lab.result),
        WATCH.handled_by(lab.watch),
        LOG.handled_by(lab.log),
        SHUTDOWN.handled_by(lab.shutdown),
    ]
    with trio.fail_after(DEADLINE):
        async with serve(loop, address, handlers):
            yield lab


async def blocking(address: Address, use: Callable[[Lab], T]) -> T:
    """What a program without trio gets from the topology at `address`."""

    def program() -> T:
        with connect(str(address)) as lab:
            return use(lab)

    return await trio.to_thread.run_sync(program)


async def test_a_blocking_program_works_with_a_topology(loop: Loop, address: Address) -> None:
    def program(lab: Lab) -> None:
        assert lab.describe().scenario == "gzip-record"
        assert lab.inject("vm0", TASK, profiles=[RATES]).entry == 7
        assert lab.inject("vm0", SESSION, cpu=1).id == 2
        assert lab.result() is None
        assert [progress.left for progress in lab.watch()] == [2, 1, 0]
        assert lab.result(wait=True) == DONE
        assert len(lab.log().injections) == 2
        assert lab.shutdown().now == 9

    async with served(loop, address):
        await blocking(address, program)


# One asyncio loop a process: the server of these tests has it, so the trio client is a process of its own.
TRIO_PROGRAM = """
import sys, trio
from pmulab.client import RpcError, connect_trio
from services.experiment import PhaseSpec, TaskSpec

async def main():
    async with connect_trio(sys.argv[1]) as lab:
        print((await lab.describe()).scenario)
        print((await lab.inject("vm0", TaskSpec("gzip", (PhaseSpec(0, 1000),)))).entry)
        async with lab.watch() as progress:
            print([step.left async for step in progress])
        print((await lab.result(wait=True)).scenario)
        print(len((await lab.log()).injections))
        try:
            await lab.inject("vm7", TaskSpec("gzip", ()))
        except RpcError as exc:
            print(exc.code.name)
        print((await lab.shutdown()).now)

trio.run(main)
"""


async def test_a_trio_program_works_with_a_topology(loop: Loop, address: Address) -> None:
    async with served(loop, address):
        program = await trio.run_process([sys.executable, "-c", TRIO_PROGRAM, str(address)], capture_stdout=True)
    said = program.stdout.decode().splitlines()
    assert said == ["gzip-record", "7", "[2, 1, 0]", "gzip-record", "1", "NOT_FOUND", "9"]


async def test_work_arrives_as_it_was_given(loop: Loop, address: Address) -> None:
    async with served(loop, address) as lab:
        await blocking(address, lambda client: client.inject("vm0", TASK, cpu=3, profiles=[RATES, ()]))
        await blocking(address, lambda client: client.inject("vm0", SESSION))
    task, session = lab.requests
    assert (task.target, task.cpu, task.WhichOneof("work")) == ("vm0", 3, "task")
    assert loads(TaskSpec, task.task.encode()) == TASK
    assert [tuple(zip(profile.events, profile.rates, strict=True)) for profile in task.profiles] == [RATES, ()]
    assert session.session == dumps(SESSION).decode()


async def test_a_refusal_says_who_refused_what_and_why(loop: Loop, address: Address) -> None:
    async with served(loop, address):
        with pytest.raises(RpcError) as refused:
            await blocking(address, lambda lab: lab.inject("vm7", TASK))
    assert refused.value.code is StatusCode.NOT_FOUND
    assert str(refused.value) == f"/pmulab.v1.Lab/Inject of kvm at {address}: NOT_FOUND: target: no 'vm7'"


async def test_leaving_off_watching_ends_the_call(loop: Loop, address: Address) -> None:
    async with served(loop, address):
        first = await blocking(address, lambda lab: next(iter(lab.watch())))
    assert first.left == 2


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="not one of unix:PATH"), connect("kvm.sock"):
        pass


async def test_what_is_no_address_is_refused_by_trios_too() -> None:
    with pytest.raises(ValueError, match="not one of unix:PATH"):
        async with connect_trio("kvm.sock"):
            pass
