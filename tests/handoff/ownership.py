"""Worlds in which counters change hands, and what everybody has read when they have.

Guests and host work at EL0 at one instruction a cycle, and count there what is theirs alone: each count is what its
owner has done, to the instruction, whoever had the counter before, after or in between.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pmulab import topology
from services import registers as r
from services.embedded import Embedded
from services.experiment import Experiment
from services.result import Step, StepEvent, Violation
from services.result.steps import steps as typed
from services.state import Saved
from tests.script.scenes import experiment

# Each is right, and gives a guest all that the architecture has.
SWAPS = ("lazy", "lazy-sticky", "eager")
RESERVATIONS = ("dynamic", "static", "sysfs", "grow")
OTHERWISE = ("traps=fast-path", "traps=slow-path", "pmcr=trapped", "pinned=error", "host_time=less-guest")
EMULATED = ("emulated", "emulated-6.12.0", "emulated-6.15", "emulated,kernel=7.3")
PARTITIONED = (
    *(f"partitioned,swap={swap}" for swap in SWAPS),
    *(f"partitioned,reservation={reservation}" for reservation in RESERVATIONS[1:]),
    *(f"partitioned,{otherwise}" for otherwise in OTHERWISE),
)
MEDIATED = ("mediated", "mediated,traps=fast-path", "mediated,traps=slow-path")
DESIGNS = (*EMULATED, *PARTITIONED, *MEDIATED)
AT_BOOT = ("partitioned,reservation=static", "partitioned,reservation=sysfs")  # the host never has the guests' range

# No counter of the host's is of instructions alone (FEAT_PMUv3_ICNTR).
MACHINE = "[machine]\npcpus = {pcpus}\ncounters = 6\nicntr = false\n"
GUEST = '[[guest]]\nname = "{name}"\ncounters = 4\nvcpus = 1\n'


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a script."""

    digest: str
    steps: tuple[Step, ...]
    violations: tuple[Violation, ...]  # that the judge has found

    @property
    def values(self) -> list[int]:
        """That accesses have read, in order."""
        return [step.value for step in self.steps if step.value is not None]

    def counts(self, *names: str) -> list[list[int | None]]:
        """Of each read of a session, those of its events, or those `names`."""
        reads = [step.events for step in self.steps if step.events]
        return [[event.count for event in events if not names or event.event in names] for events in reads]

    def events(self) -> list[tuple[StepEvent, ...]]:
        """What each read of a session found."""
        return [step.events for step in self.steps if step.events]

    @property
    def found(self) -> set[str]:
        """Which invariants were broken, and how: `"I4 guest_read"`."""
        return {f"{one.invariant} {one.kind}" for one in self.violations}

    def of(self, action: str) -> list[Step]:
        """The steps with an action."""
        return [step for step in self.steps if step.action == action]


@dataclass(frozen=True, slots=True)
class Left:
    """What there is when a script is over: in the host's perf, and on its CPUs."""

    events: tuple[str, ...]  # of its users
    kernels: int  # counters that KVM has of it
    enabled: tuple[int, ...]  # PMCNTENSET_EL0 of each pCPU
    interrupting: tuple[int, ...]  # PMINTENSET_EL1


def scripted(directory: Path, steps: str, design: str, guests: int, pcpus: int) -> Experiment:
    """The steps, with so many VMs (`vm0`, …), which float."""
    names = [GUEST.format(name=f"vm{number}") for number in range(guests)]
    world = "\n".join([MACHINE.format(pcpus=pcpus), *names])
    return experiment(directory, steps, design=design, world=world)


async def play(
    directory: Path, steps: str, design: str, where: str = "embedded", *, guests: int = 1, pcpus: int = 1
) -> Played:
    """A script, from its beginning to its end."""
    of = scripted(directory, steps, design, guests, pcpus)
    if where == "processes":
        (run,) = (await topology.run(of, lambda share, seconds: None)).runs
        return Played(run.digest, run.steps, run.violations)
    return await _to_its_end(Embedded.of(of), of)


async def _to_its_end(lab: Embedded, of: Experiment) -> Played:
    await lab.simulation.run()
    told = lab.simulation.measured(await lab.simulation.result(), 0.0)
    return Played(told["digest"], typed(of, told["steps"]), told["judgement"]["violations"])


class Amidst:
    """A script in which something comes amid a step. What is before that is played once, embedded."""

    def __init__(self, of: Experiment) -> None:
        self._of = of
        self._lab = Embedded.of(of)
        self._before: Saved | None = None

    async def play(self, at: int) -> Played:
        """What comes of it where that comes before operation `at` of KVM's."""
        simulation = self._lab.simulation
        script = simulation.script
        assert script is not None
        if self._before is None:
            coming = next(number for number, step in enumerate(self._of.steps) if step.at >= 0)
            while script.next < coming:
                await simulation.step()
            self._before = self._lab.state()
        self._lab.restore(self._before)
        script.steps = tuple(replace(step, at=at) if step.at >= 0 else step for step in self._of.steps)
        return await _to_its_end(self._lab, self._of)


async def left_by(directory: Path, steps: str, design: str, *, guests: int = 1, pcpus: int = 1) -> Left:
    """Likewise, embedded."""
    lab = Embedded.of(scripted(directory, steps, design, guests, pcpus))
    await lab.simulation.run()
    assert lab.host.perf is not None
    machine = lab.simulation.board.machine
    return Left(
        tuple(event.attr.name for event in lab.host.perf.events.values() if event.handle < 0),
        len(lab.host.counters),
        tuple(machine.peek(cpu, r.PMCNTENSET_EL0) for cpu in range(pcpus)),
        tuple(machine.peek(cpu, r.PMINTENSET_EL1) for cpu in range(pcpus)),
    )


# What guests and the host do, as steps.


def reset(vcpu: str) -> str:
    """A guest's kernel finds its PMU as it is at reset."""
    return f"""
    {vcpu} msr register=PMCNTENCLR_EL0 value=0xffffffff
    {vcpu} msr register=PMINTENCLR_EL1 value=0xffffffff
    {vcpu} msr register=PMOVSCLR_EL0 value=0xffffffff
    {vcpu} msr register=PMUSERENR_EL0 value=0
    {vcpu} msr register=PMSELR_EL0 value=0
    """


def count_from(vcpu: str, *values: int) -> str:
    """It counts instructions at EL0 on its first counters, from these values on."""
    writes = [
        f"{vcpu} msr register=PMEVTYPER{n}_EL0 value=0x80000008\n{vcpu} msr register=PMEVCNTR{n}_EL0 value={value}"
        for n, value in enumerate(values)
    ]
    enable = f"{vcpu} msr register=PMCNTENSET_EL0 value={(1 << len(values)) - 1}"
    return "\n".join([*writes, enable, f"{vcpu} msr register=PMCR_EL0 value=1", f"{vcpu} isb"]) + "\n"


def work(who: str, instructions: int) -> str:
    """So many instructions at EL0, in as many cycles."""
    return f"{who} run cycles={instructions} el=0 rates={{INST_RETIRED=1}}\n"


def read(vcpu: str, counters: int = 1) -> str:
    return "".join(f"{vcpu} mrs register=PMEVCNTR{n}_EL0\n" for n in range(counters))
