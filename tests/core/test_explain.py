"""`pmulab registers` and `pmulab explain`: the tables that the core runs on, in words."""

from __future__ import annotations

import argparse

import pytest

from pmulab.cli import main
from pmulab.commands import registers
from services import _pmu


def _said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["explain", *arguments]) == 0
    return capsys.readouterr().out


def test_every_register_and_every_rule_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert registers.main(argparse.Namespace()) == 0
    said = capsys.readouterr().out
    for row in _pmu.register_rows():
        assert row.name in said
    for rule in _pmu.rules():
        assert rule.name in said
        assert rule.source in said


def test_a_reserved_counter_traps_and_the_rule_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    said = _said(capsys, "PMEVCNTR5_EL0", "--el", "1", "--set", "MDCR_EL2.HPMN=4", "--read")
    assert "read at EL1: trapped to EL2, ESR_EL2 0x623af811" in said
    assert "reserved counter" in said
    assert "[PMEVCNTR<n>_EL0, Accessing: n >= MDCR_EL2.HPMN, FEAT_FGT]" in said


def test_an_enable_shows_what_hpmn_hides(capsys: pytest.CaptureFixture[str]) -> None:
    said = _said(capsys, "PMCNTENSET_EL0", "--el", "1", "--set", "MDCR_EL2.HPMN=4")
    assert "sees the bits 0x8000000f, the others are RAZ/WI" in said
    assert "4 event counters are accessible" in said


def test_a_choice_is_told_from_a_rule(capsys: pytest.CaptureFixture[str]) -> None:
    question = ("PMEVCNTR5_EL0", "--el", "1", "--set", "MDCR_EL2.HPMN=4", "--feature", "fgt=0")
    assert "UNDEFINED" in _said(capsys, *question)
    said = _said(capsys, *question, "--feature", "reserved_counter=1")
    assert "RAZ/WI" in said
    assert "a choice that the architecture leaves open: --feature reserved_counter" in said


def test_a_value_is_taken_apart(capsys: pytest.CaptureFixture[str]) -> None:
    said = _said(capsys, "PMCR_EL0", "0x41003041")
    assert "[15:11]  N = 0x6:" in said
    assert "[31:24]  IMP = 0x41:" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("PMFOO_EL0",), "no register PMFOO_EL0"),
        (("PMCR_EL0", "many"), "VALUE: 'many' is not a number"),
        (
            ("PMCR_EL0", "--el", "1", "--set", "MDCR_EL2.HPMN=32"),
            "--set MDCR_EL2.HPMN=32: 0x20 does not fit HPMN; it holds at most 0x1f",
        ),
        (("PMCR_EL0", "--el", "1", "--set", "MDCR_EL2.HPM=4"), "--set MDCR_EL2.HPM=4: MDCR_EL2 has no field HPM"),
        (
            ("PMCR_EL0", "--el", "1", "--set", "MDCR_EL2"),
            "--set MDCR_EL2: not of the form NAME=VALUE; write for example MDCR_EL2.HPMN=4",
        ),
        (("PMCR_EL0", "--el", "1", "--feature", "counters=32"), "--feature: counters = 32: 0 to 31"),
        (("PMCR_EL0", "--el", "1", "--feature", "speed=1"), "--feature: unknown feature speed"),
    ],
)
def test_a_mistake_is_one_line(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"pmulab: {message}")
