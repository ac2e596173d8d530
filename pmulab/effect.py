"""What writing a register does to a PMU: it is tried on a CPU that nothing else runs on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services import _pmu
from services import registers as r
from services._pmu import Burst, Machine, Stop

# Other views of what a register beside them holds.
_VIEWS = frozenset({"PMCNTENCLR_EL0", "PMINTENCLR_EL1", "PMOVSCLR_EL0", "PMXEVCNTR_EL0", "PMXEVTYPER_EL0"})


def start(name: str, value: int) -> int:
    """What counters have before this write: a value that shows where one of them is reset."""
    return int(name == "PMZR_EL0" or (name == "PMCR_EL0" and value & (r.PMCR_P | r.PMCR_C) != 0))


def of_write(name: str, value: int, el: int, features: Mapping[str, int], settings: Mapping[str, int]) -> list[str]:
    """A line for each change that the write makes at `el`, with `settings` in registers; none if it is not executed."""
    machine = Machine([dict(features)], [], mrs_cycles=0, msr_cycles=0, isb_cycles=0)
    host, guest, profile = machine.add_context(False), machine.add_context(True), machine.add_profile([])
    events = (machine.peek(0, r.PMCR_EL0) & r.PMCR_N) >> r.PMCR_N_SHIFT
    counters = [*(r.PMEVCNTR(n) for n in range(events)), r.PMCCNTR_EL0]
    if features.get("icntr"):
        counters.append(r.PMICNTR_EL0)
    for counter in counters:
        machine.poke(0, counter, start(name, value))
    machine.set_running(0, host if el == 2 else guest, el, profile)
    for setting, content in settings.items():
        register = _pmu.register_encoding(setting)
        if content or setting == name or not (register in counters or setting in _VIEWS):
            machine.poke(0, register, content)
    before = _state(machine)
    burst = Burst()
    burst.msr(_pmu.register_encoding(name), value)
    if type(machine.execute(0, burst, 0, False)) is Stop:
        return []
    others = [_pmu.register_name(counter) for counter in counters]
    return changes(before, _state(machine), [one for one in others if one != name]) or ["changes nothing"]


def changes(before: Mapping[str, int], after: Mapping[str, int], counters: Iterable[str]) -> list[str]:
    """A line for each register that has changed, and one for all of `counters` that were reset."""
    reset = [one for one in counters if after[one] == 0 != before[one]]
    lines = [f"resets {_listed(reset)}"] if reset else []
    return lines + [
        f"{one} {was:#x} -> {after[one]:#x}" for one, was in before.items() if after[one] != was and one not in reset
    ]


def _state(machine: Machine) -> dict[str, int]:
    names = (name for name in _pmu.register_names() if name not in _VIEWS)
    return {name: machine.peek(0, _pmu.register_encoding(name)) for name in names}


def _listed(names: list[str]) -> str:
    """Event counters in a row as the first to the last."""
    runs: list[list[str]] = []
    for name in names:
        successor = _number(name) is not None and runs and _number(runs[-1][-1]) == (_number(name) or 0) - 1
        if successor:
            runs[-1].append(name)
        else:
            runs.append([name])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def _number(name: str) -> int | None:
    digits = name.removeprefix("PMEVCNTR").removesuffix("_EL0")
    return int(digits) if digits.isdigit() else None
