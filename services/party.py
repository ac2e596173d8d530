"""The host's perf or a guest's kernel as a process: it asks kvm for its CPUs, attends them, and serves Actor."""

from __future__ import annotations

import argparse
from typing import Any, Protocol

import orjson
import trio

from services.attend import PeerGone, Role, Seat, attend
from services.cpu import Cpu, Entry, Software
from services.process import Failure, address, parser, run
from services.rpc import BindError, Channel, RpcError, connect, first_of, open_loop, serve
from services.wire import actor_pb2, lab_pb2
from services.wire.methods import DESCRIBE, STATE


class Kernel(Protocol):
    """One kernel, on all of its CPUs."""

    def attend(self, index: int) -> Software: ...
    def state(self) -> dict[str, Any]: ...


class Party:
    """A kernel and the handlers of it that are running: while one runs, its state is not data."""

    def __init__(self, name: str, kernel: Kernel) -> None:
        self.name = name
        self.kernel = kernel
        self._running = 0
        self._paused = trio.Event()

    async def state(self, request: actor_pb2.StateRequest) -> actor_pb2.StateReply:
        """The kernel's state, taken between two entries."""
        while self._running:
            await self._paused.wait()
        return actor_pb2.StateReply(name=self.name, state=orjson.dumps(self.kernel.state()))

    def software(self, cpu: int) -> Software:
        return _Watched(self, self.kernel.attend(cpu))

    def entered(self) -> None:
        self._running += 1

    def left(self) -> None:
        self._running -= 1
        self._paused.set()
        self._paused = trio.Event()


class _Watched:
    def __init__(self, party: Party, software: Software) -> None:
        self._party = party
        self._software = software

    async def enter(self, cpu: Cpu, entry: Entry) -> None:
        self._party.entered()
        try:
            await self._software.enter(cpu, entry)
        finally:
            self._party.left()


def main(module: str, role: Role, kernel: Kernel, name: str | None, argv: list[str] | None = None) -> int:
    """The command line of a party; its exit status. `name`: its name, None if it is an option."""
    options = _parser(module, name).parse_args(argv)
    party = Party(options.name if name is None else name, kernel)

    async def actor() -> None:
        try:
            async with (
                open_loop() as loop,
                serve(loop, options.listen, [STATE.handled_by(party.state)]),
                connect(loop, options.kvm, name="kvm") as kvm,
            ):
                await _attend(kvm, role, party)
        except* (BindError, PeerGone, RpcError) as group:
            raise Failure(str(first_of(group))) from None

    return run(party.name, actor, with_parent=options.with_parent)


def _parser(module: str, name: str | None) -> argparse.ArgumentParser:
    arguments = parser(module, __doc__ or "")
    arguments.add_argument("--kvm", type=address, required=True, metavar="ADDRESS", help="where kvm serves")
    arguments.add_argument("--listen", type=address, required=True, metavar="ADDRESS", help="where to serve Actor")
    if name is None:
        arguments.add_argument("--name", required=True, help="the VM's name in the scenario")
    return arguments


async def _attend(kvm: Channel, role: Role, party: Party) -> None:
    """Attend every CPU that kvm has for this party, until it dismisses."""
    await kvm.reach()
    description = await kvm.call(DESCRIBE, lab_pb2.DescribeRequest())
    cpus = {party.name: party.cpus for party in description.parties}
    if party.name not in cpus:
        raise Failure(f"{kvm.peer} has no party {party.name!r}; it has: {', '.join(cpus)}")
    async with trio.open_nursery() as nursery:
        for index in range(cpus[party.name]):
            nursery.start_soon(attend, kvm, Seat(role, party.name, index), party.software(index))
