"""Experiments that between them have every actor in every kind of state, and walks over their objects."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from types import MethodType
from typing import Any

from pmulab import scenario
from services.embedded import Embedded
from services.experiment import Experiment
from services.state import names
from tests.repeatability.recorded import SHORTER

BPERF = str(Path(__file__).parent / "bperf.toml")
NMI = str(Path(__file__).parent / "nmi.toml")
READ = str(Path(__file__).parent / "read.toml")
SWEVENT = str(Path(__file__).parent / "swevent.toml")
SIGILL = str(Path(__file__).parent / "sigill.toml")
EVERYTHING = str(Path(__file__).parent / "everything.toml")
WORLDS = [
    ("quick", "emulated"),
    ("quick", "partitioned,swap=eager"),
    ("two-vms", "emulated-6.15"),
    ("two-vms", "mediated"),
    ("two-vms", "gunyah"),
    ("two-vms", "partitioned-v7"),
    ("reservation", "emulated"),
    ("reservation", "partitioned,reservation=static"),
    ("migration", "partitioned,swap=lazy-sticky"),
    ("load-latency", "raw"),
    ("watchdog", "partitioned-v8"),
    (EVERYTHING, "emulated"),
    (EVERYTHING, "partitioned"),
    (EVERYTHING, "partitioned,reservation=sysfs"),
    (EVERYTHING, "partitioned,reservation=grow"),
    (BPERF, "emulated"),
    (BPERF, "partitioned"),
    (NMI, "emulated"),
    (READ, "emulated"),
    (SWEVENT, "emulated"),
    (SWEVENT, "partitioned"),
    (SIGILL, "partitioned-v3"),
    ("handoff", "emulated"),
    ("handoff", "partitioned"),
    ("quick", "partitioned-by-steps,backing=v8"),
    *((EVERYTHING, f"partitioned-v{n}") for n in (1, 2, 3, 4, 5, 6, 9)),
]
# Whose objects change while a simulation runs.
PACKAGES = ("services.kvm", "services.host_perf", "services.guest", "services.linux_perf", "services.embedded")


def ids(world: tuple[str, str]) -> str:
    """Of a test."""
    name, design = world
    return f"{Path(name).stem}-{design}"


def experiment(name: str, design: str) -> Experiment:
    """A world at its beginning."""
    overrides = [*SHORTER.get(name, ()), *(["guest.counters=10"] if design in ("raw", "mediated") else ())]
    (made,) = scenario.load(name, designs=[design], overrides=overrides).experiments
    return made


async def after(lab: Embedded, interactions: int) -> Embedded:
    """So many interactions later, more while a vCPU is preempted in the midst of one, or at its end."""
    for _ in range(interactions):
        if lab.simulation.working:
            await lab.simulation.step()
    while lab.simulation.entered:
        await lab.simulation.step()
    return lab


def attributes(value: Any) -> dict[str, Any]:
    """What an object holds, by name."""
    slots = {slot for kind in type(value).__mro__ for slot in getattr(kind, "__slots__", ())}
    found = {slot: getattr(value, slot) for slot in slots if hasattr(value, slot)}
    return found | getattr(value, "__dict__", {})


def unsaved(value: Any) -> set[str]:
    """The attributes of an object that are neither in its state nor named as derived."""
    known = set(getattr(value, "DERIVED", ()))
    if dataclasses.is_dataclass(value):
        known |= {field.name for field in dataclasses.fields(value) if "derived" in field.metadata}
        known |= names(type(value))
    return attributes(value).keys() - known


def stateful(root: Any) -> Iterator[Any]:
    """Every object of `PACKAGES` at or below `root` that can change."""
    seen: dict[int, Any] = {}
    _below(root, seen)
    for value in seen.values():
        if _can_change(type(value)):
            yield value


def derived_values(root: Any) -> dict[str, Any]:
    """What every object of `PACKAGES` at or below `root` holds beside its state and other objects, by its place."""
    found: dict[str, Any] = {}
    seen: set[int] = set()

    def look(value: Any, place: str) -> None:
        if isinstance(value, dict):
            for key, one in value.items():
                look(one, f"{place}[{key}]")
        elif isinstance(value, (list, tuple)):
            for index, one in enumerate(value):
                look(one, f"{place}[{index}]")
        elif type(value).__module__.startswith(PACKAGES) and _can_change(type(value)) and id(value) not in seen:
            seen.add(id(value))
            saved = names(type(value)) if dataclasses.is_dataclass(value) else frozenset()
            for attribute, one in attributes(value).items():
                if attribute not in saved and _is_plain(one):
                    found[f"{place}: {type(value).__name__}.{attribute}"] = one
                look(one, f"{place}.{attribute}")

    look(root, type(root).__name__)
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(one) for one in (*value, *value.values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(_is_plain(one) for one in value)
    return value is None or isinstance(value, (int, str, bytes))


def stateful_types() -> set[type]:
    """Every type of `PACKAGES` whose objects change while a simulation runs; what they only inherit from aside."""
    found: set[type] = set()
    for package in PACKAGES:
        for module in _modules(package):
            for kind in vars(module).values():
                if inspect.isclass(kind) and kind.__module__ == module.__name__ and not inspect.isabstract(kind):
                    of_state = dataclasses.is_dataclass(kind) or hasattr(kind, "DERIVED")
                    if of_state and _can_change(kind):
                        found.add(kind)
    return {kind for kind in found if not any(kind in other.__mro__[1:] for other in found)}


def _modules(name: str) -> Iterator[Any]:
    module = importlib.import_module(name)
    yield module
    for found in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if found.name not in ("__main__", "lab"):  # a Lab serves a simulation, and is no part of it
            yield from _modules(f"{name}.{found.name}")


def _can_change(kind: type) -> bool:
    parameters = getattr(kind, "__dataclass_params__", None)
    return parameters is None or not parameters.frozen


def _below(value: Any, seen: dict[int, Any]) -> None:
    if id(value) in seen or isinstance(value, (str, bytes, int, type, Enum)):
        return
    if isinstance(value, dict):
        held: Iterable[Any] = [*value, *value.values()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        held = value
    elif isinstance(value, MethodType):
        held = (value.__self__,)
    elif type(value).__module__.startswith(PACKAGES):
        seen[id(value)] = value
        held = attributes(value).values()
    else:
        return
    for one in held:
        _below(one, seen)
