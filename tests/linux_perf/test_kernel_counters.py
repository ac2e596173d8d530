"""KVM's calls of one trap are one list of operations, and make the accesses that they make one after the other."""

from __future__ import annotations

import orjson
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from services.cpu import CounterFlag
from services.linux_perf import PerfEvent
from tests.linux_perf.bench import COSTS, Kernel

EVENTS = (0x11, 0x08, 0x03, 0x04, 0x10)
PRICES = COSTS | {"perf_call": 13, "event_in": 7, "event_out": 5}

counters = st.lists(
    st.tuples(
        st.sampled_from(EVENTS),
        st.sampled_from([0, CounterFlag.DISABLED, CounterFlag.DISABLED | CounterFlag.LONG]),
        st.sampled_from([1 << 20, 1 << 31, (1 << 32) - 1, 5000]),
    ),
    min_size=1,
    max_size=7,
)
rounds = st.lists(
    st.tuples(
        st.sampled_from(["enable", "disable", "recreate"]),
        st.lists(st.integers(0, 6), min_size=1, max_size=7),
        st.booleans(),
    ),
    max_size=6,
)


class Counters:
    """A loaded guest's counters on a host's perf."""

    def __init__(self, kernel: Kernel, made: list[PerfEvent], at_once: bool) -> None:
        self.kernel = kernel
        self.made = made
        self.at_once = at_once

    async def call(self, what: str, which: list[int]) -> None:
        perf, cpu = self.kernel.perf, self.kernel.cpu
        if what == "recreate":
            await self.recreate(which[0] % len(self.made))
            return
        events = [self.made[n] for n in dict.fromkeys(n % len(self.made) for n in which)]
        if self.at_once and what == "enable":
            work = perf.enable_each(cpu, events)
            if work is not None:
                await work
        elif self.at_once:
            perf.disable_each(cpu, events)
        elif what == "enable":
            for event in events:
                await perf.enable(cpu, event)
        else:
            for event in events:
                perf.disable(cpu, event)

    async def recreate(self, n: int) -> None:
        """As KVM does when a guest writes the counter's type or value."""
        perf, cpu, former = self.kernel.perf, self.kernel.cpu, self.made[n]
        number, flags, period = EVENTS[(n + former.count) % len(EVENTS)], CounterFlag.DISABLED, 1000 + n
        if self.at_once and perf.recreate_kernel_counter(cpu, former, number, flags, period):
            return
        await perf.destroy_kernel_counter(cpu, former)
        self.made[n] = perf.create_kernel_counter(cpu, n, number, flags, period)
        await perf.install(cpu, self.made[n], self.kernel.TASK)

    async def state(self) -> bytes:
        await self.kernel.done()
        return orjson.dumps([self.kernel.all_perf.state(), self.kernel.bench.machine.digest()])


@settings(max_examples=300)
@given(counters, rounds, st.sampled_from([1, 6]), st.sampled_from([2, 4, 8]), st.booleans(), st.booleans())
def test_calls_at_once_are_the_calls_one_by_one(
    specs: list[tuple[int, int, int]],
    calls: list[tuple[str, list[int], bool]],
    pmuver: int,
    counted: int,
    hosts: bool,
    high_to_low: bool,
) -> None:
    async def both() -> None:
        worlds = []
        for at_once in (False, True):
            kernel = await Kernel.boot(hyp=True, pmuver=pmuver, counters=counted, costs=PRICES, high_to_low=high_to_low)
            made = [await kernel.create(n, event, flags, period) for n, (event, flags, period) in enumerate(specs)]
            if hosts:
                await kernel.open(0x08, task=None)
            worlds.append(Counters(kernel, made, at_once))
        for what, which, ends in calls:
            for world in worlds:
                await world.call(what, which)
                if ends:
                    await world.kernel.done()
                    world.kernel.bench.guest_works(1000)
        one_by_one, at_once_ = [await world.state() for world in worlds]
        assert at_once_ == one_by_one

    trio.run(both)


async def test_enabling_counters_in_turn_waits_for_nothing() -> None:
    kernel = await Kernel.boot(hyp=True, counters=8)
    made = [await kernel.create(n, 0x08, CounterFlag.DISABLED, 1 << 20) for n in range(8)]
    for order in (made, made[::-1], made[::2] + made[1::2]):
        before = kernel.bench.executor.bursts
        assert kernel.perf.enable_each(kernel.cpu, order) is None
        assert kernel.bench.executor.bursts == before
        await kernel.done()
        assert [event.idx for event in made] == list(range(8)), "the context's order, whatever the order of the calls"
        kernel.perf.disable_each(kernel.cpu, order)
        await kernel.done()
