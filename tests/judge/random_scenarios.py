"""Whole scenarios by chance: machines, hosts, VMs, programs and perf sessions of all kinds, each judged.

    python -m tests.judge.random_scenarios FIRST LAST [DESIGN ...]

runs those with the seeds FIRST to LAST - 1 under each design, or under some that go with the seed, and prints the
violations that count; `python -m tests.judge.random_scenarios SEED` prints the scenario.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pmulab import scenario
from pmulab.embedded import run_embedded
from services import cores
from services.errors import UserError
from services.experiment import Experiment
from services.result import Violation

CORES = ("ten-counters", "neoverse-n1", "neoverse-v1", "neoverse-v2", "neoverse-v3", "cortex-a76", "maximal")
CORES_OF_SEVERAL = ('"ten-counters"', '"neoverse-v3"')
WORKLOADS = ("gzip-text", "gzip-random", "sqlite", "sha256")
EVENTS = ("cycles", "instructions", "branches", "branch-misses", "cache-misses", "L1-dcache-loads", "L1-icache-loads")
DESIGNS = (
    "partitioned",
    "partitioned,swap=eager",
    "partitioned,swap=lazy-sticky",
    "partitioned,traps=fast-path",
    "partitioned,traps=slow-path",
    "partitioned,reservation=static",
    "partitioned,reservation=grow",
    "partitioned,reservation=sysfs",
    "partitioned,pmcr=trapped",
    "partitioned,host_time=less-guest",
    "partitioned,pinned=error",
    "mediated",
    "emulated",
    "emulated-6.15",
    "emulated-6.12.0",
)


def designs_of(seed: int) -> tuple[str, ...]:
    """A few: over all seeds, each."""
    return tuple(DESIGNS[(seed + step) % len(DESIGNS)] for step in (0, 4, 9))


class _Draw(random.Random):
    """What a scenario is drawn with."""

    def perhaps(self, probability: float, *lines: str) -> list[str]:
        return list(lines) if self.random() < probability else []

    def one(self, key: str, *values: float | str) -> str:
        value = self.choice(values)
        return f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}"

    def events(self, most: int, modifiers: Sequence[str]) -> str:
        """Some events, single and in groups, as a TOML list."""
        found = []
        for _ in range(self.randint(1, most)):
            names = [self.choice(EVENTS) + self.choice(modifiers) for _ in range(self.choice((1, 1, 1, 2, 3)))]
            # Only what leads a group can be pinned.
            members = [names[0], *(name.replace("D", "").removesuffix(":") for name in names[1:])]
            found.append(f'"{{{",".join(members)}}}"' if len(members) > 1 else f'"{names[0]}"')
        return f"events = [{', '.join(found)}]"

    def session(self, most: int, modifiers: Sequence[str]) -> list[str]:
        events = self.events(most, modifiers)
        if self.random() < 0.5:
            return ['verb = "stat"', events, *self.perhaps(0.3, self.one("interval_ms", 1, 3))]
        return ['verb = "record"', events, self.choice(("frequency = 1000", "frequency = 20000", "period = 20000"))]

    def program(self) -> list[str]:
        lines = [self.one("workload", *WORKLOADS), self.one("seconds", 0.002, 0.004, 0.008)]
        return lines + self.perhaps(0.5, self.one("sleep_ms", 1, 2, 5), self.one("repeat", 1, 3, 5))


OF_GUEST = ("", "", "", ":u", ":k")
OF_HOST = ("", "", "", ":u", ":k", ":H", ":G", ":D", ":HD")
# A program that reads a counter of its own at EL0 has it beside its events, one for itself.
READ_BY_PROGRAM = ['events = "armv8_pmuv3_0/event=0x11,rdpmc=1/,instructions"', 'verb = "stat"']


def made(seed: int) -> str:
    """The scenario with this seed, as TOML."""
    draw = _Draw(seed)
    pcpus = draw.choice((1, 1, 2, 2, 3))
    counters = draw.choice((2, 3, 4, 6, 6, 6))  # the fewest of any pCPU, and the most of any guest
    machine = list(_machine(draw, pcpus, counters))
    guests = _guests(draw, pcpus, counters, _pmuvers(machine))
    return "\n".join([*machine, *_host(draw, pcpus), *guests]) + "\n"


def _pmuvers(machine: list[str]) -> list[int]:
    """Those of guests that are below KVM's limit and that of the machine, which are as good as its own in the end."""
    of = dict(line.split(" = ", 1) for line in machine[1:])
    core = cores.load(of["core"].strip('[]"').split('"')[0])
    latest = int(of.get("pmuver", core.spec.pmuver))
    return [pmuver for pmuver in (1, 4, 5) if pmuver <= latest]


def _machine(draw: _Draw, pcpus: int, counters: int) -> Iterator[str]:
    yield "[machine]"
    yield f"pcpus = {pcpus}"
    if pcpus > 1 and draw.random() < 0.25:  # of several PMUs, whose PMUVer is one
        yield "core = [" + ", ".join(draw.choice(CORES_OF_SEVERAL) for _ in range(pcpus)) + "]"
        yield "pmuver = 6"
    else:
        yield draw.one("core", *CORES)
        yield from (f"counters = {counters}",) if counters < 6 else ()
        yield from draw.perhaps(0.15, draw.one("pmuver", 1, 4, 5, 6, 8))
    yield from draw.perhaps(0.4, draw.one("fgt", 0, 1, 2))
    yield from draw.perhaps(0.25, draw.one("pmi_delay", 100, 700, 3000))
    yield from draw.perhaps(0.3, draw.one("hpmn0", "true", "false").replace('"', ""))
    yield from draw.perhaps(0.15, "icntr = true")
    yield from draw.perhaps(0.15, "pmccntr_in_wfi = true")


