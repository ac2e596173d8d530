"""`pmulab down`."""

from __future__ import annotations

import argparse
import sys

import trio

from pmulab import runtime
from pmulab.client import RpcError, connect_trio
from pmulab.errors import TopologyError
from pmulab.runtime import Running
from pmulab.topology import translate_call_errors

_SECONDS = 30.0  # within which a topology must have ended, processes that do not answer any more included
_POLL_SECONDS = 0.05


def main(arguments: argparse.Namespace) -> int:
    running = runtime.find(arguments.topology)
    with translate_call_errors():
        trio.run(_end, running)
    sys.stdout.write(f"{running.name} has ended\n")
    return 0


async def _end(running: Running) -> None:
    with trio.move_on_after(_SECONDS):
        async with connect_trio(running.addresses["kvm"]) as lab:
            try:
                await lab.shutdown()
            except RpcError:
                if runtime.is_up(running):
                    raise
        # Its launcher is another process, which tells nobody that it has gone but by letting go of its lock.
        while runtime.is_up(running):  # noqa: ASYNC110 - there is no event to wait for
            await trio.sleep(_POLL_SECONDS)
        return
    raise TopologyError(f"{running.name} (process {running.pid}) has not ended within {_SECONDS:g} s")
