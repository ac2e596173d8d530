"""Software attends a CPU over a stream as it attends one in its own process."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from grpc import StatusCode

from services._pmu import OP_DONE, OP_MRS, OP_MSR, OP_WINDOW, Burst
from services.attend import Attendance, PeerGone, RemoteSoftware, Role, Seat, attend
from services.cpu import BurstError, Cpu, Entry, EntryKind, TookException
from services.registers import PMCCNTR_EL0, PMCR_EL0, PMOVSCLR_EL0
from services.rpc import Address, Loop, RpcError, connect, serve
from services.wire import attend_pb2 as wire
from services.wire.methods import ATTEND, PROTOCOL_VERSION

SEAT = Seat(Role.GUEST, "vm0", 0)
DEADLINE = 5.0  # seconds; a failing test ends, a slow machine passes

Handler = Callable[[Cpu, Entry], Awaitable[None]]


class Scripted:
    """Software whose handlers are the functions of a test, by kind of entry."""

    def __init__(self, **handlers: Handler) -> None:
        self.handlers = {EntryKind[name]: handler for name, handler in handlers.items()}
        self.entries: list[Entry] = []

    async def enter(self, cpu: Cpu, entry: Entry) -> None:
        self.entries.append(entry)
        await self.handlers[entry.kind](cpu, entry)


class Recorder:
    """A CPU that answers every MRS with the register's encoding, an operation a cycle, and remembers the codes."""

    def __init__(self, at_window: Callable[[], Awaitable[object]] | None = None) -> None:
        self.now = 1000
        self.executed: list[tuple[int, int]] = []
        self.at_window = at_window

    async def execute(self, burst: Burst) -> int:
        codes = burst.arrays()[0]
        burst.set_values([code & 0xFFFF for code in codes if code >> 24 == OP_MRS])
        for code in codes:
            operation = code >> 24
            self.executed.append((operation, code & 0xFFFFFF))
            self.now += 1
            if operation == OP_WINDOW and self.at_window:
                await self.at_window()
        return self.now


@asynccontextmanager
async def attended(
    loop: Loop, address: Address, software: Scripted, silence: float = DEADLINE
) -> AsyncIterator[RemoteSoftware]:
    """kvm's side of `software`, which attends over a socket until the block ends."""
    attendance = Attendance([SEAT], silence)
    with trio.fail_after(4 * DEADLINE):
        async with serve(loop, address, [attendance.handler()]), connect(loop, address, name="kvm") as kvm:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(attend, kvm, SEAT, software)
                yield await attendance.software(SEAT)
                await attendance.dismiss()


async def nothing(cpu: Cpu, entry: Entry) -> None:
    """A handler with nothing to do."""


async def test_an_entry_arrives_whole(loop: Loop, address: Address) -> None:
    software = Scripted(CALL=nothing)
    calls = ((0, 1, 2, 3, 4), (5, 6, 7, 8, 2**64 - 1))
    entry = Entry(EntryKind.CALL, 2**64 - 1, 2**63, -1, 7, 2**40, calls, b"\x00payload")
    async with attended(loop, address, software) as remote:
        await remote.enter(Recorder(), entry)
    assert software.entries == [entry]


async def test_what_a_handler_posts_is_executed_and_its_values_come_back(loop: Loop, address: Address) -> None:
    seen: list[int] = []

    async def handler(cpu: Cpu, entry: Entry) -> None:
        assert cpu.now == entry.now
        seen.append(await cpu.mrs(PMOVSCLR_EL0))
        cpu.burst.msr(PMOVSCLR_EL0, seen[0])
        cycle_counter = cpu.burst.mrs(PMCCNTR_EL0)
        control = cpu.burst.mrs(PMCR_EL0)
        values = await cpu.wait()
        seen.extend((values[cycle_counter], values[control], cpu.now))
        cpu.burst.msr(PMCR_EL0, 1)
        cpu.answer(b"answer")

    executor = Recorder()
    async with attended(loop, address, Scripted(PMU_IRQ=handler)) as remote:
        answer = await remote.enter(executor, Entry(EntryKind.PMU_IRQ, 1000))
        statistics = remote.statistics()
    assert seen == [PMOVSCLR_EL0, PMCCNTR_EL0, PMCR_EL0, 1004]
    assert [operation for operation, _ in executor.executed] == [OP_MRS, OP_MSR, OP_MRS, OP_MRS, OP_MSR, OP_DONE]
    assert answer == b"answer"
    assert statistics.round_trips == 3  # two waits and the end
    assert statistics.entries == 1
    assert statistics.depth == 0


