"""The host's perf or a guest's kernel as a process: it dials kvm, attends all of its CPUs, and serves Actor."""

from __future__ import annotations

import argparse
from contextlib import AsyncExitStack
from typing import Any, Protocol

import orjson
import trio

from services.attend import PeerGone, Role, Seat, attend
from services.cpu import Software
from services.process import Failure, address, parser, run
from services.rpc import BindError, Channel, Loop, RpcError, connect, open_loop, serve
from services.wire import actor_pb2, lab_pb2
from services.wire.methods import DESCRIBE, STATE


class Kernel(Protocol):
    """One kernel, on all of its CPUs."""

    def attend(self, index: int) -> Software: ...
    def state(self) -> dict[str, Any]: ...


def main(module: str, role: Role, kernel: Kernel, name: str | None, argv: list[str] | None) -> int:
    """The command line of a party. `name`: its name, None if it is an option."""
    options = _parser(module, name).parse_args(argv)
    party = options.name if name is None else name

    async def actor() -> None:
        try:
            async with AsyncExitStack() as stack:
                loop = await stack.enter_async_context(open_loop())
                if options.listen is not None:
                    await stack.enter_async_context(_serve(loop, options, party, kernel))
                kvm = await stack.enter_async_context(connect(loop, options.kvm, name="kvm"))
                await _attend(kvm, role, party, kernel)
        except* (BindError, PeerGone, RpcError) as group:
            raise Failure(str(group.exceptions[0])) from None

    return run(party, actor, with_parent=options.with_parent)


def _parser(module: str, name: str | None) -> argparse.ArgumentParser:
    arguments = parser(module, __doc__ or "")
    arguments.add_argument("--kvm", type=address, required=True, metavar="ADDRESS", help="where kvm serves")
    arguments.add_argument("--listen", type=address, metavar="ADDRESS", help="where to serve Actor and health")
    if name is None:
        arguments.add_argument("--name", required=True, help="the VM's name in the scenario")
    return arguments


async def _attend(kvm: Channel, role: Role, name: str, kernel: Kernel) -> None:
    """Attend every CPU that kvm has for this party, until it dismisses."""
    await kvm.reach()
    description = await kvm.call(DESCRIBE, lab_pb2.DescribeRequest())
    cpus = {party.name: party.cpus for party in description.parties}
    if name not in cpus:
        raise Failure(f"{kvm.peer} has no party {name!r}; it has: {', '.join(cpus)}")
    async with trio.open_nursery() as nursery:
        for index in range(cpus[name]):
            nursery.start_soon(attend, kvm, Seat(role, name, index), kernel.attend(index))


def _serve(loop: Loop, options: argparse.Namespace, name: str, kernel: Kernel) -> Any:
    async def state(request: actor_pb2.StateRequest) -> actor_pb2.StateReply:
        return actor_pb2.StateReply(name=name, state=orjson.dumps(kernel.state()))

    return serve(loop, options.listen, [STATE.handled_by(state)])
