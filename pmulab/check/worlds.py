"""The worlds that a search goes through, and what happens in them: `worlds.toml` and `decks.toml`.

Both are data, and the same for every design. A world is what a scenario has but its steps, and an action of a deck is
one of its steps.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from pmulab.check.accesses import Step, accesses
from services.cores import PMUVER, load

_FGT = {1: "FEAT_FGT", 2: "FEAT_FGT2"}
_SECTIONS = ("machine", "host", "kvm", "guest")


@dataclass(frozen=True, slots=True)
class World:
    """Machine, host and VMs, as the sections of a scenario."""

    name: str
    what: str
    sections: Mapping[str, Any]

    def of(self, core: str | None, counters: int | None) -> World:
        """The same on another core, which has what this world's machine sets of its own, or with so many event
        counters on each of its pCPUs."""
        machine = dict(self.sections["machine"])
        if core is not None:
            machine = {key: value for key, value in machine.items() if key in ("counters", "pcpus")} | {
                "core": core,
                "pcpus": self.pcpus,
            }
        if counters is not None:
            machine |= {"counters": counters, "pcpus": self.pcpus}
        on = [f"on {core}"] if core is not None else []
        on += [f"with {counters} event counters on each pCPU"] if counters is not None else []
        what = f"{self.what}; but {' and '.join(on)}" if on else self.what
        return World(self.name, what, {**self.sections, "machine": machine})

    @property
    def pcpus(self) -> int:
        machine: Mapping[str, Any] = self.sections["machine"]
        lists = (len(value) for value in machine.values() if isinstance(value, list))
        return max([int(machine.get("pcpus", 1)), *lists])

    @property
    def contents(self) -> str:
        """CPUs, counters and VMs, and what the host sets of its own."""
        machine, host = self.sections["machine"], self.sections.get("host", {})
        spec = load(machine["core"]).spec
        features = [PMUVER[number] for number in _each(machine.get("pmuver", spec.pmuver))]
        fgt = _each(machine.get("fgt", spec.fgt))
        features += [f"{_FGT[number]}{' on some' if len(fgt) > 1 else ''}" for number in fgt if number]
        features += ["FEAT_HPMN0"] if spec.hpmn0 else []
        features += ["PMICNTR_EL0"] if spec.icntr else []
        counters = " and ".join(map(str, _each(machine.get("counters", spec.counters))))
        of = f"{self.pcpus} pCPU{'s' if self.pcpus > 1 else ''}"
        parts = [f"{of}, {machine['core']} ({', '.join(features)}), {counters} event counters"]
        for number, guest in enumerate(self.sections["guest"]):
            vcpus = vcpus_of(guest)
            of = f"{vcpus} vCPU{'s' if vcpus > 1 else ''}{'' if 'pin' in guest else ' that floats'}"
            parts.append(f"vm{number}: {of}, asks for {guest['counters']}")
        settings = {**({"pmi_delay": machine["pmi_delay"]} if "pmi_delay" in machine else {}), **host}
        parts += [f"{key} = {_toml(value)}" for key, value in settings.items()]
        return "; ".join(parts)

    @property
    def cast(self) -> dict[str, str]:
        """Which vCPUs the decks' `A` and `B` are: the first of two VMs, or the first two of one."""
        vcpus = [
            f"vm{number}/{index}"
            for number, guest in enumerate(self.sections["guest"])
            for index in range(vcpus_of(guest))
        ]
        of_vms = [name for name in vcpus if name.endswith("/0")]
        return dict(zip(("A", "B"), of_vms if len(of_vms) > 1 else vcpus, strict=False))


def vcpus_of(guest: Mapping[str, Any]) -> int:
    """How many a guest of a world's sections has."""
    return int(guest.get("vcpus", len(guest.get("pin", [-1]))))


@dataclass(frozen=True, slots=True)
class Deck:
    """Actions that belong together."""

    name: str
    what: str
    worlds: tuple[str, ...]
    serves: tuple[str, ...]  # the invariants for which it was made
    opening: tuple[Step, ...]
    actions: tuple[Step, ...]
    amid: bool  # whatever may come amid what KVM does also comes there
    overflows: bool  # so does the host's next overflow
    every_register: bool  # each vCPU accesses all that a guest has

    def opening_in(self, world: World) -> list[Step]:
        return _played(self.opening, world)

    def actions_in(self, world: World) -> list[Step]:
        """Those that there are in a world: of a second vCPU where there is one, say."""
        found = _played(self.actions, world)
        if self.every_register:
            found += [access for vcpu in world.cast.values() for access in accesses(vcpu)]
        return found


def _each(value: Any) -> list[Any]:
    """Of the pCPUs, what is set for all or for each."""
    return [*dict.fromkeys(value)] if isinstance(value, list) else [value]


def _played(steps: Iterable[Step], world: World) -> list[Step]:
    cast = world.cast
    names = {*cast.values(), *(name.partition("/")[0] for name in cast.values())}
    found: list[Step] = []
    for step in steps:
        parties: dict[str, str] = {key: step[key] for key in ("party", "thread") if key in step}
        played = {key: cast.get(party, party) for key, party in parties.items()}
        if all(party.partition("/")[0] == "host" or party in names for party in played.values()):
            found.append({**step, **played})
    return found


@cache
def worlds() -> Mapping[str, World]:
    """All, by name."""
    return {
        name: World(name, of["what"], {key: of[key] for key in _SECTIONS if key in of})
        for name, of in _read("worlds.toml").items()
    }


@cache
def decks() -> Mapping[str, Deck]:
    """All, by name."""
    return {
        name: Deck(
            name,
            of["what"],
            tuple(of["worlds"]),
            tuple(of["serves"]),
            tuple(of.get("opening", ())),
            tuple(of["actions"]),
            of.get("at", False),
            of.get("overflows", False),
            of.get("accesses", "") == "every",
        )
        for name, of in _read("decks.toml").items()
    }


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(files("pmulab.check").joinpath(name).read_text(encoding="utf-8"))
    return found


def scenario_text(world: World, steps: Sequence[Step], *, head: str = "", designs: Sequence[str] = ()) -> str:
    """The scenario in which these steps happen in that world."""
    sections = dict(world.sections)
    if designs:
        sections["kvm"] = {**sections.get("kvm", {}), "designs": [*designs]}
    lines = [f"# {line}".rstrip() for line in head.splitlines()]
    lines += ["", "step = [", *(f"  {_toml(step)}," for step in steps), "]"]
    for section in _SECTIONS:
        tables = sections.get(section, ())
        header = f"[{section}]"
        if isinstance(tables, Mapping):
            tables = [tables]
        else:
            header = f"[{header}]"
        for table in tables:
            lines += ["", header, *(f"{key} = {_toml(value)}" for key, value in table.items())]
    return "\n".join(lines).lstrip("\n") + "\n"


def _toml(value: Any, key: str = "") -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:#x}" if key == "value" else str(value)
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{name} = {_toml(one, name)}' for name, one in value.items())} }}"
    if isinstance(value, Iterable):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value)