async def test_posting_without_waiting_costs_one_round_trip(loop: Loop, address: Address) -> None:
    async def handler(cpu: Cpu, entry: Entry) -> None:
        for _ in range(100):
            cpu.burst.msr(PMCR_EL0, 1)

    async with attended(loop, address, Scripted(TIMER=handler)) as remote:
        await remote.enter(Recorder(), Entry(EntryKind.TIMER, 0))
        assert remote.statistics().round_trips == 1


async def test_an_interrupt_at_a_window_is_served_nested(loop: Loop, address: Address) -> None:
    order: list[str] = []

    async def outer(cpu: Cpu, entry: Entry) -> None:
        order.append("outer begins")
        await cpu.window()
        order.append(f"outer reads {await cpu.mrs(PMCR_EL0):#x}")

    async def inner(cpu: Cpu, entry: Entry) -> None:
        order.append(f"inner reads {await cpu.mrs(PMOVSCLR_EL0):#x}")

    async with attended(loop, address, Scripted(TIMER=outer, PMU_IRQ=inner)) as remote:

        async def interrupt() -> None:
            await remote.enter(Recorder(), Entry(EntryKind.PMU_IRQ, 5))

        await remote.enter(Recorder(interrupt), Entry(EntryKind.TIMER, 0))
        assert remote.statistics().depth == 0
    assert order == ["outer begins", f"inner reads {PMOVSCLR_EL0:#x}", f"outer reads {PMCR_EL0:#x}"]


async def test_an_exception_taken_by_an_operation_is_raised_in_the_handler(loop: Loop, address: Address) -> None:
    class Undefined:
        async def execute(self, burst: Burst) -> int:
            if len(burst) and burst.arrays()[0][0] >> 24 == OP_MRS:
                raise TookException(1 << 25)
            return 0

    caught: list[int] = []

    async def handler(cpu: Cpu, entry: Entry) -> None:
        try:
            await cpu.mrs(PMCR_EL0)
        except TookException as exc:
            caught.append(exc.esr)

    async with attended(loop, address, Scripted(TIMER=handler)) as remote:
        await remote.enter(Undefined(), Entry(EntryKind.TIMER, 0))
    assert caught == [1 << 25]


