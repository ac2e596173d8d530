"""The Attend protocol: software and the CPU it attends, in two processes (`proto/services/wire/attend.proto`).

kvm's side. `Attendance` serves the stream and knows who is expected; each software that attends becomes a
`RemoteSoftware`, which kvm enters as it enters software of its own process:

    attendance = Attendance([Seat(Role.HOST, "host", 0), Seat(Role.GUEST, "vm0", 0)])
    async with open_loop() as loop, serve(loop, address, [attendance.handler()]):
        with trio.fail_after(10):
            host = await attendance.software(Seat(Role.HOST, "host", 0))
        answer = await host.enter(pcpu, entry)  # the pCPU executes its bursts
        await attendance.dismiss()  # the sessions end in order

The software's side. `attend` takes a seat and hands every entry to a `Software` until kvm dismisses it:

    async with open_loop() as loop, connect(loop, address, name="kvm") as kvm:
        await attend(kvm, Seat(Role.HOST, "host", 0), software)

A handler costs one round trip for each of its bursts: the entry, or the reply to the burst before, in one
direction, the burst in the other. Entries nest as they do embedded, where `execute` calls `enter`.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

import trio
from grpc import StatusCode

from services._pmu import OP_DONE, Burst
from services.cpu import Cpu, Entry, EntryKind, Executor, Software, TookException
from services.rpc import Abort, Channel, Handler, RpcError, Stream
from services.wire import attend_pb2 as wire
from services.wire.methods import ATTEND, PROTOCOL_VERSION

# Seconds of silence from a peer whose turn it is, its connection being open, after which it counts as gone.
SILENCE = 60.0

# Seconds within which software that has dialled says hello, or hears that its failure is noted.
COURTESY = 5.0

OPERATION_SHIFT = 24  # a code word's high byte is the operation


class Role(IntEnum):
    """Whose software attends; the numbers are the wire's."""

    HOST = wire.ROLE_HOST
    GUEST = wire.ROLE_GUEST


@dataclass(frozen=True, slots=True)
class Seat:
    """A CPU to attend: pCPU `cpu` for the host's perf, vCPU `cpu` of the VM `name` for a guest's kernel."""

    role: Role
    name: str
    cpu: int

    def __str__(self) -> str:
        return f"{self.name} on {'pCPU' if self.role is Role.HOST else 'vCPU'} {self.cpu}"


class PeerGone(Exception):
    """The peer has died, fell silent or broke the protocol: it takes no part any more."""

    def __init__(self, who: str, why: str) -> None:
        super().__init__(who, why)
        self.who = who
        self.why = why

    def __str__(self) -> str:
        return f"{self.who} has gone: {self.why}"


class BurstError(Exception):
    """A burst asks for what its CPU does not execute; the text names the operation.

    An executor raises it; the session of a remote software that sent the burst ends with INVALID_ARGUMENT.
    """


@dataclass(frozen=True, slots=True)
class AttendStatistics:
    """Of one session, kvm's side. `round_trips`: messages of the software, each the answer to one of ours."""

    entries: int
    round_trips: int
    depth: int  # entries open now


