"""A scripted guest: it does what a scenario's steps say, one entry each, and nothing of its own.

It boots without touching its PMU, and has its interrupts masked (PSTATE.I) but where a step takes one. Run as
`python -m services.guest.scripted --name vm0`.
"""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import orjson

from services._pmu import NOTE_MASKED, NOTE_UNMASKED
from services.cpu import Cpu, Entry, EntryKind, TookException
from services.registers import PMOVSCLR_EL0
from services.state import Saved


class BadStep(ValueError):
    """A step that a guest cannot carry out."""


class ScriptedGuest:
    """One VM's software, on all its vCPUs."""

    DERIVED = ("cpus",)

    def __init__(self) -> None:
        self.cpus: dict[int, ScriptedCpu] = {}

    def attend(self, index: int) -> ScriptedCpu:
        """The software that attends vCPU `index`."""
        return self.cpus.setdefault(index, ScriptedCpu())

    def state(self) -> Saved:
        """Nothing: between two entries all that there is is KVM's."""
        return {}

    def restore(self, saved: Saved) -> None:
        """Take up what `state` gave."""


@dataclass(frozen=True, slots=True)
class ScriptedCpu:
    """The software of one vCPU (`services.cpu.Software`)."""

    def enter(self, cpu: Cpu, entry: Entry) -> Coroutine[Any, Any, object] | None:
        """Carry out the step that `entry` has, and answer with what came of it."""
        if entry.kind is EntryKind.BOOT:
            cpu.burst.note(NOTE_MASKED, 0)
            return None
        if entry.kind is EntryKind.REQUEST:
            return _perform(cpu, orjson.loads(entry.payload))
        if entry.kind is EntryKind.PMU_IRQ:
            return _irq(cpu)
        return None


async def _perform(cpu: Cpu, step: dict[str, Any]) -> None:
    burst, register = cpu.burst, step.get("register", 0)
    match step["action"]:
        case "mrs" if step["el"] == 0:
            slot = burst.user_mrs(register)
            _answer(cpu, value=(await cpu.wait())[slot])
        case "mrs":
            slot = burst.mrs(register)
            try:
                _answer(cpu, value=(await cpu.wait())[slot])
            except TookException as exc:
                _answer(cpu, esr=exc.esr)
        case "msr" if step["el"] == 0:
            burst.user_msr(register, step["value"])
            await cpu.wait()
        case "msr":
            burst.msr(register, step["value"])
            try:
                await cpu.wait()
            except TookException as exc:
                _answer(cpu, esr=exc.esr)
        case "isb":
            burst.isb()
        case "hvc":
            burst.hvc(0)
        case "wfi":
            burst.wfi()
        case "unmask":
            burst.note(NOTE_UNMASKED, 0)
        case "run":
            burst.compute(step["profile"], step["el"], step["cycles"])
        case action:
            raise BadStep(f"a guest has no action {action!r}")


async def _irq(cpu: Cpu) -> None:
    """The handler of the PMU's interrupt: it reads the overflow flags and clears them."""
    flags = await cpu.mrs(PMOVSCLR_EL0)
    cpu.burst.msr(PMOVSCLR_EL0, flags)
    _answer(cpu, value=flags)


def _answer(cpu: Cpu, **found: int) -> None:
    cpu.answer(orjson.dumps(found))


if __name__ == "__main__":
    from services.actor import main
    from services.attend import Role

    sys.exit(main("guest.scripted", Role.GUEST, ScriptedGuest(), None))
