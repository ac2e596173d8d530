"""`pmulab up`."""

from __future__ import annotations

import argparse
import sys

import trio

from pmulab import scenario
from pmulab.commands.signals import stopped_by_signal
from pmulab.runtime import Running
from pmulab.topology import translate_call_errors, up
from services.errors import UserError
from services.experiment import Experiment


def main(arguments: argparse.Namespace) -> int:
    loaded = scenario.load(
        arguments.scenario,
        designs=arguments.design,
        overrides=arguments.overrides,
        seed=arguments.seed,
        every_event=True,
        judge=arguments.judge,
    )
    if arguments.design and len(loaded.experiments) > 1:
        raise UserError("", "a topology has one design", "give --design once")
    with translate_call_errors():
        trio.run(_serve, loaded.experiments[0])
    return 0


async def _serve(experiment: Experiment) -> None:
    """Until Ctrl-C, SIGTERM or `pmulab down`; raises TopologyError if a process dies."""
    async with stopped_by_signal(), up(experiment) as topology:
        sys.stdout.write(_text(topology.running))
        sys.stdout.flush()
        await topology.ended.wait()


def _text(running: Running) -> str:
    lines = [f"{running.name}: {running.design} is up; Ctrl-C or `pmulab down` ends it"]
    lines += [f"  {actor:12} {address}" for actor, address in running.addresses.items()]
    return "\n".join(lines) + "\n"
