"""160 sequences of perf operations on one CPU, against what Linux 6.12.117 does at each step.

`scheduling-6.12.117.json.xz`, recorded from a reference that was written after that kernel's kernel/events/core.c,
drivers/perf/arm_pmu.c and drivers/perf/arm_pmuv3.c: {"kernel", "sequences": [{"counters", "long_counters", "task",
"steps"}]}. A sequence is an EL1 kernel with that many event counters, PMUv3p5 where `long_counters` (else p1), `task`
running first. Every event (`code`) occurs once a cycle at every level, everything costs 0 cycles, ISBs are left out.

`op` of a step: `open` (event, code, task, leader, pinned, disabled, frequency, enable_on_exec, inherit, long),
`enable`, `disable`, `release`, `switch` (out of `task`; into `next`, or back where there is none), `mux_timer` and
`tick` (the handler is called), `exec`, `fork` (child, and the events that it inherits, in order), `work` (that many
cycles pass with interrupts masked). After it: `accesses` ("r REG", "w REG"), `states` ([event, state, counter or -1]),
`mux_timer_runs`.

The reference begins behind validate_group: fifteen sequences schedule groups that no empty PMU can hold.
"""

from __future__ import annotations

import json
import lzma
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from services.linux_perf import PerfEvent, State, pmu
from services.registers import PMUVER_P5
from tests.linux_perf.bench import Kernel

Step = dict[str, Any]
SEQUENCES = 160


@cache
def _sequences() -> list[dict[str, Any]]:
    with lzma.open(Path(__file__).parent / "scheduling-6.12.117.json.xz") as file:
        loaded: list[dict[str, Any]] = json.load(file)["sequences"]
    return loaded


def test_there_are_as_many_as_are_tried() -> None:
    assert len(_sequences()) == SEQUENCES


class Sequence:
    """One of them under way: the events by their numbers in it."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.events: dict[int, PerfEvent] = {}

    async def step(self, step: Step) -> None:
        kernel, perf, cpu = self.kernel, self.kernel.perf, self.kernel.cpu
        match step["op"]:
            case "open":
                self.events[step["event"]] = await kernel.open(
                    step["code"],
                    leader=None if step["leader"] is None else self.events[step["leader"]],
                    task=step["task"],
                    **{name: step[name] for name in ("pinned", "disabled", "frequency", "inherit", "long")},
                    enable_on_exec=step["enable_on_exec"],
                )
            case "enable":
                await kernel.enable(self.events[step["event"]])
            case "disable":
                await kernel.disable(self.events[step["event"]])
            case "release":
                await perf.release(cpu, self.events[step["event"]])
                await kernel.done()
            case "switch":
                await kernel.switch(step["task"], step.get("next"))
            case "mux_timer":
                await kernel.rotate()
            case "tick":
                await kernel.tick()
            case "exec":
                await kernel.exec()
            case "fork":
                there = set(kernel.all_perf.events)
                perf.fork(cpu, step["task"], step["child"])
                inherited = [event for number, event in kernel.all_perf.events.items() if number not in there]
                self.events.update(zip(step["events"], inherited, strict=True))
            case "work":
                kernel.bench.kernel_works(step["cycles"])
            case unknown:
                raise AssertionError(f"no such step: {unknown}")

    def states(self) -> list[list[Any]]:
        open_ones = self.kernel.all_perf.events
        return [
            [number, State(event.state).name, event.idx if event.state == State.ACTIVE else -1]
            for number, event in sorted(self.events.items())
            if event.id in open_ones
        ]


@pytest.mark.parametrize("number", range(SEQUENCES))
async def test_a_sequence(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pmu, "validate_group", lambda *_: None)
    given = _sequences()[number]
    kernel = await Kernel.boot(
        counters=given["counters"], pmuver=PMUVER_P5 if given["long_counters"] else 1, access_cycles=0
    )
    assert given["task"] == kernel.TASK
    sequence = Sequence(kernel)
    for index, step in enumerate(given["steps"]):
        await sequence.step(step)
        where = f"sequence {number}, step {index}: {step['op']}"
        assert kernel.accesses() == step["accesses"], where
        assert sequence.states() == step["states"], where
        assert kernel.perf.mux_active == step["mux_timer_runs"], where