def _host(draw: _Draw, pcpus: int) -> Iterator[str]:
    user_access = draw.random() < 0.2
    yield "[host]"
    yield draw.one("hz", 100, 250, 1000)
    yield from draw.perhaps(0.3, "pseudo_nmi = true")
    yield from draw.perhaps(0.3, "mux_interval_ms = 1")
    yield from draw.perhaps(0.2, "powerdown_residency_us = 100")
    yield from draw.perhaps(0.1, "perf_event_max_sample_rate = 1000")
    yield from draw.perhaps(0.1, 'perf_tool = "6.12"')
    yield from ("perf_user_access = 1",) if user_access else ()
    if pcpus > 1 and draw.random() < 0.2:
        yield "[[host.offline]]"
        yield f"pcpu = {pcpus - 1}"
        yield "from_ms = 3"
        yield from draw.perhaps(0.7, "to_ms = 6")
        tasks_on: str | None = "pcpu = 0"
    else:
        tasks_on = None
    for _ in range(draw.choice((0, 0, 1, 2))):
        yield "[[host.task]]"
        yield from draw.program()
        yield from (tasks_on,) if tasks_on else ()
        if user_access and draw.random() < 0.5:
            yield from ("rdpmc_us = 100", "[host.task.perf]", *READ_BY_PROGRAM)
        elif draw.random() < 0.3:
            yield from ("[host.task.perf]", *draw.session(4, OF_GUEST))
    for _ in range(draw.choice((0, 0, 1, 1, 2))):
        yield "[[host.perf]]"
        yield from (line for line in draw.session(6, OF_HOST) if not (tasks_on and line.startswith("interval")))
    yield "[kvm]"
    yield draw.one("halt_poll_ns", 0, 100_000, 500_000)
    yield from draw.perhaps(0.2, 'wfi_trap_policy = "notrap"')


def _guests(draw: _Draw, pcpus: int, counters: int, pmuvers: list[int]) -> Iterator[str]:
    last = pcpus - 1 if pcpus > 1 else pcpus  # the last of several may go offline
    for _ in range(draw.choice((1, 1, 2, 2, 3))):
        vcpus = draw.choice((1, 1, 2, 3))
        user_access = draw.random() < 0.2
        yield "[[guest]]"
        yield draw.one("hz", 100, 250, 1000)
        yield from draw.perhaps(0.6, f"counters = {draw.randint(1, counters)}")
        which = draw.random()
        if which < 0.4:
            yield f"pmuver = {0 if which < 0.1 else pmuvers[int(which * 1000) % len(pmuvers)]}"
        yield from draw.perhaps(0.3, "mux_interval_ms = 1")
        yield from draw.perhaps(0.2, draw.choice(('denied = ["branches"]', 'denied = ["cycles", "r8"]')))
        yield from ("perf_user_access = 1",) if user_access else ()
        if draw.random() < 0.5:
            yield f"pin = {[draw.randrange(last) for _ in range(vcpus)]}"
        else:
            yield f"vcpus = {vcpus}"
        for number in range(draw.randint(1, 2)):
            yield "[[guest.task]]"
            yield f'name = "t{number}"'
            yield f"vcpu = {draw.randrange(vcpus)}"
            yield from draw.program()
            yield from draw.perhaps(0.15, "threads = 2")
            if user_access and draw.random() < 0.5:
                yield from ("rdpmc_us = 100", "[guest.task.perf]", *READ_BY_PROGRAM)
            elif draw.random() < 0.8:
                yield from ("[guest.task.perf]", *draw.session(6, OF_GUEST))
        if draw.random() < 0.3:
            yield from ("[[guest.perf]]", *draw.session(4, OF_GUEST))


def experiment_of(seed: int, design: str) -> Experiment | None:
    """The scenario under a design; None where the two do not go together."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, f"{seed}.toml")
        path.write_text(made(seed))
        experiments = scenario.load(path, designs=[design]).experiments
    return experiments[0] if experiments else None


def counting(experiment: Experiment) -> list[Violation]:
    """What is found in a run, and counts."""
    (run,) = run_embedded(experiment).runs
    return [one for one in run.violations if one.counts]


def _main() -> int:
    numbers = [int(argument) for argument in sys.argv[1:3]]
    if len(numbers) == 1:
        print(made(numbers[0]), end="")
        return 0
    runs = found = 0
    for seed in range(*numbers):
        for design in sys.argv[3:] or designs_of(seed):
            try:
                experiment = experiment_of(seed, design)
            except UserError as refused:
                print(f"{seed}: {refused}")
                found += 1
                break
            if experiment is None:
                continue
            runs += 1
            for one in counting(experiment):
                found += 1
                print(
                    f"{seed} {design}: {one.invariant} {one.kind} {one.register} CPU {one.cpu} cycle {one.cycle}: "
                    f"{one.broken}; {one.compared} ({one.times} times)",
                    flush=True,
                )
    print(f"{runs} runs")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(_main())
