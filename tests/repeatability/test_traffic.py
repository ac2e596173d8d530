"""Guests that do anything at all find under each design what was recorded for it."""

import pytest

from tests.repeatability import traffic

RECORDED = traffic.read()


def test_every_machine_is_recorded() -> None:
    assert list(RECORDED) == list(traffic.MACHINES)


@pytest.mark.parametrize("machine", RECORDED)
def test_random_accesses_give_what_was_recorded(machine: str) -> None:
    assert traffic.of(machine) == RECORDED[machine]
