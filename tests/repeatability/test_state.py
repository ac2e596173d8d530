"""Between entries the whole state of every actor is data."""

import orjson
import pytest

from pmulab import scenario
from services.embedded import Embedded
from services.kvm.outcome import digest

SHIPPED = [("quick", "emulated"), ("quick", "partitioned"), ("two-vms", "emulated"), ("two-vms", "partitioned")]
# Between CPUs that differ, with every kind of state that a design has.
MIGRATING = [
    ("migration", design)
    for design in (
        *("emulated-6.15", "partitioned,swap=lazy", "partitioned,swap=lazy-sticky,reservation=dynamic"),
        *(f"partitioned-v{n}" for n in (1, 2, 4, 5, 6, 7, 8)),
    )
]


@pytest.mark.parametrize(("name", "design"), SHIPPED + MIGRATING)
async def test_a_run_that_is_saved_and_restored_on_its_way_gives_the_same_digest(name: str, design: str) -> None:
    (experiment,) = scenario.load(name, designs=[design]).experiments
    straight = Embedded.of(experiment)
    await straight.simulation.run()
    expected = await straight.simulation.result()

    every = expected["interactions"] // 5
    lab = Embedded.of(experiment)
    restored = 0
    while lab.simulation.working:
        await lab.simulation.step()
        if lab.simulation.board.interactions % every == 0:
            lab = Embedded.from_state(experiment, orjson.loads(orjson.dumps(lab.state())))
            restored += 1
    assert restored >= 4
    assert digest(await lab.simulation.result()) == digest(expected)


async def test_a_restored_actor_has_the_state_that_it_was_restored_from() -> None:
    (experiment,) = scenario.load("quick", designs=["emulated"]).experiments
    lab = Embedded.of(experiment)
    for _ in range(200):
        await lab.simulation.step()
    state = orjson.loads(orjson.dumps(lab.state()))
    assert orjson.loads(orjson.dumps(Embedded.from_state(experiment, state).state())) == state
