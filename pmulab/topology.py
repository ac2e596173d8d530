"""A topology in processes: kvm, the host's perf and each guest, on Unix sockets in a private directory.

The launcher holds the writing end of each child's standard input: when it has gone, however it went, the
children see the end of it and stop. The children are in sessions of their own, so that a Ctrl-C on the
terminal reaches the launcher alone, which ends them in order.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path

import trio
from grpc import StatusCode

from pmulab import runtime
from pmulab.client import RpcError, TrioLab, connect_trio
from pmulab.designs import label
from pmulab.errors import TopologyError
from pmulab.exit_status import describe_exit
from pmulab.runtime import Running
from services.errors import UserError
from services.experiment import Experiment
from services.result import Result
from services.rpc import Address, connect, open_loop
from services.typed_json import dumps

__all__ = ["Topology", "TopologyError", "run", "translate_call_errors", "up"]

_START_SECONDS = 30.0  # within which every actor must answer
_END_SECONDS = 5.0  # that actors are given to end by themselves
_NOTICE_SECONDS = 1.0  # within which a process that broke a connection is seen to have ended
# What a user can do about a call that was refused.
_REMEDIES = {
    StatusCode.INVALID_ARGUMENT: "correct what is named",
    StatusCode.NOT_FOUND: "name what `pmulab up` printed",
    StatusCode.FAILED_PRECONDITION: "use the version of pmulab that has started the topology",
}
_PATIENCE = 7 * 24 * 3600.0  # seconds that a result may take


class Topology:
    """The processes of one experiment, all of them answering."""

    def __init__(self, running: Running, lab: TrioLab, ended: trio.Event) -> None:
        self.running = running
        self.lab = lab
        self.ended = ended  # set when all have ended in order, as after `pmulab down`


@asynccontextmanager
async def up(experiment: Experiment, *, for_result: bool = False) -> AsyncIterator[Topology]:
    """Start the processes of `experiment` and wait until all answer; end them when the block is left.

    `for_result`: the block asks for the result, and whoever gets its RpcError says why there is none.
    Raises TopologyError, in the block too, as soon as a process dies; UserError if there is no place for the sockets.
    """
    with runtime.claimed(experiment.scenario) as directory:
        addresses = _addresses(experiment, directory)
        with runtime.writing(directory):
            commands = _commands(experiment, directory, addresses)
            if for_result:
                commands["kvm"].append("--for-result")
            children = _Children(commands)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(children.run)
                try:
                    async with AsyncExitStack() as stack:
                        await _reach(addresses)
                        lab = await stack.enter_async_context(connect_trio(addresses["kvm"]))
                        running = runtime.announce(directory, experiment.scenario, label(experiment.design), addresses)
                        try:
                            yield Topology(running, lab, children.ended)
                        finally:
                            with trio.move_on_after(_END_SECONDS, shield=True):
                                await _end(lab, children)
                except RpcError:
                    # Most likely a process has died: its death says more than a broken connection does.
                    await trio.sleep(_NOTICE_SECONDS)
                    raise
                finally:
                    children.stop()
        except BaseExceptionGroup as group:
            raise _find_cause(group) from None


async def run(experiment: Experiment, progress: Callable[[float, float], None]) -> Result:
    """Run `experiment` in processes to its end.

    `progress` is given the share of the work that is done and the virtual time in seconds.
    """
    async with up(experiment, for_result=True) as topology:
        async with topology.lab.watch() as steps:
            async for step in steps:
                share = 1 - step.left / step.total if step.total else 0.0
                progress(share, step.now / experiment.frequency_hz)
        return await topology.lab.result(wait=True, timeout=_PATIENCE)


@contextmanager
def translate_call_errors() -> Iterator[None]:
    """A call of the block that fails becomes UserError if what the user asked for was refused, else TopologyError: what
    an embedded run would have said, or whose answer has not come and why."""
    try:
        yield
    except RpcError as error:
        if error.code in _REMEDIES:
            raise UserError(error.peer, error.details, _REMEDIES[error.code]) from None
        if error.code is StatusCode.ABORTED:  # kvm's SimulationError
            raise TopologyError(error.details) from None
        raise TopologyError(f"{error.peer}: {error.details}") from None


def _addresses(experiment: Experiment, directory: Path) -> dict[str, str]:
    addresses = {}
    for actor in ("kvm", "host_perf", *(guest.name for guest in experiment.guests)):
        try:
            addresses[actor] = str(Address.parse(f"unix:{directory / actor}.sock"))
        except ValueError as error:
            remedy = f"set XDG_RUNTIME_DIR to a shorter path, or give {actor} a shorter name"
            raise UserError("", str(error), remedy) from None
    return addresses


def _commands(experiment: Experiment, directory: Path, addresses: dict[str, str]) -> dict[str, list[str]]:
    """The command line of each actor. `-P`: a directory `services` where the user stands is not ours."""
    file = directory / "experiment.json"
    file.write_bytes(dumps(experiment))
    python = [sys.executable, "-P", "-m"]
    others = [actor for actor in addresses if actor != "kvm"]
    listen = {actor: ["--with-parent", "--listen", address] for actor, address in addresses.items()}
    services = [word for actor in others for word in ("--service", f"{actor}={addresses[actor]}")]
    guest = "services.guest.scripted" if experiment.steps else "services.guest"
    commands = {"kvm": [*python, "services.kvm", *listen["kvm"], "--experiment", str(file), *services]}
    for actor in others:
        module = ["services.host_perf"] if actor == "host_perf" else [guest, "--name", actor]
        commands[actor] = [*python, *module, *listen[actor], "--kvm", addresses["kvm"]]
    return commands


class _Children:
    """The processes, from their start to their end."""

    def __init__(self, commands: dict[str, list[str]]) -> None:
        self._commands = commands
        self._left = list(commands)
        # Shielded: when the launcher is cancelled, the processes are ended in order, not at once.
        self._scope = trio.CancelScope(shield=True)
        self.ended = trio.Event()  # all of them, by themselves
        self.over = trio.Event()  # all of them, however
        self.ending = False  # they have been told to: however they do it is in order

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for actor, command in self._commands.items():
                        await nursery.start(self._child, actor, command)
                    task_status.started()
        finally:
            self.over.set()

    def stop(self) -> None:
        """End those that have not ended: SIGTERM, and SIGKILL some seconds later."""
        self._scope.cancel()

    async def _child(
        self, actor: str, command: list[str], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with trio.open_nursery() as nursery:
            start = partial(
                trio.run_process,
                command,
                stdin=subprocess.PIPE,
                check=False,
                start_new_session=True,
                deliver_cancel=_stop,
            )
            process: trio.Process = await nursery.start(start)
            task_status.started()
            status = await process.wait()
        self._left.remove(actor)
        if not self._left:
            self.ended.set()
        if self.ending:
            return
        if status == 0:
            # In order, if the others end as well.
            with trio.move_on_after(_END_SECONDS):
                await self.ended.wait()
                return
        how = describe_exit(status) if status else f"ended before {', '.join(self._left)}"
        raise TopologyError(f"{actor} {how}; the other processes were stopped")


async def _stop(process: trio.Process) -> None:
    """SIGTERM, then SIGKILL if it does not end, as a stopped process does not."""
    process.terminate()
    await trio.sleep(_END_SECONDS)
    process.kill()


async def _reach(addresses: dict[str, str]) -> None:
    """Wait until every actor answers a health check. Raises RpcError for one that does not."""

    async def reach(actor: str, address: str) -> None:
        async with connect(loop, Address.parse(address), name=actor) as channel:
            await channel.reach(timeout=_START_SECONDS)

    async with open_loop() as loop, trio.open_nursery() as nursery:
        for actor, address in addresses.items():
            nursery.start_soon(reach, actor, address)


async def _end(lab: TrioLab, children: _Children) -> None:
    """Have kvm dismiss everybody, and wait until the processes have ended."""

    async def shutdown() -> None:
        with suppress(RpcError):  # it does not answer any more: the processes are stopped by signal
            await lab.shutdown()

    children.ending = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shutdown)
        await children.over.wait()
        nursery.cancel_scope.cancel()


def _find_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception of a group that says what has happened: a death rather than what it led to."""
    leaves: list[BaseException] = []
    open_groups: list[BaseException] = [group]
    while open_groups:
        one = open_groups.pop(0)
        if isinstance(one, BaseExceptionGroup):
            open_groups += one.exceptions
        else:
            leaves.append(one)
    for kind in (TopologyError, RpcError):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return leaves[0] if len(leaves) == 1 else group
