"""What all of kvm looks at: the machine, the experiment, what things cost, and how far it has got."""

from __future__ import annotations

from dataclasses import dataclass

from services import state
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
        [_features(cpu) for cpu in experiment.cpus],
        experiment.events,
        mrs_cycles=costs["mrs"],
        msr_cycles=costs["msr"],
        isb_cycles=costs["isb"],
    )
    for rates in experiment.profiles:
        machine.add_profile(rates)
    return machine


def _features(cpu: CpuSpec) -> dict[str, int]:
    """As the core has them; which events are implemented is left to it where `cpu` does not say."""
    features = {
        "counters": cpu.counters,
        "pmuver": cpu.pmuver,
        "fgt": cpu.fgt,
        "hpmn0": int(cpu.hpmn0),
        "icntr": int(cpu.icntr),
        "pmi_delay": cpu.pmi_delay,
        "pmccntr_in_wfi": int(cpu.pmccntr_in_wfi),
    }
    implemented = {"pmceid0": cpu.pmceid0, "pmceid1": cpu.pmceid1}
    return features | {name: events for name, events in implemented.items() if events is not None}
