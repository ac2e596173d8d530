"""Smaller worlds in which the same steps may be taken: each without a party that none of them names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pmulab.check.accesses import Step
from pmulab.check.worlds import World, vcpus_of


def smaller(world: World, steps: Sequence[Step]) -> Iterator[World]:
    """Without an idle VM, the last vCPU of one, or the last pCPU. Those that stay have the names that they had."""
    named = {str(step[key]) for step in steps for key in ("party", "thread") if key in step}
    guests: Sequence[Mapping[str, Any]] = world.sections["guest"]
    names = [guest.get("name", f"vm{number}") for number, guest in enumerate(guests)]
    for number, name in enumerate(names):
        if len(guests) > 1 and not any(one.partition("/")[0] == name for one in named):
            # A VM is called by its place unless it has a name.
            others = [
                {**guest, "name": other} if place > number else guest
                for place, (guest, other) in enumerate(zip(guests, names, strict=True))
                if place != number
            ]
            yield _with(world, name, guest=others)
    for number, (name, guest) in enumerate(zip(names, guests, strict=True)):
        last = vcpus_of(guest) - 1
        if last and f"{name}/{last}" not in named:
            fewer = {"pin": guest["pin"][:-1]} if "pin" in guest else {"vcpus": last}
            others = [{**one, **fewer} if place == number else one for place, one in enumerate(guests)]
            yield _with(world, f"{name}/{last}", guest=others)
    pcpu = world.pcpus - 1
    pinned = {on for guest in guests for on in guest.get("pin", ())}
    stepped = {step["pcpu"] for step in steps if "pcpu" in step}
    if pcpu and pcpu not in pinned | stepped and f"host/{pcpu}" not in named:
        yield _with(world, f"pCPU {pcpu}", machine=_on(world.sections["machine"], pcpu))


def _on(machine: Mapping[str, Any], pcpus: int) -> dict[str, Any]:
    """The first ones of a machine."""
    fewer = {key: value[:pcpus] if isinstance(value, list) else value for key, value in machine.items()}
    return {**fewer, "pcpus": pcpus} if "pcpus" in machine else fewer


def _with(world: World, without: str, **sections: Any) -> World:
    what = f"{world.what}; without {without}" if "; without " not in world.what else f"{world.what}, {without}"
    return replace(world, what=what, sections={**world.sections, **sections})
