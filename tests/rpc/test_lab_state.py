"""kvm tells its state between two entries, never while somebody's handler runs."""

import orjson
import pytest
import trio

from services import embedded
from services.attend import Role, Seat, attend
from services.cpu import Cpu, Entry
from services.kvm.lab import Lab
from services.kvm.simulation import Simulation
from services.rpc import Address, Loop, connect, serve
from services.wire.actor_pb2 import StateRequest
from services.wire.methods import STATE
from tests.kvm.misbehaving import done
from tests.kvm.scripted import Scripted, ScriptedHost, experiment

DEADLINE = 5.0  # seconds; a failing test ends, a slow machine passes


@pytest.mark.parametrize("working", [True, False], ids=["at work", "when no work is left"])
async def test_the_state_waits_for_a_handler(loop: Loop, address: Address, working: bool) -> None:
    handling, told, go_on = trio.Event(), trio.Event(), trio.Event()
    states: list[bytes] = []

    async def handle() -> None:
        handling.set()
        await go_on.wait()

    async def boot(cpu: Cpu, entry: Entry) -> None:
        if working:
            await handle()
        await done(cpu, entry)

    async def report(cpu: Cpu, entry: Entry) -> None:
        if not working:
            await handle()
        cpu.answer(b"{}")

    lab = Lab(experiment("emulated"), play=embedded.play)

    async def ask() -> None:
        states.append((await kvm.call(STATE, StateRequest())).state)
        if len(states) == 2:
            told.set()

    with trio.fail_after(DEADLINE):
        async with serve(loop, address, lab.handlers()), connect(loop, address, name="kvm") as kvm:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lab.run)
                nursery.start_soon(attend, kvm, Seat(Role.HOST, "host", 0), ScriptedHost(report=report))
                nursery.start_soon(attend, kvm, Seat(Role.GUEST, "vm0", 0), Scripted(boot=boot))
                await handling.wait()
                assert lab.simulation.working is working
                nursery.start_soon(ask)
                nursery.start_soon(ask)
                with trio.move_on_after(0.2):
                    await told.wait()
                assert states == []
                go_on.set()
                await told.wait()
                lab.stop()
    restored = Simulation(experiment("emulated"))
    for state in states:
        restored.restore(orjson.loads(state))
        assert orjson.loads(orjson.dumps(restored.state())) == orjson.loads(state)
