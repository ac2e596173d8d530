"""A kernel's perf as data: taken between two entries and taken up again, it goes on as if nothing had been."""

from __future__ import annotations

import json

from services.linux_perf import EventAttr, Perf
from tests.linux_perf.bench import Bench, Kernel
from tests.linux_perf.test_sampling import run


async def busy_kernel() -> Kernel:
    """Groups, pinned, frequency and inherited events, multiplexed, with throttling."""
    kernel = await Kernel.boot(counters=4)
    kernel.all_perf.limits.max_samples_per_tick = 3
    leader = await kernel.open(0x03, disabled=True)
    await kernel.open(0x04, leader=leader)
    for event in (0x11, 0x08, 0x10, 0x12):
        await kernel.open(event, frequency=1000, inherit=True)
    await kernel.open(0x13, pinned=True, task=None)
    await kernel.open(0x14, period=50_000)
    await kernel.enable(leader)
    kernel.perf.fork(kernel.cpu, kernel.TASK, 8)
    await go_on(kernel)
    return kernel


async def go_on(kernel: Kernel) -> None:
    for _ in range(5):
        await run(kernel, 2)
        await kernel.rotate()
        await kernel.switch()


def restored(kernel: Kernel) -> Kernel:
    saved = json.loads(json.dumps(kernel.all_perf.state()))
    bench = Bench(state=kernel.bench.machine.state())
    perf = Perf.from_state(saved)
    again = Kernel(bench, perf, perf.cpu(0))
    again.cpu.now = kernel.cpu.now
    again.bench.observe()
    return again


async def test_it_goes_on_identically() -> None:
    kernel = await busy_kernel()
    again = restored(kernel)
    kernel.bench.observe()
    for one in (kernel, again):
        await go_on(one)
    assert again.accesses() == kernel.accesses()
    assert again.all_perf.state() == kernel.all_perf.state()
    assert again.bench.machine.digest() == kernel.bench.machine.digest()


async def test_state_of_state_is_the_state() -> None:
    kernel = await busy_kernel()
    state = kernel.all_perf.state()
    assert Perf.from_state(json.loads(json.dumps(state))).state() == state


async def test_a_restored_event_is_the_same_to_the_driver() -> None:
    kernel = await Kernel.boot()
    event = await kernel.open_attr(EventAttr(event=0x08, name="instructions", period=1 << 40, long=True))
    again = restored(kernel)
    twin = again.all_perf.events[event.id]
    assert twin.attr == event.attr
    assert twin.out is again.perf.pmu.outs[event.idx]
