"""Every shipped scenario under every design gives the log hash, digest and round trips recorded for it."""

import pytest

from tests.repeatability import recorded

RECORDED = recorded.read()


def test_every_shipped_scenario_is_recorded() -> None:
    assert list(RECORDED) == recorded.cases()


@pytest.mark.parametrize("case", RECORDED)
def test_it_gives_what_was_recorded(case: str) -> None:
    assert {design: recorded.of(experiment) for design, experiment in recorded.experiments(case)} == RECORDED[case]
