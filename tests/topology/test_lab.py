"""A running topology, as people and their programs use it: real processes, real sockets."""

import contextlib
import os
import signal
from dataclasses import replace
from pathlib import Path

import grpc
import orjson
import pytest
import trio

from pmulab import scenario
from pmulab.client import RpcError, TrioLab
from pmulab.topology import Topology, TopologyError, up
from services import embedded
from services.experiment import EventSpec, Experiment, SessionSpec, TaskSpec
from services.kvm.lab import request_of
from services.rpc import Address, connect, open_loop
from services.wire.actor_pb2 import StateRequest
from services.wire.methods import STATE

CYCLES, INSTRUCTIONS = 0x11, 0x08
STAT = SessionSpec("stat", (EventSpec("instructions", INSTRUCTIONS, leader=0),))

OUTLANDISH = SessionSpec("stat", (EventSpec("r4321", 0x4321, leader=0),))


def quick(design: str = "partitioned") -> Experiment:
    (experiment,) = scenario.load("quick", designs=[design]).experiments
    return experiment


def program(experiment: Experiment, name: str) -> TaskSpec:
    """A short program like the scenario's, its phase the first of a request's profiles."""
    task = experiment.guests[0].vcpus[0].tasks[0]
    return TaskSpec(name, (replace(task.phases[0], profile=0, cycles=3_000_000),), session=STAT)


def rates(experiment: Experiment) -> list[list[tuple[int, int]]]:
    task = experiment.guests[0].vcpus[0].tasks[0]
    return [list(experiment.profiles[task.phases[0].profile])]


async def inject(lab: TrioLab, experiment: Experiment, name: str) -> None:
    await lab.inject("vm0", program(experiment, name), profiles=rates(experiment))


@pytest.mark.parametrize("design", ["emulated", "partitioned"])
async def test_a_live_session_is_replayed_to_the_same_digest(design: str) -> None:
    experiment = quick(design)
    async with up(experiment) as topology:
        lab = topology.lab
        await inject(lab, experiment, "while it works")
        await lab.result(wait=True)
        await inject(lab, experiment, "after it has come to rest")
        live = await lab.result(wait=True)
        log = await lab.log()
    replayed = await embedded.replay(
        experiment, [(taken.injected.entry, request_of(taken.request)) for taken in log.injections]
    )
    (run,) = live.runs
    assert len(log.injections) == 2
    assert run.digest == replayed["digest"]
    assert [event.event for event in run.guests[0].events][-2:] == ["instructions"] * 2


async def test_virtual_time_stands_still_without_work() -> None:
    async with up(quick()) as topology:
        await topology.lab.result(wait=True)
        before = (await topology.lab.describe()).now
        await trio.sleep(0.2)
        assert (await topology.lab.describe()).now == before


async def test_what_a_client_gets_wrong_has_a_status_that_names_it() -> None:
    experiment = quick()
    async with up(experiment) as topology:
        lab = topology.lab
        wrong = [
            (lab.inject("vm7", STAT), grpc.StatusCode.NOT_FOUND, "vm7"),
            (lab.inject("vm0", STAT, cpu=3), grpc.StatusCode.NOT_FOUND, "vCPU 3"),
            (
                lab.inject("host", program(experiment, "x"), profiles=rates(experiment)),
                grpc.StatusCode.INVALID_ARGUMENT,
                "task",
            ),
            (lab.inject("vm0", OUTLANDISH), grpc.StatusCode.INVALID_ARGUMENT, "session.events[0].event"),
            (lab.inject("vm0", program(experiment, "x")), grpc.StatusCode.INVALID_ARGUMENT, "task.phases[0].profile"),
        ]
        for call, code, named in wrong:
            with pytest.raises(RpcError) as caught:
                await call
            assert (caught.value.code, named in caught.value.details) == (code, True), caught.value
        assert (await lab.result(wait=True)).runs


@pytest.mark.parametrize("victim", ["vm0", "host_perf", "kvm"])
async def test_a_process_that_is_killed_is_named(victim: str) -> None:
    with pytest.raises(TopologyError, match=victim):
        await kill(victim)


async def kill(victim: str) -> None:
    with trio.fail_after(20):
        async with up(quick()) as topology:
            os.kill(pid_of(topology, victim), signal.SIGKILL)
            await trio.sleep_forever()


def pid_of(topology: Topology, actor: str) -> int:
    """The process that serves at an actor's address, by its command line."""
    address = topology.running.addresses[actor].encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"--listen" in words and words[words.index(b"--listen") + 1] == address:
                return int(process.name)
    raise LookupError(actor)


async def test_every_actor_tells_its_state_while_it_works_and_when_it_rests() -> None:
    async with up(quick("emulated")) as topology, open_loop() as loop:
        for wait in (False, True):
            if wait:
                await topology.lab.result(wait=True)
            for actor, address in topology.running.addresses.items():
                async with connect(loop, Address.parse(address), name=actor) as channel:
                    reply = await channel.call(STATE, StateRequest())
                assert reply.name == {"host_perf": "host"}.get(actor, actor)
                assert orjson.loads(reply.state)
