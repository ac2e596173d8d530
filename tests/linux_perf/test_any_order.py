"""Whatever is asked of perf in whatever order: the PMU has exactly the events that perf thinks it has."""

from __future__ import annotations

from typing import Any

import trio
from hypothesis import given
from hypothesis import strategies as st

from services.linux_perf import PerfEvent, State
from services.registers import PMCNTENSET_EL0, PMINTENSET_EL1
from tests.linux_perf.bench import Kernel

CHILD = 8
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("open"),
            st.integers(0, 4),
            st.fixed_dictionaries(
                {},
                optional={
                    "pinned": st.booleans(),
                    "disabled": st.booleans(),
                    "inherit": st.booleans(),
                    "long": st.booleans(),
                    "frequency": st.just(1000),
                },
            ),
        ),
        st.tuples(
            st.sampled_from(
                [
                    "enable",
                    "disable",
                    "release",
                    "read",
                    "switch",
                    "rotate",
                    "tick",
                    "work",
                    "change",
                ]
            ),
            st.integers(0, 6),
        ),
    ),
    max_size=30,
)
EVENTS = (0x11, 0x08, 0x03, 0x04, 0x10)


class Session:
    """Perf under random requests."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.task = kernel.TASK
        self.open: list[PerfEvent] = []
        self.counted: dict[PerfEvent, int] = {}

    async def step(self, what: str, number: int, attributes: dict[str, Any]) -> None:
        kernel, perf, cpu = self.kernel, self.kernel.perf, self.kernel.cpu
        event = self.open[number % len(self.open)] if self.open else None
        if what == "open":
            attributes = dict(attributes)
            leader = event if attributes.pop("inherit", False) and event is not None and event.leader is event else None
            if leader is not None:
                attributes["pinned"] = False
            if leader is not None and leader.ctx is not kernel.perf.ctx and leader.ctx is not kernel.perf.task_ctx:
                return
            task = None if (number == 0 if leader is None else leader.ctx is perf.ctx) else self.task
            self.open.append(await kernel.open(EVENTS[number], leader=leader, task=task, **attributes))
        elif what == "switch":
            await perf.task_out(cpu, self.task)
            await perf.settle(cpu)
            await perf.task_in(cpu, self.task)
        elif what == "change":
            await perf.task_out(cpu, self.task)
            await perf.settle(cpu)
            self.task = CHILD if self.task == kernel.TASK else kernel.TASK
            await perf.task_in(cpu, self.task)
        elif what == "rotate":
            await perf.mux_timer(cpu)
        elif what == "tick":
            await perf.tick(cpu)
        elif what == "work":
            await kernel.bench.work_until_interrupt(perf, 10_000 * (number + 1))
        elif event is not None:
            if what == "enable":
                await perf.enable(cpu, event)
            elif what == "disable":
                perf.disable(cpu, event)
            elif what == "read":
                await perf.read(cpu, event)
            elif what == "release":
                await perf.release(cpu, event)
                self.open.remove(event)
        await kernel.done()

    def check(self) -> None:
        perf, machine = self.kernel.perf, self.kernel.bench.machine
        used, counting = 0, 0
        for idx, event in enumerate(perf.pmu.events):
            if event is not None:
                assert event.state == State.ACTIVE
                assert event.idx == idx
                assert used & event.bits == 0
                used |= event.bits
                counting |= 0 if event.throttled else event.bits
        assert perf.pmu.used == used
        assert machine.peek(0, PMCNTENSET_EL0) == counting
        assert machine.peek(0, PMINTENSET_EL1) & ~counting == 0
        for event in self.open:
            assert (event.state == State.ACTIVE) == (event in perf.pmu.events)
            enabled, running = event.times()
            assert 0 <= running <= enabled
            assert self.counted.get(event, 0) <= event.count < 1 << 63, "a count never goes back"
            self.counted[event] = event.count
            leader = event.leader
            if leader is not event and event.state == State.ACTIVE:
                assert leader.state == State.ACTIVE
            if event.state == State.ERROR:
                assert event.attr.pinned


@given(steps, st.sampled_from([1, 6]))
def test_the_pmu_has_what_perf_thinks(requests: list[tuple[Any, ...]], pmuver: int) -> None:
    async def session() -> None:
        kernel = await Kernel.boot(counters=3, pmuver=pmuver, costs={"host_pmi": 1500})
        one = Session(kernel)
        for request in requests:
            what, number, *attributes = request
            await one.step(what, number, attributes[0] if attributes else {})
            one.check()
        for event in list(one.open):
            truth = (await kernel.perf.read(kernel.cpu, event)).truth
            # The kernel reads the halves of a running pair one after the other: a carry can fall between.
            assert event.hw.chained or event.count <= truth, (event.count, truth)
            await kernel.perf.release(kernel.cpu, event)
            await kernel.done()
        assert kernel.perf.pmu.used == 0
        assert kernel.bench.machine.peek(0, PMCNTENSET_EL0) == 0

    trio.run(session)
