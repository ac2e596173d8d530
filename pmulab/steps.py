"""What the steps of a scenario gave, as a table: the designs side by side."""

from __future__ import annotations

from collections.abc import Sequence

from pmulab.columns import align
from services.result import Run, Step

_UNDEFINED = 0  # ESR_ELx.EC: unknown reason


def table(heads: Sequence[str], runs: Sequence[Run]) -> str:
    """A row for each step that gave something under any of the designs; empty without steps."""
    rows = [["step", "party", "action", *heads]]
    found = [{step.step: step for step in run.steps} for run in runs]
    for number in sorted({number for steps in found for number in steps}):
        given = [steps.get(number) for steps in found]
        cells = [_cell(step) for step in given]
        one = next(step for step in given if step is not None)
        if any(cells):
            rows.append([str(number), one.party, f"{one.action} {one.register}".rstrip(), *cells])
    return align(rows, left=3) if len(rows) > 1 else ""


def _cell(step: Step | None) -> str:
    """What a step gave; empty if there is nothing to say but that it was done."""
    if step is None:
        return "not complete"
    parts = []
    if step.esr is not None:
        parts.append("UNDEFINED" if step.esr >> 26 == _UNDEFINED else "trapped to EL1")
    elif step.value is not None:
        parts.append(f"{step.value:#x}")
    if step.trapped:
        parts.append("trapped")
    if step.cycles is not None:
        parts.append(f"{step.cycles:,} cycles")
    flags = {"interrupted": step.interrupted, "blocked": step.blocked, "nothing pending": step.taken is False}
    parts += [name for name, is_so in flags.items() if is_so]
    if step.armed is False:
        parts.append("not armed")
    if step.reached is not None:
        parts.append(f"{'' if step.reached else 'not '}reached: {step.operations} operations")
    if step.error:
        parts.append(step.error)
    for event in step.events:
        count = event.state.upper() if event.count is None else f"{event.count:,}"
        running = "" if event.running_ns == event.enabled_ns else f" ({event.running_ns} of {event.enabled_ns} ns)"
        parts.append(f"{event.event} {count}{running}")
    return "\n".join(parts)
