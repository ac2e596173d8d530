"""An actor that attends CPUs, host perf or a guest, as a process: it asks kvm for its CPUs and serves Actor."""

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


class Actor:
    """A kernel, and how many of its handlers are running: while one runs, the state is not data."""

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
    def __init__(self, actor: Actor, software: Software) -> None:
        self._actor = actor
        self._software = software

    async def enter(self, cpu: Cpu, entry: Entry) -> None:
        self._actor.entered()
        try:
            work = self._software.enter(cpu, entry)
            if work is not None:
                await work
        finally:
            self._actor.left()


def main(module: str, role: Role, kernel: Kernel, name: str | None, argv: list[str] | None = None) -> int:
    """The command line of such an actor; its exit status. `name`: its name, None if it is an option."""
    options = _parser(module, name).parse_args(argv)
    actor = Actor(options.name if name is None else name, kernel)

    async def attend_all() -> None:
        try:
            async with (
                open_loop() as loop,
                serve(loop, options.listen, [STATE.handled_by(actor.state)]),
                connect(loop, options.kvm, name="kvm") as kvm,
            ):
                await _attend(kvm, role, actor)
        except* (BindError, PeerGone, RpcError) as group:
            raise Failure(str(first_of(group))) from None

    return run(actor.name, attend_all, with_parent=options.with_parent)


def _parser(module: str, name: str | None) -> argparse.ArgumentParser:
    arguments = parser(module, __doc__ or "")
    arguments.add_argument("--kvm", type=address, required=True, metavar="ADDRESS", help="where kvm serves")
    arguments.add_argument("--listen", type=address, required=True, metavar="ADDRESS", help="where to serve Actor")
    if name is None:
        arguments.add_argument("--name", required=True, help="the VM's name in the scenario")
    return arguments


async def _attend(kvm: Channel, role: Role, actor: Actor) -> None:
    """Attend every CPU that kvm has for this actor, until kvm dismisses it."""
    await kvm.reach()
    description = await kvm.call(DESCRIBE, lab_pb2.DescribeRequest())
    cpus = {target.name: target.cpus for target in description.targets}
    if actor.name not in cpus:
        raise Failure(f"{kvm.peer} knows nobody named {actor.name!r}; it knows: {', '.join(cpus)}")
    async with trio.open_nursery() as nursery:
        for index in range(cpus[actor.name]):
            nursery.start_soon(attend, kvm, Seat(role, actor.name, index), actor.software(index))
