"""What all of kvm looks at: the machine, the experiment, what things cost, and how far it has got."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from services import events, state
from services._pmu import Machine
from services.costs import Cost
from services.experiment import CpuSpec, Experiment
from services.state import derived

BYTES = "latin-1"  # a character for each byte, whatever it is


@dataclass(slots=True, eq=False)
class Board:
    """One per simulation. It knows nothing of what looks at it."""

    experiment: Experiment = derived()
    machine: Machine = derived()  # saved and restored beside the fields, by its own state
    costs: list[int] = derived()  # cycles, by Cost
    profiles: int = 0  # that the machine knows: the experiment's, and those of live clients
    interactions: int = 0
    preempted: int = derived(default=0)  # vCPUs in the midst of an interaction, which is no data then

    @classmethod
    def of(cls, experiment: Experiment) -> Board:
        """The machine of `experiment`, at time 0."""
        costs = [experiment.costs.get(cost.name.lower(), 0) for cost in Cost]
        return cls(experiment, _machine(experiment), costs, len(experiment.profiles))

    def save(self) -> state.Saved:
        saved = state.save(self)
        saved["machine"] = self.machine.state().decode(BYTES)
        return saved

    def restore(self, saved: state.Saved) -> None:
        """Take up what `save` gave."""
        state.restore(self, saved)
        self.preempted = 0
        self.machine.restore(saved["machine"].encode(BYTES))


def _machine(experiment: Experiment) -> Machine:
    costs = experiment.costs
    machine = Machine(
        [_features(cpu, experiment.events) for cpu in experiment.cpus],
        experiment.events,
        mrs_cycles=costs["mrs"],
        msr_cycles=costs["msr"],
        isb_cycles=costs["isb"],
    )
    for rates in experiment.profiles:
        machine.add_profile(rates)
    return machine


def _features(cpu: CpuSpec, tallied: Iterable[int]) -> dict[str, int]:
    """As the core has them. Where `cpu` does not say which events are implemented, all that PMUv3 names are, whether or
    not anybody counts them, and those that are `tallied`."""
    features = {
        "counters": cpu.counters,
        "pmuver": cpu.pmuver,
        "fgt": cpu.fgt,
        "hpmn0": int(cpu.hpmn0),
        "icntr": int(cpu.icntr),
        "pmi_delay": cpu.pmi_delay,
        "pmccntr_in_wfi": int(cpu.pmccntr_in_wfi),
    }
    every = {*events.pmuv3().values(), *tallied}
    pmceid0, pmceid1 = (
        _pmceid(half, every) if given is None else given for half, given in enumerate((cpu.pmceid0, cpu.pmceid1))
    )
    return features | {"pmceid0": pmceid0, "pmceid1": pmceid1}


def _pmceid(half: int, implemented: Iterable[int]) -> int:
    """PMCEID<half>_EL0: a bit for each common event, and for each from 0x4000 on."""
    common = {event: event & 31 for event in implemented if event >> 5 == half}
    further = {event: 32 + (event & 31) for event in implemented if event >> 5 == 0x4000 >> 5 | half}
    return sum(1 << bit for bit in (common | further).values())
