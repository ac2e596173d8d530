"""Between entries the whole state of every actor is data."""

import orjson
import pytest

from pmulab import scenario
from services.embedded import Embedded
from services.kvm.outcome import digest
from services.kvm.vpmu import Design
from tests.repeatability.worlds import (
    EVERYTHING,
    WORLDS,
    after,
    derived_values,
    experiment,
    ids,
    stateful,
    stateful_types,
    unsaved,
)

SHIPPED = [("quick", "emulated"), ("quick", "partitioned"), ("two-vms", "emulated"), ("two-vms", "partitioned")]
# Between CPUs that differ, with every kind of state that a design has.
MIGRATING = [
    ("migration", design)
    for design in (
        *("emulated-6.15", "partitioned,swap=eager", "partitioned,swap=lazy-sticky,reservation=static"),
        *(f"partitioned-v{n}" for n in (1, 2, 4, 5, 6, 7, 8)),
    )
]
MIXED = [(EVERYTHING, "emulated"), (EVERYTHING, "partitioned")]

# Everything is saved.


@pytest.mark.parametrize("world", WORLDS, ids=ids)
async def test_every_attribute_is_in_its_objects_state_or_named_as_derived(world: tuple[str, str]) -> None:
    lab = Embedded.of(experiment(*world))
    while lab.simulation.working:
        await after(lab, 300)
        objects = list(stateful(lab))
        assert {f"{type(value).__name__}.{attribute}" for value in objects for attribute in unsaved(value)} == set()
        assert not any(isinstance(value, Design) for value in objects)


async def test_every_type_of_object_that_can_change_is_among_them() -> None:
    found: set[type] = set()
    for world in WORLDS:
        lab = await after(Embedded.of(experiment(*world)), 300)
        found |= {type(value) for value in stateful(lab)}
    assert {kind.__qualname__ for kind in stateful_types() - found} == set()


def test_an_attribute_that_is_neither_is_found() -> None:
    vpmu = Embedded.of(experiment("quick", "emulated")).simulation.vcpus[0].vpmu
    assert unsaved(vpmu) == set()
    vars(vpmu)["forgotten"] = 0
    assert unsaved(vpmu) == {"forgotten"}


# Within one interaction only, and what is made when it is first asked for.
SCRATCH = {"PerfCpu.in_interrupt", "PerfEvent.rank", "PerfEvent.slot", "PCpu.noticed", "PCpu.results"}
CACHES = {"Driver.el0_flips", "Driver._hw", "Driver._kernel_counters", "LocalSoftware._cpu"}


@pytest.mark.parametrize(
    "world", [*WORLDS[:4], ("watchdog", "partitioned-v8"), (EVERYTHING, "emulated"), (EVERYTHING, "mediated")], ids=ids
)
async def test_what_is_named_as_derived_follows_from_the_state(world: tuple[str, str]) -> None:
    of = experiment(*world)
    lab = await after(Embedded.of(of), 50)
    while lab.simulation.working:
        expected, again = derived_values(lab), derived_values(Embedded.from_state(of, lab.state()))
        differ = {place for place in expected.keys() | again.keys() if expected.get(place) != again.get(place)}
        assert {place for place in differ if place.split(": ")[1] not in SCRATCH | CACHES} == set()
        await after(lab, 100)


# It is enough to go on from.


@pytest.mark.parametrize("world", SHIPPED + MIGRATING + MIXED, ids=ids)
async def test_a_run_that_is_saved_and_restored_on_its_way_gives_the_same_digest(world: tuple[str, str]) -> None:
    name, design = world
    (of,) = scenario.load(name, designs=[design]).experiments
    straight = Embedded.of(of)
    await straight.simulation.run()
    expected = await straight.simulation.result()

    every = expected["interactions"] // 5
    lab = Embedded.of(of)
    restored = 0
    while lab.simulation.working:
        await lab.simulation.step()
        if lab.simulation.board.interactions % every == 0:
            lab = Embedded.from_state(of, orjson.loads(orjson.dumps(lab.state())))
            restored += 1
    assert restored >= 4
    assert digest(await lab.simulation.result()) == digest(expected)


async def test_a_restored_actor_has_the_state_that_it_was_restored_from() -> None:
    (of,) = scenario.load("quick", designs=["emulated"]).experiments
    lab = Embedded.of(of)
    for _ in range(200):
        await lab.simulation.step()
    state = orjson.loads(orjson.dumps(lab.state()))
    assert orjson.loads(orjson.dumps(Embedded.from_state(of, state).state())) == state
