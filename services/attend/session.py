"""The software's side: attending a CPU."""

from __future__ import annotations

import contextlib
import traceback

import trio
from grpc import StatusCode

from services._pmu import Burst
from services.attend.messages import entry_of
from services.attend.seat import COURTESY, SILENCE, PeerGone, Seat
from services.cpu import Cpu, Software, TookException, awaited
from services.rpc import Channel, RpcError, Stream
from services.wire import attend_pb2 as wire
from services.wire.methods import ATTEND, PROTOCOL_VERSION


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


class _Dismissed(Exception):
    """By kvm, in the middle of an entry: the machine hangs."""


MIDDLE = "it ended the session in the middle of an entry"


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
                return None
            if turn.dismissed:
                return await self._part()
            if not turn.HasField("entry"):
                raise PeerGone(self._peer, "it broke the protocol: a reply to no burst")
            try:
                await self._enter(turn.entry)
            except _Dismissed:
                return await self._part()
            except (PeerGone, RpcError):
                raise
            except Exception as exc:
                await self._report(exc)
                raise

    async def _part(self) -> None:
        """The session is over, whatever becomes of the connection."""
        with trio.move_on_after(COURTESY), contextlib.suppress(RpcError):
            await self._stream.aclose()
            async for _ in self._stream:
                pass

    async def finish(self, burst: Burst, answer: bytes) -> int:
        """Have kvm execute the last burst of an entry, which has no reply."""
        burst.done()
        await self._send(burst, answer)
        return self._cpu.now

    async def execute(self, burst: Burst) -> int:
        """Have kvm execute `burst`; serve the entries that it makes meanwhile."""
        number = await self._send(burst)
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
        entry = entry_of(message)
        self._open.append(message.id)
        self._cpu.now = entry.now
        work = self._software.enter(self._cpu, entry)
        if work is not None:
            await work
        await awaited(self._cpu.done())
        self._open.pop()

    async def _send(self, burst: Burst, answer: bytes = b"") -> int:
        """The number of the entry that the burst is of."""
        codes, operands = burst.arrays()
        number = self._open[-1]
        await self._stream.send(wire.Burst(entry=number, codes=codes, operands=operands, answer=answer))
        return number

    async def _receive(self) -> wire.Turn:
        try:
            with trio.fail_after(self._silence):
                turn = await self._stream.receive()
            if turn.hung and (await self._stream.receive()).dismissed:
                raise _Dismissed
        except trio.EndOfChannel:
            raise PeerGone(self._peer, MIDDLE) from None
        except trio.TooSlowError:
            raise PeerGone(self._peer, f"no reply for {self._silence:g} s") from None
        if turn.hung or turn.dismissed:
            raise PeerGone(self._peer, MIDDLE)
        return turn

    async def _report(self, exc: Exception) -> None:
        """Tell kvm why, and wait until it has noted it: leaving the stream drops what is not yet written."""
        failure = "".join(traceback.format_exception_only(exc)).strip()
        with trio.move_on_after(COURTESY):
            try:
                await self._stream.send(wire.Burst(failure=failure))
                await self._stream.receive()
            except (RpcError, trio.BrokenResourceError, trio.EndOfChannel):
                pass  # noted: kvm has ended the call
