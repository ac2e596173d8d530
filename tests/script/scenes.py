"""Scripted scenarios as tests write them: a line for each step, `vm0/0 msr register=PMCR_EL0 value=1`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pmulab import scenario
from services.embedded import Embedded
from services.experiment import Experiment

ONE_VM = "[machine]\ncounters = 6\n\n[[guest]]\ncounters = 4\npin = [0]\n"
TWO_VMS = ONE_VM + "\n[[guest]]\ncounters = 4\npin = [0]\n"
FLOATING = "[machine]\npcpus = 2\ncounters = 6\n\n[[guest]]\ncounters = 4\nvcpus = 1\n"

# What a guest's kernel does before it uses its PMU: at reset most registers are UNKNOWN.
RESET = """
vm0/0 switch
vm0/0 msr register=PMCNTENCLR_EL0 value=0xffffffff
vm0/0 msr register=PMINTENCLR_EL1 value=0xffffffff
vm0/0 msr register=PMOVSCLR_EL0 value=0xffffffff
vm0/0 msr register=PMCR_EL0 value=6
"""


def toml(steps: str) -> str:
    """`[[step]]` tables of lines."""
    return "\n\n".join("\n".join(["[[step]]", *keys]) for keys in _keys(steps)) + "\n"


def inline(steps: str) -> list[str]:
    """An inline table of each line."""
    return [f"{{ {', '.join(keys)} }}" for keys in _keys(steps)]


def _keys(steps: str) -> Iterator[list[str]]:
    for line in filter(None, map(str.strip, steps.splitlines())):
        party, action, *operands = line.split()
        keys = [f'party = "{party}"', f'action = "{action}"']
        for operand in operands:
            key, _, value = operand.partition("=")
            plain = value in ("true", "false") or value[:1].isdigit() or value[:1] in "[-" or key == "rates"
            keys.append(f"{key} = {value}" if plain else f'{key} = "{value}"')
        yield keys


def experiment(directory: Path, steps: str, *, design: str = "partitioned", world: str = ONE_VM) -> Experiment:
    """What the file says that has `world` and `steps`."""
    path = directory / "scene.toml"
    path.write_text(f"{world}\n{toml(steps)}")
    (made,) = scenario.load(path, designs=[design]).experiments
    return made


async def play(of: Experiment) -> list[dict[str, Any]]:
    """What each step gave, in order."""
    lab = Embedded.of(of)
    await lab.simulation.run()
    told: list[dict[str, Any]] = (await lab.simulation.result())["steps"]
    return told


def read(told: list[dict[str, Any]]) -> list[int]:
    """The values that were read, in order."""
    return [step["value"] for step in told if "value" in step]
