"""The state of kvm: all of it is saved, restored in place, and shared with nobody."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any

import orjson
import pytest

from pmulab import scenario
from services import registers as r
from services.cpu import Cpu, Entry
from services.embedded import Embedded
from services.experiment import Experiment, TaskSpec
from services.kvm.attendant import LocalSoftware
from services.kvm.outcome import digest
from services.kvm.requests import Request
from services.kvm.vpmu import Design
from services.state import names
from tests.repeatability.recorded import SHORTER

WORLDS = [
    ("quick", "emulated"),
    ("quick", "partitioned,swap=lazy"),
    ("two-vms", "emulated-6.15"),
    ("two-vms", "mediated"),
    ("two-vms", "gunyah"),
    ("two-vms", "partitioned-v7"),
    ("reservation", "partitioned,reservation=dynamic"),
    ("migration", "partitioned,swap=lazy-sticky"),
    ("load-latency", "raw"),
]
PACKAGES = ("services.kvm.", "services.embedded")


def world(name: str, design: str) -> Experiment:
    overrides = [*SHORTER.get(name, ()), *(["guest.counters=10"] if design in ("raw", "mediated") else ())]
    (experiment,) = scenario.load(name, designs=[design], overrides=overrides).experiments
    return experiment


async def after(lab: Embedded, interactions: int) -> Embedded:
    """So many interactions later, or at its end."""
    for _ in range(interactions):
        if lab.simulation.working:
            await lab.simulation.step()
    return lab


# Everything is saved.


def attributes(value: Any) -> dict[str, Any]:
    """What an object holds, by name."""
    slots = {slot for kind in type(value).__mro__ for slot in getattr(kind, "__slots__", ())}
    found = {slot: getattr(value, slot) for slot in slots if hasattr(value, slot)}
    return found | getattr(value, "__dict__", {})


def below(value: Any, seen: dict[int, Any]) -> None:
    """Every object of `PACKAGES` that is held below `value`, by its identity."""
    if id(value) in seen or isinstance(value, (str, bytes, int, type, Enum)):
        return
    if isinstance(value, dict):
        held: Iterable[Any] = [*value, *value.values()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        held = value
    elif type(value).__module__.startswith(PACKAGES):
        seen[id(value)] = value
        held = attributes(value).values()
    else:
        return
    for one in held:
        below(one, seen)


def stateful(root: Any) -> Iterator[Any]:
    """Every object below `root` that can change."""
    seen: dict[int, Any] = {}
    below(root, seen)
    for value in seen.values():
        parameters = getattr(value, "__dataclass_params__", None)
        if parameters is None or not parameters.frozen:
            yield value


def unsaved(value: Any) -> set[str]:
    """The attributes of an object that are neither in its state nor named as derived."""
    known = set(getattr(value, "DERIVED", ()))
    if dataclasses.is_dataclass(value):
        known |= {field.name for field in dataclasses.fields(value) if "derived" in field.metadata}
        known |= names(type(value))
    return attributes(value).keys() - known


@pytest.mark.parametrize(("name", "design"), WORLDS)
async def test_every_attribute_is_in_its_objects_state_or_named_as_derived(name: str, design: str) -> None:
    lab = await after(Embedded.of(world(name, design)), 300)
    objects = list(stateful(lab.simulation))
    assert {f"{type(value).__name__}.{attribute}" for value in objects for attribute in unsaved(value)} == set()
    assert len({type(value) for value in objects}) > 10
    assert not any(isinstance(value, Design) for value in objects)


def test_an_attribute_that_is_neither_is_found() -> None:
    vpmu = Embedded.of(world("quick", "emulated")).simulation.vcpus[0].vpmu
    assert unsaved(vpmu) == set()
    vars(vpmu)["forgotten"] = 0
    assert unsaved(vpmu) == {"forgotten"}


# A restore.


async def finished(lab: Embedded) -> dict[str, Any]:
    await lab.simulation.run()
    return lab.simulation.measured(await lab.simulation.result(), 0)


@pytest.mark.parametrize(("name", "design"), WORLDS)
async def test_what_runs_on_leaves_the_snapshot_alone_and_comes_back_to_it(name: str, design: str) -> None:
    """In place, again and again, from the snapshot itself and after JSON; round trips are counted as before."""
    experiment = world(name, design)
    expected = await finished(Embedded.of(experiment))
    lab = await after(Embedded.of(experiment), expected["interactions"] // 3)
    snapshot = lab.state()
    before = orjson.dumps(snapshot)
    assert await finished(lab) == expected
    for saved in (snapshot, orjson.loads(before), snapshot):
        lab.restore(saved)
        assert orjson.dumps(lab.state()) == before
        assert await finished(lab) == expected
        assert orjson.dumps(snapshot) == before


@pytest.mark.parametrize("accesses", [1, 7, 40])
async def test_a_run_that_has_failed_in_the_middle_of_a_handler_can_be_restored(
    accesses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = world("quick", "emulated")
    expected = await finished(Embedded.of(experiment))
    lab = await after(Embedded.of(experiment), 60)
    snapshot = lab.state()
    (vcpu,) = lab.simulation.vcpus
    access = vcpu.vpmu.access
    left = accesses

    async def failing(register: int, write: bool, value: int) -> int:
        nonlocal left
        left -= 1
        if not left:
            raise RuntimeError("in the middle")
        return await access(register, write, value)

    with monkeypatch.context() as patch:
        patch.setattr(vcpu.vpmu, "access", failing)
        with pytest.raises(RuntimeError, match="in the middle"):
            await lab.simulation.run()
    lab.restore(snapshot)
    assert await finished(lab) == expected


async def test_what_a_handler_had_posted_when_it_failed_is_gone_after_a_restore() -> None:
    experiment = world("quick", "partitioned")
    expected = await finished(Embedded.of(experiment))
    lab = await after(Embedded.of(experiment), 60)
    snapshot = lab.state()

    class Failing:
        async def enter(self, cpu: Cpu, entry: Entry) -> None:
            cpu.burst.msr(r.PMCR_EL0, 0)
            raise RuntimeError("in the middle")

    (vcpu,) = lab.simulation.vcpus
    assert isinstance(vcpu.guest, LocalSoftware)
    vcpu.guest.software = Failing()
    with pytest.raises(RuntimeError, match="in the middle"):
        await lab.simulation.run()
    lab.restore(snapshot)
    assert await finished(lab) == expected


async def test_a_request_that_waits_is_taken_up_after_a_restore() -> None:
    experiment = world("quick", "emulated")
    lab = await after(Embedded.of(experiment), 100)
    work = TaskSpec("late", experiment.guests[0].vcpus[0].tasks[0].phases)
    rates = tuple(experiment.profiles)
    lab.simulation.requests.add(Request("vm0", 0, rates, task=work))
    saved = orjson.dumps(lab.state())
    expected = await finished(lab)
    assert [taken["request"]["task"]["name"] for taken in expected["injected"]] == ["late"]
    lab.restore(orjson.loads(saved))
    assert digest(await finished(lab)) == digest(expected)


async def test_a_state_does_not_grow_with_what_has_happened() -> None:
    (experiment,) = scenario.load("two-vms", designs=["emulated"]).experiments
    lab = await after(Embedded.of(experiment), 300)
    early = len(orjson.dumps(lab.simulation.state()))
    await after(lab, 900)
    assert lab.simulation.working
    assert len(orjson.dumps(lab.simulation.state())) < 1.5 * early