class RemoteSoftware:
    """Software at the other end of a stream, as kvm enters it."""

    def __init__(self, seat: Seat, stream: Stream[wire.Turn, wire.Burst], silence: float = SILENCE) -> None:
        self.seat = seat
        self.gone: PeerGone | None = None
        self._stream = stream
        self._silence = silence
        self._open: list[int] = []
        self._entries = self._round_trips = 0
        self._end: Abort | None = None
        self._ended = trio.Event()

    async def enter(self, executor: Executor, entry: Entry) -> bytes:
        """Run the handler of `entry` to its end, executing its bursts on `executor`; its answer.

        `executor.execute` may enter this software again. Raises `PeerGone` if the software died, fell silent or sent
        nonsense, now or before; `TookException` if the burst that ends the handler took one, as embedded.
        """
        self._entries += 1
        number = self._entries
        self._open.append(number)
        await self._send(wire.Turn(entry=_entry_message(number, entry)))
        while True:
            message = await self._receive(number)
            burst, done = self._burst(message)
            if done:
                self._open.pop()
                await self._execute(executor, burst, message.answer)
                return message.answer
            reply = wire.Reply(entry=number)
            try:
                reply.now = await self._execute(executor, burst, b"")
                reply.values.extend(burst.values())
            except TookException as exc:
                reply.now, reply.esr = entry.now, exc.esr
            await self._send(wire.Turn(reply=reply))

    def statistics(self) -> AttendStatistics:
        return AttendStatistics(self._entries, self._round_trips, len(self._open))

    # How the session ends.

    def dismiss(self) -> None:
        """End the session in order."""
        self._ended.set()

    async def serve(self) -> None:
        """The handler of the session, until it is dismissed. Raises `Abort` if the software broke the protocol."""
        try:
            await self._ended.wait()
        finally:
            if self.gone is None and not self._ended.is_set():
                self.gone = PeerGone(str(self.seat), "its connection has closed")
        if self._end is not None:
            raise self._end

    def _give_up(self, why: str, code: StatusCode, details: str) -> PeerGone:
        """The session ends with a status, and nobody enters this software again."""
        if self.gone is None:
            self.gone = PeerGone(str(self.seat), why)
            self._end = Abort(code, details)
            self._ended.set()
        return self.gone

    # Messages.

    async def _send(self, turn: wire.Turn) -> None:
        if self.gone is not None:
            raise self.gone
        try:
            with trio.fail_after(self._silence):
                await self._stream.send(turn)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._closed() from None
        except trio.TooSlowError:
            raise self._silent() from None

    async def _receive(self, number: int) -> wire.Burst:
        try:
            with trio.fail_after(self._silence):
                message = await self._stream.receive()
        except trio.EndOfChannel:
            raise self._closed() from None
        except trio.TooSlowError:
            raise self._silent() from None
        except Abort as exc:  # it does not decode
            raise self._give_up(f"it sent what is {exc.details}", exc.code, exc.details) from exc
        self._round_trips += 1
        if message.HasField("hello"):
            raise self._malformed("hello: only the first message of a stream carries it")
        if message.failure:
            raise self._give_up(f"its handler failed: {message.failure}", StatusCode.ABORTED, "failure: noted")
        if message.entry != number:
            details = f"entry: {message.entry} is answered where {number} is the innermost open one"
            raise self._give_up(f"it broke the protocol: {details}", StatusCode.FAILED_PRECONDITION, details)
        return message

    def _burst(self, message: wire.Burst) -> tuple[Burst, bool]:
        codes = list(message.codes)
        done = bool(codes) and codes[-1] >> OPERATION_SHIFT == OP_DONE
        if message.answer and not done:
            raise self._malformed("answer: only the last burst of an entry carries one")
        for index, code in enumerate(codes[:-1]):
            if code >> OPERATION_SHIFT == OP_DONE:
                raise self._malformed(f"codes[{index}]: DONE is not the last operation")
        try:
            return Burst.from_arrays(codes, list(message.operands)), done
        except ValueError as exc:
            raise self._malformed(str(exc)) from exc

    async def _execute(self, executor: Executor, burst: Burst, answer: bytes) -> int:
        try:
            return await executor.execute(burst, answer)
        except BurstError as exc:
            raise self._malformed(str(exc)) from exc

    def _malformed(self, details: str) -> PeerGone:
        return self._give_up(f"it sent a malformed burst: {details}", StatusCode.INVALID_ARGUMENT, details)

    def _closed(self) -> PeerGone:
        if self.gone is None:
            self.gone = PeerGone(str(self.seat), "its connection has closed")
        return self.gone

    def _silent(self) -> PeerGone:
        details = f"no answer for {self._silence:g} s"
        return self._give_up(details, StatusCode.DEADLINE_EXCEEDED, details)


@dataclass
class Attendance:
    """Who is to attend, and who does. Each seat is taken once: software that has gone does not come back."""

    seats: Iterable[Seat]
    silence: float = SILENCE
    _taken: dict[Seat, RemoteSoftware] = field(default_factory=dict, init=False)
    _changed: trio.Event = field(default_factory=trio.Event, init=False)
    _sessions: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.seats = tuple(self.seats)

    def handler(self) -> Handler:
        return ATTEND.handled_by(self._attend)

    def missing(self) -> list[Seat]:
        """Seats that nobody has taken so far."""
        return [seat for seat in self.seats if seat not in self._taken]

    async def software(self, seat: Seat) -> RemoteSoftware:
        """Who attends `seat`, waiting for it. Give it a deadline; `missing` then says who it was."""
        while seat not in self._taken:
            await self._changed.wait()
        return self._taken[seat]

    async def departure(self) -> PeerGone:
        """Wait until somebody has gone, entered or not: for when virtual time stands still."""
        while True:
            for software in self._taken.values():
                if software.gone is not None:
                    return software.gone
            await self._changed.wait()

    async def dismiss(self) -> None:
        """End every session in order, and wait until they have ended."""
        for software in self._taken.values():
            software.dismiss()
        while self._sessions:
            await self._changed.wait()

    def statistics(self) -> dict[Seat, AttendStatistics]:
        return {seat: software.statistics() for seat, software in self._taken.items()}

    async def _attend(self, stream: Stream[wire.Turn, wire.Burst]) -> None:
        try:
            with trio.fail_after(COURTESY):
                seat = self._admit(await stream.receive())
        except trio.EndOfChannel:
            raise Abort(StatusCode.INVALID_ARGUMENT, "hello: the stream ended without one") from None
        software = self._taken[seat] = RemoteSoftware(seat, stream, self.silence)
        self._sessions += 1
        self._change()
        try:
            await software.serve()
        finally:
            self._sessions -= 1
            self._change()

    def _admit(self, message: wire.Burst) -> Seat:
        hello = message.hello
        if not message.HasField("hello") or message.codes:
            raise Abort(StatusCode.INVALID_ARGUMENT, "hello: the first message of a stream carries it and nothing else")
        if hello.protocol_version != PROTOCOL_VERSION:
            raise Abort(
                StatusCode.FAILED_PRECONDITION,
                f"hello.protocol_version: {hello.protocol_version}, and {PROTOCOL_VERSION} is spoken here",
            )
        try:
            seat = Seat(Role(hello.role), hello.name, hello.cpu)
        except ValueError:
            details = f"hello.role: {hello.role} is neither host nor guest"
            raise Abort(StatusCode.INVALID_ARGUMENT, details) from None
        if seat not in tuple(self.seats):
            raise Abort(StatusCode.NOT_FOUND, f"hello: there is no {seat} here")
        if seat in self._taken:
            raise Abort(StatusCode.ALREADY_EXISTS, f"hello: {seat} is attended, or was")
        return seat

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


