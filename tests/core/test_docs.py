"""`docs/pmu.md` lists what is unverified and what is chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from services import _pmu

_DOCUMENT = (Path(__file__).parents[2] / "docs" / "pmu.md").read_text()


def test_all_that_is_unverified_is_listed() -> None:
    section = _DOCUMENT.partition("## Unverified")[2].partition("## ")[0]
    for name in [row.name for row in _pmu.register_rows() if row.unverified]:
        assert f"`{name}`" in section
    for name in [rule.name for rule in _pmu.rules() if rule.unverified]:
        assert f'"{name}"' in section


def test_every_choice_is_listed_with_its_default() -> None:
    machine = _pmu.Machine([{}], [], mrs_cycles=0, msr_cycles=0, isb_cycles=0)
    section = _DOCUMENT.partition("## Choices")[2].partition("## ")[0]
    for name in machine.choices_made(0):
        assert f"| `{name}` |" in section


@pytest.mark.parametrize(
    "choice", sorted(_pmu.Machine([{}], [], mrs_cycles=0, msr_cycles=0, isb_cycles=0).choices_made(0))
)
def test_a_choice_is_a_feature(choice: str) -> None:
    _pmu.Machine([{choice: 1}], [], mrs_cycles=0, msr_cycles=0, isb_cycles=0)
    with pytest.raises(ValueError, match=choice):
        _pmu.Machine([{choice: 9}], [], mrs_cycles=0, msr_cycles=0, isb_cycles=0)
