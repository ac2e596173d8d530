"""Register traffic held to what a real Linux 6.12 guest did, access by access.

`kvm-6.12-guest-register-traffic.json` (its source is in the file): the tracepoint kvm:kvm_sys_access of a real
KVM with seven counters. For single events and groups the whole sequence is the same; where the recording machine's
timing decides how often something happened, each bracket (PMCR off ... PMCR on) is.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.linux_perf.bench import CYCLES, Kernel

RECORDING = json.loads(Path(__file__).with_name("kvm-6.12-guest-register-traffic.json").read_text())
OFF = ["r PMCR_EL0", "w PMCR_EL0"]
ON = ["w PMUSERENR_EL0", "r PMCR_EL0", "w PMCR_EL0"]
FLAGS = ["r PMOVSCLR_EL0", "w PMOVSCLR_EL0"]


def recorded(scenario: str) -> list[str]:
    accesses = [f"{way} {register}" for _, way, register in RECORDING["scenarios"][scenario]["sequence"]]
    return [access for access in accesses if "ICC_" not in access]


def brackets(accesses: list[str]) -> list[list[str]]:
    """Split before each PMCR off, which takes the flags read before it along."""
    found: list[list[str]] = []
    at = 0
    while at < len(accesses):
        if accesses[at : at + 2] == FLAGS:
            found.append(accesses[at : at + 4])
            at += 4
        elif accesses[at : at + 3] == ON:
            found[-1] += ON
            at += 3
        elif accesses[at : at + 2] == OFF:
            found.append(accesses[at : at + 2])
            at += 2
        else:
            found[-1].append(accesses[at])
            at += 1
    return found


async def test_one_counter_opened_enabled_switched_and_disabled() -> None:
    kernel = await Kernel.boot()
    cycles = await kernel.open(CYCLES, disabled=True)
    await kernel.enable(cycles)
    kernel.bench.work(1_000_000)
    await kernel.switch()
    await kernel.disable(cycles)
    await kernel.perf.read(kernel.cpu, cycles)
    await kernel.perf.release(kernel.cpu, cycles)
    await kernel.done()
    assert kernel.accesses() == recorded("one-counter")


async def test_a_group_of_four() -> None:
    kernel = await Kernel.boot()
    leader = await kernel.open(CYCLES, disabled=True)
    siblings = [await kernel.open(event, leader=leader) for event in (0x08, 0x03, 0x04)]
    await kernel.enable(leader)
    for sibling in siblings:
        await kernel.enable(sibling)
    await kernel.switch()
    for event in (leader, *siblings):  # ioctl(DISABLE, PERF_IOC_FLAG_GROUP)
        await kernel.disable(event)
    for _ in range(3):
        await kernel.switch()
    assert kernel.accesses() == recorded("group-of-four")


async def test_twelve_events_on_seven_counters_bracket_by_bracket() -> None:
    kernel = await Kernel.boot()
    expected = brackets(recorded("multiplex-12-on-7"))
    whole = expected[:-1]  # the recording ends within the last
    seen = {"install": 0, "rotate": 0, "out": 0, "in": 0}
    for number, bracket in enumerate(whole):
        stops = any("PMOVSCLR" in access for access in bracket)
        starts = any("PMCNTENSET" in access for access in bracket)
        if number < 12:
            await kernel.open(CYCLES)  # all twelve are: the cycle counter is in use at every rotation
            what = "install"
        elif stops and starts:
            await kernel.rotate()
            what = "rotate"
        elif stops:
            await kernel.perf.task_out(kernel.cpu, kernel.TASK)
            await kernel.done()
            what = "out"
        else:
            await kernel.perf.task_in(kernel.cpu, kernel.TASK)
            await kernel.done()
            what = "in"
        seen[what] += 1
        assert kernel.accesses() == bracket, f"bracket {number}, {what}"
    assert seen["install"] == 12
    assert seen["rotate"] > 5


async def test_sampling_cycles_bracket_by_bracket() -> None:
    kernel = await Kernel.boot()
    cycles = await kernel.open(CYCLES, disabled=True, period=5_000_000)
    assert [kernel.accesses()] == brackets(recorded("sample-cycles-period-5e6"))[:1]
    seen = {"enable": 0, "interrupt": 0, "throttled": 0, "unthrottled": 0, "out": 0, "in": 0}
    for number, bracket in enumerate(brackets(recorded("sample-cycles-period-5e6"))[1:]):
        if bracket[:2] == FLAGS:
            what = "throttled" if "w PMINTENCLR_EL1" in bracket else "interrupt"
            # On the slow recording machine handlers took so long that the limit came down to one sample a tick.
            kernel.all_perf.limits.max_samples_per_tick = 1 if what == "throttled" else 400
            assert await kernel.bench.work_until_interrupt(kernel.perf)
        elif "w PMINTENCLR_EL1" in bracket:
            what = "out"
            await kernel.perf.task_out(kernel.cpu, kernel.TASK)
        elif number == 0:
            what = "enable"
            await kernel.enable(cycles)
        elif cycles.throttled:
            what = "unthrottled"
            await kernel.tick()
        else:
            what = "in"
            await kernel.perf.task_in(kernel.cpu, kernel.TASK)
        await kernel.done()
        seen[what] += 1
        assert kernel.accesses() == bracket, f"bracket {number}, {what}"
    assert seen["interrupt"] + seen["throttled"] == 43
    assert seen["unthrottled"] == seen["throttled"] == 3
