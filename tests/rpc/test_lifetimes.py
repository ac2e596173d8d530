"""Processes come and go: what is noticed, and what is left behind."""

import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from services._pmu import Burst
from services.attend import Attendance, PeerGone, Role, Seat, attend
from services.cpu import Cpu, Entry, EntryKind
from services.rpc import Address, BindError, Loop, RpcError, connect, open_loop, private_directory, serve
from services.rpc.options import client_options, server_options
from services.wire.lab_pb2 import DescribeRequest, Description
from services.wire.methods import DESCRIBE

DEADLINE = 15.0  # seconds; a failing test ends, a slow machine passes
NOTICED = 1.0  # seconds within which a closed connection is noticed (docs promise it)

SEAT = Seat(Role.GUEST, "vm0", 0)

PRELUDE = """
import sys, trio
from services._pmu import Burst
from services.attend import Attendance, Role, Seat, attend
from services.cpu import Cpu, Entry, EntryKind
from services.rpc import Address, connect, open_loop, serve
from services.wire.lab_pb2 import DescribeRequest, Description
from services.wire.methods import DESCRIBE

ADDRESS = Address.parse(sys.argv[1])
SEAT = Seat(Role.GUEST, "vm0", 0)

class Cpu0:
    async def execute(self, burst):
        return 0
"""

ATTENDING = """
class Waiting:
    async def enter(self, cpu, entry):
        print("entered", flush=True)
        await trio.sleep_forever()

async def main():
    async with open_loop() as loop, connect(loop, ADDRESS, name="kvm") as kvm:
        await attend(kvm, SEAT, Waiting())

trio.run(main)
"""

KVM = """
class Stuck:
    async def execute(self, burst):
        print("executing", flush=True)
        await trio.sleep_forever()

async def main():
    attendance = Attendance([SEAT])
    async with open_loop() as loop, serve(loop, ADDRESS, [attendance.handler()]):
        software = await attendance.software(SEAT)
        await software.enter(Stuck(), Entry(EntryKind.TIMER, 0))

trio.run(main)
"""

GRACEFUL = """
import signal

async def main():
    go_on = trio.Event()

    async def describe(request):
        print("called", flush=True)
        await go_on.wait()
        return Description(scenario="finished")

    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with open_loop() as loop, serve(loop, ADDRESS, [DESCRIBE.handled_by(describe)], grace=10):
            print("serving", flush=True)
            async for _ in signals:
                break
            go_on.set()

trio.run(main)
"""


@asynccontextmanager
async def process(program: str, address: Address) -> AsyncIterator[trio.Process]:
    """A Python process that runs `program`; killed at the end if it has not ended."""
    command = [sys.executable, "-c", PRELUDE + textwrap.dedent(program), str(address)]
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            start = partial(trio.run_process, command, stdout=subprocess.PIPE, check=False)
            running: trio.Process = await nursery.start(start)
            try:
                yield running
            finally:
                running.kill()


async def said(running: trio.Process, word: str) -> None:
    """Wait until the process prints `word`."""
    assert running.stdout is not None
    heard = b""
    while word.encode() not in heard:
        more = await running.stdout.receive_some()
        assert more, f"it ended without a word of {word!r}: {heard!r}"
        heard += more


class Ticking:
    """A CPU on which nothing happens."""

    async def execute(self, burst: Burst) -> int:
        return 0


async def test_kvm_notices_a_killed_guest_that_it_has_entered(loop: Loop, address: Address) -> None:
    attendance = Attendance([SEAT])
    async with serve(loop, address, [attendance.handler()]), process(ATTENDING, address) as guest:
        software = await attendance.software(SEAT)

        async def entered() -> float:
            with pytest.raises(PeerGone, match="vm0 on vCPU 0 has gone: its connection has closed"):
                await software.enter(Ticking(), Entry(EntryKind.TIMER, 0))
            return trio.current_time()

        async def killed() -> float:
            await said(guest, "entered")
            guest.kill()
            return trio.current_time()

        times: dict[str, float] = {}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(note, times, "noticed", entered)
            nursery.start_soon(note, times, "killed", killed)
    assert times["noticed"] - times["killed"] < NOTICED


async def note(times: dict[str, float], name: str, when: Callable[[], Awaitable[float]]) -> None:
    times[name] = await when()


async def test_kvm_notices_a_killed_guest_that_it_has_not_entered(loop: Loop, address: Address) -> None:
    attendance = Attendance([SEAT])
    async with serve(loop, address, [attendance.handler()]), process(ATTENDING, address) as guest:
        await attendance.software(SEAT)
        guest.kill()
        with trio.fail_after(NOTICED):
            gone = await attendance.departure()
    assert gone.who == "vm0 on vCPU 0"


