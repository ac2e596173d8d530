"""Judged or not a run is the same, and what is found in it is, however it is run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from pmulab import scenario
from services import embedded
from services.embedded import Embedded
from services.experiment import Experiment
from services.kvm.designs import designs
from services.linux_perf import notes
from tests.repeatability.recorded import SHORTER
from tests.repeatability.worlds import after


def experiment(name: str, design: str) -> Experiment:
    (one,) = scenario.load(name, designs=[design], overrides=SHORTER.get(name, ())).experiments
    return one


async def finished(lab: Embedded) -> dict[str, Any]:
    await lab.simulation.run()
    return lab.simulation.measured(await lab.simulation.result(), 0)


@pytest.mark.parametrize("name", ["quick", "handoff"])
@pytest.mark.parametrize("design", sorted(designs()))
async def test_a_run_has_the_same_digest_judged_and_not(name: str, design: str) -> None:
    judged = experiment(name, design)
    assert judged.judged
    with_judge, without = await embedded.play(judged), await embedded.play(replace(judged, judged=False))
    assert (with_judge["judgement"]["judged"], without["judgement"]["judged"]) == (True, False)
    assert with_judge["digest"] == without["digest"]
    assert with_judge["interactions"] == without["interactions"]


@pytest.mark.parametrize(
    ("name", "design", "kinds"), [("two-vms", "partitioned-v8", 10), ("handoff", "partitioned-v7", 10)]
)
async def test_a_run_that_goes_on_from_a_snapshot_has_the_violations_that_it_has_otherwise(
    name: str, design: str, kinds: int
) -> None:
    of = experiment(name, design)
    expected = await finished(Embedded.of(of))
    assert len({(one.invariant, one.kind) for one in expected["judgement"]["violations"]}) >= kinds
    for part in range(1, 4):
        lab = await after(Embedded.of(of), expected["interactions"] * part // 4)
        state = orjson.loads(orjson.dumps(lab.state()))
        assert await finished(Embedded.from_state(of, state)) == expected


async def test_where_nobody_is_told_software_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be said to nobody, at a call's cost."""

    def said(*_: object) -> None:
        raise AssertionError("a notice is posted")

    for name in ("opened", "closed", "enabled", "disabled", "in_error", "on_counter", "off_counter", "read"):
        monkeypatch.setattr(notes, name, said)
    of = experiment("two-vms", "emulated")
    await embedded.play(replace(of, judged=False))
    with pytest.raises(AssertionError, match="a notice is posted"):
        await embedded.play(of)
