"""A kernel's perf as data: taken between two entries and taken up again, it goes on as if nothing had been."""

from __future__ import annotations

import orjson

from services.linux_perf import EventAttr, Perf
from services.state import Saved
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


def through_json(saved: Saved) -> Saved:
    plain: Saved = orjson.loads(orjson.dumps(saved))
    return plain


def empty(kernel: Kernel) -> Perf:
    """A perf with the same configuration on which nothing has happened."""
    shared = kernel.all_perf.shared
    perf = Perf(frequency_hz=shared.frequency_hz, hz=shared.hz, costs=kernel.costs)
    perf.add_cpu(kernel.perf.config)
    return perf


def restored(kernel: Kernel) -> Kernel:
    bench = Bench(state=kernel.bench.machine.state())
    perf = empty(kernel)
    perf.restore(through_json(kernel.all_perf.state()))
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
    assert through_json(again.all_perf.state()) == through_json(kernel.all_perf.state())
    assert again.bench.machine.digest() == kernel.bench.machine.digest()


async def test_state_of_state_is_the_state() -> None:
    kernel = await busy_kernel()
    state = through_json(kernel.all_perf.state())
    perf = empty(kernel)
    perf.restore(state)
    assert through_json(perf.state()) == state


async def test_a_living_perf_takes_up_a_former_state_in_place() -> None:
    kernel = await busy_kernel()
    former, machine = kernel.all_perf.state(), kernel.bench.machine.state()
    before = through_json(former)
    await go_on(kernel)
    expected = through_json(kernel.all_perf.state())
    assert expected != before
    for event in [event for event in kernel.all_perf.events.values() if event.parent is None][:3]:
        await kernel.perf.release(kernel.cpu, event)  # what is gone comes back
    await kernel.done()
    await kernel.open(0x15)  # and what is new is gone
    assert through_json(former) == before, "a snapshot stays what it was while the perf goes on"
    kernel.all_perf.restore(former)
    kernel.bench.machine.restore(machine)
    kernel.cpu.now = kernel.bench.machine.now(0)
    await go_on(kernel)
    assert through_json(kernel.all_perf.state()) == expected
    assert through_json(former) == before, "and while it goes on from the snapshot"


async def test_a_restored_event_is_the_same_to_the_driver() -> None:
    kernel = await Kernel.boot()
    event = await kernel.open_attr(EventAttr(event=0x08, name="instructions", period=1 << 40, long=True))
    again = restored(kernel)
    twin = again.all_perf.events[event.id]
    assert twin.attr == event.attr
    assert twin.out is again.perf.pmu.outs[event.idx]