async def attend(kvm: Channel, seat: Seat, software: Software, *, silence: float = SILENCE) -> None:
    """Attend `seat` until kvm dismisses: every entry goes to `software`, its bursts to kvm.

    Raises `PeerGone` if kvm died or fell silent in the middle of an entry; `RpcError` if it refused the seat or a
    burst, or is not to be reached. What a handler raises is reported to kvm and raised.
    """
    await kvm.reach()
    try:
        async with kvm.stream(ATTEND) as stream:
            role = wire.Role.Name(seat.role)
            hello = wire.Hello(protocol_version=PROTOCOL_VERSION, role=role, name=seat.name, cpu=seat.cpu)
            await stream.send(wire.Burst(hello=hello))
            await _Session(kvm.peer, stream, software, silence).serve()
    except RpcError as exc:
        if exc.code in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED):
            raise PeerGone(kvm.peer, exc.details) from exc
        raise


class _Session:
    """The software's side of one stream: the executor of its `Cpu`."""

    def __init__(self, peer: str, stream: Stream[wire.Burst, wire.Turn], software: Software, silence: float) -> None:
        self._peer = peer
        self._stream = stream
        self._software = software
        self._silence = silence
        self._open: list[int] = []
        self._cpu = Cpu(self)

    async def serve(self) -> None:
        """Until kvm ends the call in order. Between entries it may be silent as long as it likes."""
        while True:
            try:
                turn = await self._stream.receive()
            except trio.EndOfChannel:
                return
            if not turn.HasField("entry"):
                raise PeerGone(self._peer, "it broke the protocol: a reply to no burst")
            try:
                await self._enter(turn.entry)
            except (PeerGone, RpcError):
                raise
            except Exception as exc:
                await self._report(exc)
                raise

    async def execute(self, burst: Burst, answer: bytes) -> int:
        """Have kvm execute `burst`; serve the entries that it makes meanwhile.

        The burst that ends an entry has no reply.
        """
        codes, operands = burst.arrays()
        number = self._open[-1]
        message = wire.Burst(entry=number, codes=codes, operands=operands, answer=answer)
        await self._stream.send(message)
        if codes and codes[-1] >> OPERATION_SHIFT == OP_DONE:
            return self._cpu.now
        while True:
            turn = await self._receive()
            if turn.HasField("entry"):
                await self._enter(turn.entry)
                continue
            reply = turn.reply
            if reply.entry != number:
                raise PeerGone(self._peer, f"it broke the protocol: a reply to entry {reply.entry}, not {number}")
            if reply.HasField("esr"):
                raise TookException(reply.esr)
            burst.set_values(list(reply.values))
            return reply.now

    async def _enter(self, message: wire.Entry) -> None:
        entry = _entry(message)
        self._open.append(message.id)
        self._cpu.now = entry.now
        await self._software.enter(self._cpu, entry)
        await self._cpu.done()
        self._open.pop()

    async def _receive(self) -> wire.Turn:
        try:
            with trio.fail_after(self._silence):
                return await self._stream.receive()
        except trio.EndOfChannel:
            raise PeerGone(self._peer, "it ended the session in the middle of an entry") from None
        except trio.TooSlowError:
            raise PeerGone(self._peer, f"no reply for {self._silence:g} s") from None

    async def _report(self, exc: Exception) -> None:
        """Tell kvm why, and wait until it has noted it: leaving the stream drops what is not yet written."""
        failure = "".join(traceback.format_exception_only(exc)).strip()
        with trio.move_on_after(COURTESY):
            try:
                await self._stream.send(wire.Burst(failure=failure))
                await self._stream.receive()
            except (RpcError, trio.BrokenResourceError, trio.EndOfChannel):
                pass  # noted: kvm has ended the call


def _entry_message(number: int, entry: Entry) -> wire.Entry:
    return wire.Entry(
        id=number,
        kind=wire.EntryKind.Name(entry.kind),
        now=entry.now,
        argument=entry.argument,
        el=entry.el,
        remaining=entry.remaining,
        previous_done=entry.previous_done,
        calls=entry.calls,
        payload=entry.payload,
    )


def _entry(message: wire.Entry) -> Entry:
    return Entry(
        EntryKind(message.kind),
        message.now,
        message.argument,
        message.el,
        message.remaining,
        message.previous_done,
        tuple(message.calls),
        message.payload,
    )