async def test_an_exception_after_the_last_wait_of_a_handler_ends_the_session(loop: Loop, address: Address) -> None:
    class Undefined:
        async def execute(self, burst: Burst) -> int:
            raise TookException(1 << 25)

    async def handler(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.msr(PMCR_EL0, 1)

    with pytest.RaisesGroup(pytest.RaisesExc(RpcError, match="INVALID_ARGUMENT: codes: "), flatten_subgroups=True):
        async with attended(loop, address, Scripted(TIMER=handler)) as remote:
            with pytest.raises(PeerGone, match="ESR 0x2000000, and its handler has ended"):
                await remote.enter(Undefined(), Entry(EntryKind.TIMER, 0))


async def test_a_handler_that_fails_is_named_on_both_sides(loop: Loop, address: Address) -> None:
    async def handler(cpu: Cpu, entry: Entry) -> None:
        raise KeyError("no such event")

    with pytest.RaisesGroup(pytest.RaisesExc(KeyError), flatten_subgroups=True):
        async with attended(loop, address, Scripted(TIMER=handler)) as remote:
            with pytest.raises(PeerGone, match="vm0 on vCPU 0 has gone: its handler failed: KeyError: 'no such event'"):
                await remote.enter(Recorder(), Entry(EntryKind.TIMER, 0))
            with pytest.raises(PeerGone):  # and it stays gone
                await remote.enter(Recorder(), Entry(EntryKind.TIMER, 0))


async def test_why_a_handler_fails_is_told_in_a_line(loop: Loop, address: Address) -> None:
    async def handler(cpu: Cpu, entry: Entry) -> None:
        raise ValueError("\x1b[31m\n" + 100_000 * "a")

    with pytest.RaisesGroup(pytest.RaisesExc(ValueError), flatten_subgroups=True):
        async with attended(loop, address, Scripted(TIMER=handler)) as remote:
            with pytest.raises(PeerGone, match=r"its handler failed: ValueError:  \[31m a{250,300}…$"):
                await remote.enter(Recorder(), Entry(EntryKind.TIMER, 0))


async def test_software_that_does_not_answer_is_gone_after_the_silence(loop: Loop, address: Address) -> None:
    async def handler(cpu: Cpu, entry: Entry) -> None:
        await trio.sleep_forever()

    attendance = Attendance([SEAT], 0.1)
    with trio.fail_after(DEADLINE):
        async with serve(loop, address, [attendance.handler()]), connect(loop, address, name="kvm") as kvm:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(attend, kvm, SEAT, Scripted(TIMER=handler))
                remote = await attendance.software(SEAT)
                with pytest.raises(PeerGone, match=r"no answer for 0\.1 s"):
                    await remote.enter(Recorder(), Entry(EntryKind.TIMER, 0))
                assert (await attendance.departure()).who == "vm0 on vCPU 0"
                nursery.cancel_scope.cancel()


async def test_an_operation_that_the_cpu_does_not_execute_ends_the_session(loop: Loop, address: Address) -> None:
    class Picky:
        async def execute(self, burst: Burst) -> int:
            raise BurstError("operation 0: WFI is not for the host's kernel")

    async def handler(cpu: Cpu, entry: Entry) -> None:
        await cpu.wait()

    with pytest.RaisesGroup(
        pytest.RaisesExc(RpcError, match="INVALID_ARGUMENT: operation 0: WFI is not"), flatten_subgroups=True
    ):
        async with attended(loop, address, Scripted(TIMER=handler)) as remote:
            with pytest.raises(PeerGone, match="malformed burst: operation 0"):
                await remote.enter(Picky(), Entry(EntryKind.TIMER, 0))
            await trio.sleep_forever()  # until the refusal has reached the software


HELLO = wire.Burst(hello=wire.Hello(protocol_version=PROTOCOL_VERSION, role=wire.ROLE_GUEST, name="vm0", cpu=0))


@pytest.mark.parametrize(
    ("hello", "code", "details"),
    [
        (wire.Burst(entry=1), StatusCode.INVALID_ARGUMENT, "hello: the first message"),
        (wire.Burst(hello=wire.Hello(protocol_version=9)), StatusCode.FAILED_PRECONDITION, "hello.protocol_version: 9"),
        (wire.Burst(hello=wire.Hello(protocol_version=1)), StatusCode.INVALID_ARGUMENT, "hello.role: 0"),
        (
            wire.Burst(hello=wire.Hello(protocol_version=1, role=wire.ROLE_HOST, name="vm0", cpu=3)),
            StatusCode.NOT_FOUND,
            "hello: there is no vm0 on pCPU 3 here",
        ),
    ],
)
async def test_a_hello_that_does_not_fit_is_refused(
    loop: Loop, address: Address, hello: wire.Burst, code: StatusCode, details: str
) -> None:
    with trio.fail_after(DEADLINE):
        async with serve(loop, address, [Attendance([SEAT]).handler()]), connect(loop, address, name="kvm") as kvm:
            async with kvm.stream(ATTEND) as stream:
                await stream.send(hello)
                with pytest.raises(RpcError) as refused:
                    await stream.receive()
    assert refused.value.code is code
    assert details in refused.value.details


async def test_a_seat_is_taken_once(loop: Loop, address: Address) -> None:
    async with attended(loop, address, Scripted()), connect(loop, address, name="kvm") as kvm:
        with pytest.raises(RpcError, match="ALREADY_EXISTS: hello: vm0 on vCPU 0 is attended"):
            await attend(kvm, SEAT, Scripted())


@pytest.mark.parametrize(
    ("burst", "code", "details"),
    [
        (wire.Burst(entry=1, codes=[0xFF << 24]), StatusCode.INVALID_ARGUMENT, "operation 0"),
        (wire.Burst(entry=1, codes=[OP_DONE << 24] * 2), StatusCode.INVALID_ARGUMENT, "codes[0]: DONE"),
        (wire.Burst(entry=1, answer=b"x"), StatusCode.INVALID_ARGUMENT, "answer: only the last burst"),
        (wire.Burst(entry=7), StatusCode.FAILED_PRECONDITION, "entry: 7 is answered where 1"),
        (HELLO, StatusCode.INVALID_ARGUMENT, "hello: only the first message"),
    ],
)
async def test_a_malformed_burst_ends_the_session_and_the_detail_names_the_field(
    loop: Loop, address: Address, burst: wire.Burst, code: StatusCode, details: str
) -> None:
    attendance = Attendance([SEAT])
    with trio.fail_after(DEADLINE):
        async with serve(loop, address, [attendance.handler()]), connect(loop, address, name="kvm") as kvm:
            async with kvm.stream(ATTEND) as stream, trio.open_nursery() as nursery:
                await stream.send(HELLO)
                remote = await attendance.software(SEAT)

                async def entered() -> None:
                    with pytest.raises(PeerGone):
                        await remote.enter(Recorder(), Entry(EntryKind.TIMER, 0))

                nursery.start_soon(entered)
                assert (await stream.receive()).entry.id == 1
                await stream.send(burst)
                with pytest.raises(RpcError) as refused:
                    await stream.receive()
    assert refused.value.code is code
    assert details in refused.value.details


async def test_who_has_not_come_is_known(loop: Loop, address: Address) -> None:
    host = Seat(Role.HOST, "host", 0)
    attendance = Attendance([host, SEAT])
    async with serve(loop, address, [attendance.handler()]), connect(loop, address, name="kvm") as kvm:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attend, kvm, host, Scripted())
            with trio.fail_after(DEADLINE):
                await attendance.software(host)
            assert attendance.missing() == [SEAT]
            await attendance.dismiss()


async def test_where_the_machine_hangs_software_waits_in_the_middle_of_its_entry_to_be_dismissed(
    loop: Loop, address: Address
) -> None:
    """For longer than kvm may be silent otherwise."""
    silence, ended = 0.2, trio.Event()

    async def spins() -> None:
        raise RuntimeError("nobody gets anywhere")

    async def handler(cpu: Cpu, entry: Entry) -> None:
        try:
            await cpu.window()
        finally:
            ended.set()

    attendance = Attendance([SEAT])
    with trio.fail_after(4 * DEADLINE):
        async with serve(loop, address, [attendance.handler()]), connect(loop, address, name="kvm") as kvm:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(attend, kvm, SEAT, Scripted(TIMER=handler), silence=silence))
                remote = await attendance.software(SEAT)
                with pytest.raises(RuntimeError, match="nobody gets anywhere"):
                    await remote.enter(Recorder(at_window=spins), Entry(EntryKind.TIMER, 1000))
                await attendance.hang()
                await trio.sleep(3 * silence)
                assert not ended.is_set()
                await attendance.dismiss()
            assert ended.is_set(), "and the session has ended in order"
