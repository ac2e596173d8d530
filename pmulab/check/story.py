"""What happens on a path, step by step: on which pCPU, in kernel words, and whose the contested counter is then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pmulab.check.accesses import Step
from services.experiment import Experiment
from services.result import Run, Violation
from services.result import Step as Told


@dataclass(frozen=True, slots=True)
class Line:
    """One step."""

    number: int  # from 1, as in the scenario
    cpu: int  # the pCPU on which it happens
    text: str
    owner: str  # of the contested counter behind it, as the judge has seen it; empty if it does not tell of that time


def story(experiment: Experiment, steps: Sequence[Step], run: Run, found: Violation) -> list[Line]:
    """A line for each step of the path on which `found` is found by `run`."""
    told = {step.step: step for step in run.steps}
    on = _Places(experiment)
    owners = _Owners(found)
    lines: list[Line] = []
    for number, step in enumerate(steps, 1):
        given = told.get(number)
        cpu, text = on.told(step, given)
        lines.append(Line(number, cpu, text, owners.behind(cpu, _cycle(experiment, given))))
    return lines


def _cycle(experiment: Experiment, given: Told | None) -> int | None:
    """When a step was complete: the last cycle of that ns."""
    if given is None or given.virtual_ns is None:
        return None
    return -(-(given.virtual_ns + 1) * experiment.frequency_hz // 10**9) - 1


class _Owners:
    """Whose the contested counter is, step by step."""

    def __init__(self, found: Violation) -> None:
        self.cpu = found.cpu
        self.owners = found.owners
        self.cycle = 0  # of its pCPU's clock, up to which it is known

    def behind(self, cpu: int, cycle: int | None) -> str:
        """Behind a step that is complete on `cpu` at `cycle`. Other pCPUs have clocks of their own: there it is as
        behind the last step on its own."""
        if cpu == self.cpu and cycle is not None:
            self.cycle = max(self.cycle, cycle)
        owners = [one.party for one in self.owners if one.since <= self.cycle]
        return owners[-1] if owners else ""


class _Places:
    """Who is where, as the steps have it."""

    def __init__(self, experiment: Experiment) -> None:
        self.pcpu: dict[str, int] = {}
        self.loaded: dict[int, str] = {}
        vcpus = [(guest.name, index, spec) for guest in experiment.guests for index, spec in enumerate(guest.vcpus)]
        for number, (name, index, spec) in enumerate(vcpus):
            self.pcpu[f"{name}/{index}"] = experiment.first_pcpu(spec, number)

    def told(self, step: Step, given: Told | None) -> tuple[int, str]:
        """On which pCPU it is, and what it is."""
        party, action = step["party"], step["action"]
        cpu = self._cpu(step)
        text = "; ".join(self._words(party, action, step, cpu))
        if "at" in step:
            text = f"amid the next step, before operation {step['at']}: {text}"
        came = "; ".join(_came(given))
        return cpu, f"{text}{came}"

    def _cpu(self, step: Step) -> int:
        party: str = step["party"]
        if party in self.pcpu:
            return self.pcpu[party]
        if party.startswith("host/"):
            return int(party.partition("/")[2])
        return self.pcpu.get(step.get("thread", ""), int(step.get("pcpu", 0)))

    def _words(self, party: str, action: str, step: Step, cpu: int) -> Iterator[str]:
        match action:
            case "switch":
                before = self.loaded.get(cpu)
                if before == party:
                    yield f"{party} runs on"
                    return
                if before:
                    yield f"vcpu_put({before})"
                self.loaded[cpu] = party
                yield f"vcpu_load({party})"
            case "preempt" | "block":
                if "at" not in step:
                    self.loaded.pop(cpu, None)
                yield f"vcpu_put({party})" if action == "preempt" else f"{party} blocks: vcpu_put({party})"
            case "migrate":
                self.pcpu[party] = step["pcpu"]
                yield f"{party} migrates to pCPU {step['pcpu']}"
            case "mrs":
                yield f"{_at(party, step)} MRS {step['register']}"
            case "msr":
                yield f"{_at(party, step)} MSR {step['register']}, {step['value']:#x}"
            case "get_one_reg":
                yield f"KVM_GET_ONE_REG {step['register']} of {party}"
            case "set_one_reg":
                yield f"KVM_SET_ONE_REG {step['register']} of {party}, {step['value']:#x}"
            case "run":
                who = party if party in self.pcpu else "the host"
                yield f"{who} works for {step['cycles']:,} cycles at EL{_el(party, step)}"
            case "filter":
                which = f"{step['event']:#x}" + (f" and {step['count'] - 1} more" if step.get("count", 1) > 1 else "")
                yield f"KVM_ARM_VCPU_PMU_V3_FILTER of {party}: {'deny' if step['deny'] else 'allow'} {which}"
            case "set_nr_counters":
                yield f"KVM_ARM_VCPU_PMU_V3_SET_NR_COUNTERS of {party}, {step['value']}"
            case _ if action.startswith("perf_"):
                events = f" ({step['events']})" if "events" in step else ""
                yield f"perf: {action.removeprefix('perf_')} {step['name']!r}{events}"
            case _:
                yield f"{party} {action}{_rest(step)}"


def _at(party: str, step: Step) -> str:
    return f"{party} at EL0:" if step.get("el", 1) == 0 else f"{party}:"


def _el(party: str, step: Step) -> int:
    el = int(step.get("el", 1))
    return 2 if party.startswith("host") and el else el


def _rest(step: Step) -> str:
    rest = {key: value for key, value in step.items() if key not in ("party", "action", "at")}
    return "".join(f" {key}={value}" for key, value in rest.items())


def _came(given: Told | None) -> Iterator[str]:
    """What it gave."""
    if given is None:
        return
    if given.value is not None and given.action in ("mrs", "get_one_reg"):
        yield f" = {given.value:#x}"
    if given.esr is not None:
        yield " takes an exception"
    if given.error:
        yield f": {given.error}"
    counts: list[Any] = [f"{event.event} {event.count:,}" for event in given.events if event.count is not None]
    if counts:
        yield f" = {', '.join(counts)}"