async def test_a_guest_notices_a_killed_kvm(loop: Loop, address: Address) -> None:
    class Reading:
        async def enter(self, cpu: Cpu, entry: Entry) -> None:
            await cpu.wait()

    async with process(KVM, address) as kvm, connect(loop, address, name="kvm") as channel:
        times: dict[str, float] = {}

        async def attending() -> float:
            with pytest.raises(PeerGone, match=r"kvm at unix:.* has gone"):
                await attend(channel, SEAT, Reading())
            return trio.current_time()

        async def killed() -> float:
            await said(kvm, "executing")
            kvm.kill()
            return trio.current_time()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(note, times, "noticed", attending)
            nursery.start_soon(note, times, "killed", killed)
    assert times["noticed"] - times["killed"] < NOTICED


async def test_a_process_that_is_stopped_counts_as_gone_after_the_keepalive(
    loop: Loop, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.rpc.server.OPTIONS", server_options(keepalive=0.2, answer=0.2))
    attendance = Attendance([SEAT])
    async with serve(loop, address, [attendance.handler()]), process(ATTENDING, address) as guest:
        await attendance.software(SEAT)
        guest.send_signal(signal.SIGSTOP)
        assert (await attendance.departure()).who == "vm0 on vCPU 0"


async def test_a_caller_of_a_process_that_is_stopped_is_told_after_the_keepalive(
    loop: Loop, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.rpc.channel.OPTIONS", client_options(keepalive=0.2, answer=0.2))
    async with process(GRACEFUL, address) as server, connect(loop, address, name="lab") as lab:
        await said(server, "serving")
        await lab.reach()
        server.send_signal(signal.SIGSTOP)
        with pytest.raises(RpcError, match="UNAVAILABLE"):
            await lab.call(DESCRIBE, DescribeRequest(), timeout=DEADLINE)


async def test_the_socket_of_a_killed_server_is_served_again(loop: Loop, address: Address) -> None:
    async with process(GRACEFUL, address) as first:
        await said(first, "serving")
        with pytest.raises(BindError, match="is being served by another process"):
            async with serve(loop, address, []):
                pass
        first.kill()
        await first.wait()
        assert Path(address.target).is_socket()  # noqa: ASYNC240 - it was left behind
        async with serve(loop, address, []), connect(loop, address, name="second") as second:
            await second.reach()


async def test_a_server_that_is_told_to_stop_answers_what_it_has_begun(loop: Loop, address: Address) -> None:
    answers: list[str] = []

    async def call() -> None:
        async with connect(loop, address, name="lab") as lab:
            answers.append((await lab.call(DESCRIBE, DescribeRequest())).scenario)

    async with process(GRACEFUL, address) as server, trio.open_nursery() as nursery:
        await said(server, "serving")
        nursery.start_soon(call)
        await said(server, "called")
        server.send_signal(signal.SIGTERM)
        assert await server.wait() == 0
    assert answers == ["finished"]


def test_nothing_is_left_behind_after_many_runs() -> None:
    async def once(address: Address) -> None:
        async def describe(request: DescribeRequest) -> Description:
            return Description()

        async with open_loop() as loop, serve(loop, address, [DESCRIBE.handled_by(describe)]):
            async with connect(loop, address, name="lab") as lab:
                await lab.call(DESCRIBE, DescribeRequest())
                with trio.move_on_after(0.001):
                    await lab.call(DESCRIBE, DescribeRequest())

    def left() -> tuple[int, int, int]:
        """File descriptors, threads of the operating system, threads of Python."""
        return (
            len(list(Path("/proc/self/fd").iterdir())),
            len(list(Path("/proc/self/task").iterdir())),
            threading.active_count(),
        )

    with private_directory() as directory:
        address = Address.parse(f"unix:{directory}/a.sock")
        for _ in range(3):  # what grpc keeps for the life of the process
            trio.run(once, address)
        before = left()
        for _ in range(20):
            trio.run(once, address)
        after = left()
    assert all(now <= then for now, then in zip(after, before, strict=True)), (before, after)


def test_ctrl_c_ends_a_server_and_its_calls() -> None:
    program = """
    async def main():
        async def describe(request):
            print("called", flush=True)
            await trio.sleep_forever()

        async with open_loop() as loop, serve(loop, ADDRESS, [DESCRIBE.handled_by(describe)], grace=1000):
            async with connect(loop, ADDRESS, name="lab") as lab:
                await lab.call(DESCRIBE, DescribeRequest(), timeout=1000)

    try:
        trio.run(main)
    except* KeyboardInterrupt:
        print("interrupted")
    """
    with private_directory() as directory:
        command = [sys.executable, "-c", PRELUDE + textwrap.dedent(program), f"unix:{directory}/a.sock"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == "called\n"
            running.send_signal(signal.SIGINT)
            assert running.communicate(timeout=DEADLINE)[0] == "interrupted\n"
            assert running.returncode == 0
