"""`partitioned-by-steps` with all steps of one design is that design, access by access."""

from __future__ import annotations

import pytest
import trio

from services.kvm import designs
from services.kvm.designs.partitioned.by_steps import steps
from services.kvm.designs.partitioned.by_steps.steps import Of
from tests.check.searching import searched
from tests.repeatability import traffic

# v1 has an emulated vPMU where a CPU has no FEAT_FGT.
MACHINES = {"fgt": tuple(Of), "no fgt": tuple(one for one in Of if one is not Of.V1)}


def with_all_of(version: Of) -> str:
    return ",".join(["partitioned-by-steps", *(f"{step}={version.value}" for step in steps.steps_of(version))])


@pytest.mark.parametrize(("machine", "version"), [(name, one) for name, those in MACHINES.items() for one in those])
def test_with_all_steps_of_a_version_it_is_that_version(machine: str, version: Of) -> None:
    itself = "partitioned" if version is Of.PARTITIONED else f"partitioned-{version.value}"
    assert trio.run(traffic._of, machine, with_all_of(version)) == trio.run(traffic._of, machine, itself)


@pytest.mark.parametrize("version", [one for one in Of if one is not Of.PARTITIONED])
def test_each_step_alone_is_a_design_that_runs(version: Of) -> None:
    for step in steps.steps_of(version):
        assert searched(f"partitioned-by-steps,{step}={version.value}", "amid", "one", walks=1).walks == 1


def test_it_is_a_design_by_name_alone() -> None:
    assert designs.named("partitioned-by-steps").name == "partitioned-by-steps"
    assert "partitioned-by-steps" not in designs.designs()


def test_each_step_says_what_each_version_does_in_it() -> None:
    for step, does in steps.DOES.items():
        admitted = steps.Steps.axes()[step].values
        assert admitted == (Of.PARTITIONED, *(one for one in Of if one in does))
        assert all(text and not text.endswith(".") for text in does.values())
