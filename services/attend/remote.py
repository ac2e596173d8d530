"""kvm's side: software at the other end of a stream, and who is expected to attend."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import trio
from grpc import StatusCode

from services._pmu import OP_DONE, Burst
from services.attend.messages import ends_entry, entry_message
from services.attend.seat import COURTESY, SILENCE, PeerGone, Role, Seat
from services.cpu import OPERATION_SHIFT, BurstError, Entry, Executor, TookException
from services.rpc import Abort, Handler, Stream
from services.wire import attend_pb2 as wire
from services.wire.methods import ATTEND, PROTOCOL_VERSION

CLOSED = "its connection has closed"
LINE = 300  # characters of what software says that are passed on


def _line(text: str) -> str:
    """What software says, as one line that a terminal can print and a status can carry."""
    line = "".join(one if one.isprintable() else " " for one in text)
    return line if len(line) <= LINE else f"{line[:LINE]}…"


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
        nonsense, now or before. An exception in the burst that ends a handler is nonsense: nobody is left to take it.
        """
        self._entries += 1
        number = self._entries
        self._open.append(number)
        await self._send(wire.Turn(entry=entry_message(number, entry)))
        while True:
            message = await self._receive(number)
            burst, done = self._burst(message)
            if done:
                self._open.pop()
                try:
                    await self._execute(executor, burst)
                except TookException as exc:
                    raise self._malformed(f"codes: {exc}, and its handler has ended") from None
                return message.answer
            reply = wire.Reply(entry=number)
            try:
                reply.now = await self._execute(executor, burst)
                reply.values.extend(burst.values())
            except TookException as exc:
                reply.now, reply.esr = entry.now, exc.esr
            await self._send(wire.Turn(reply=reply))

    def refuse(self, who: str, problem: str) -> PeerGone:
        """The exception to raise: it has answered an entry wrongly, and its session ends with INVALID_ARGUMENT."""
        return self._give_up(f"it broke the protocol: {problem}", StatusCode.INVALID_ARGUMENT, problem)

    def statistics(self) -> AttendStatistics:
        return AttendStatistics(self._entries, self._round_trips, len(self._open))

    # How the session ends.

    async def hang(self) -> None:
        """Nothing happens any more: an entry that is open stays so until the session ends."""
        if self._open:
            await self._send(wire.Turn(hung=True))

    def dismiss(self) -> None:
        """End the session in order."""
        self._ended.set()

    async def serve(self) -> None:
        """The handler of the session, until it is dismissed. Raises `Abort` if the software broke the protocol."""
        try:
            await self._ended.wait()
        finally:
            if self.gone is None and not self._ended.is_set():
                self.gone = PeerGone(str(self.seat), CLOSED)
        if self._end is not None:
            raise self._end
        await self._part()

    async def _part(self) -> None:
        """Say that the session is over, and wait until the software has heard it: an end of the stream can be lost."""
        with trio.move_on_after(COURTESY), contextlib.suppress(trio.BrokenResourceError, Abort):
            await self._stream.send(wire.Turn(dismissed=True))
            async for _ in self._stream:
                pass

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
            raise self._give_up(f"its handler failed: {_line(message.failure)}", StatusCode.ABORTED, "failure: noted")
        if message.entry != number:
            details = f"entry: {message.entry} is answered where {number} is the innermost open one"
            raise self._give_up(f"it broke the protocol: {details}", StatusCode.FAILED_PRECONDITION, details)
        return message

    def _burst(self, message: wire.Burst) -> tuple[Burst, bool]:
        codes = list(message.codes)
        done = ends_entry(codes)
        if message.answer and not done:
            raise self._malformed("answer: only the last burst of an entry carries one")
        for index, code in enumerate(codes[:-1]):
            if code >> OPERATION_SHIFT == OP_DONE:
                raise self._malformed(f"codes[{index}]: DONE is not the last operation")
        try:
            return Burst.from_arrays(codes, list(message.operands)), done
        except ValueError as exc:
            raise self._malformed(str(exc)) from exc

    async def _execute(self, executor: Executor, burst: Burst) -> int:
        try:
            time = executor.execute(burst)
            return time if isinstance(time, int) else await time
        except BurstError as exc:
            raise self._malformed(str(exc)) from exc

    def _malformed(self, details: str) -> PeerGone:
        return self._give_up(f"it sent a malformed burst: {details}", StatusCode.INVALID_ARGUMENT, details)

    def _closed(self) -> PeerGone:
        return self._give_up(CLOSED, StatusCode.CANCELLED, "the stream has ended, and nobody was dismissed")

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

    async def hang(self) -> None:
        """Nothing happens any more. Raises `PeerGone`."""
        for software in self._taken.values():
            await software.hang()

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
