"""The host's perf or a guest's kernel as a process: it asks kvm for its CPUs, attends them, and serves Actor."""

from __future__ import annotations

import argparse
from typing import Any, Protocol

from services.actor import EXPECTED, serve_actor
from services.attend import Role, Seat
from services.cpu import Software
from services.process import Failure, address, parser, run
from services.rpc import Address, connect, open_loop
from services.wire import lab_pb2
from services.wire.methods import DESCRIBE


class Kernel(Protocol):
    """One kernel, on all of its CPUs."""

    def attend(self, index: int) -> Software: ...
    def state(self) -> dict[str, Any]: ...


def main(module: str, role: Role, kernel: Kernel, name: str | None, argv: list[str] | None = None) -> int:
    """The command line of a party; its exit status. `name`: its name, None if it is an option."""
    options = _parser(module, name).parse_args(argv)
    party = options.name if name is None else name

    async def actor() -> None:
        try:
            seats = [Seat(role, party, index) for index in range(await _cpus(options.kvm, party))]
            softwares = {seat: kernel.attend(seat.cpu) for seat in seats}
            await serve_actor(party, softwares, kernel.state, kvm=options.kvm, listen=options.listen)
        except* EXPECTED as group:
            raise Failure(str(_first(group))) from None

    return run(party, actor, with_parent=options.with_parent)


def _parser(module: str, name: str | None) -> argparse.ArgumentParser:
    arguments = parser(module, __doc__ or "")
    arguments.add_argument("--kvm", type=address, required=True, metavar="ADDRESS", help="where kvm serves")
    arguments.add_argument("--listen", type=address, required=True, metavar="ADDRESS", help="where to serve Actor")
    if name is None:
        arguments.add_argument("--name", required=True, help="the VM's name in the scenario")
    return arguments


async def _cpus(kvm: Address, name: str) -> int:
    """How many CPUs kvm has for this party."""
    async with open_loop() as loop, connect(loop, kvm, name="kvm") as channel:
        await channel.reach()
        description = await channel.call(DESCRIBE, lab_pb2.DescribeRequest())
    cpus = {party.name: party.cpus for party in description.parties}
    if name not in cpus:
        raise Failure(f"{channel.peer} has no party {name!r}; it has: {', '.join(cpus)}")
    return cpus[name]


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
