"""What the catalogue of cores says, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from services import cores, costs
from services.errors import UserError
from services.experiment import CpuSpec
from services.registers import CHAIN, CPU_CYCLES, SW_INCR

SHIPPED = cores.names()


@pytest.mark.parametrize("name", SHIPPED)
def test_every_core_has_a_source_and_a_cost_table_that_exists(name: str) -> None:
    core = cores.load(name)
    assert core.source
    assert core.spec.model == name
    assert costs.table(core.costs).figures


@pytest.mark.parametrize(
    ("name", "counters", "pmuver", "fgt"),
    [
        ("cortex-a72", 6, 1, 0),
        ("neoverse-n1", 6, 4, 0),
        ("a64fx", 8, 4, 0),
        ("neoverse-v1", 6, 5, 0),
        ("neoverse-n2", 6, 6, 0),
        ("cortex-a710", 20, 6, 0),
        ("neoverse-v2", 6, 6, 0),
        ("neoverse-v3", 6, 7, 1),
        ("ampereone", 6, 6, 1),
        ("ten-counters", 10, 7, 1),
        ("maximal", 31, 9, 2),
    ],
)
def test_a_core_has_the_published_features(name: str, counters: int, pmuver: int, fgt: int) -> None:
    spec = cores.load(name).spec
    assert (spec.counters, spec.pmuver, spec.fgt) == (counters, pmuver, fgt)


def test_only_the_maximal_core_has_hpmn0_and_an_instruction_counter() -> None:
    having = [name for name in SHIPPED if cores.load(name).spec.hpmn0 or cores.load(name).spec.icntr]
    assert having == ["maximal"]


def test_cores_of_armv8_0_have_no_vhe() -> None:
    assert [name for name in SHIPPED if not cores.load(name).vhe] == [
        "cortex-a53",
        "cortex-a57",
        "cortex-a72",
        "x-gene",
    ]


def test_what_has_no_source_is_named_as_assumed() -> None:
    assert "pmuver" in cores.load("neoverse-v3").assumed
    assert {"counters", "pmuver"} <= cores.load("ampereone").assumed.keys()
    assert not cores.load("neoverse-n1").assumed


@pytest.mark.parametrize(
    ("name", "having", "lacking"),
    [
        ("cortex-a53", (0x0C, 0x11), (0x1B, 0x21, 0x23)),  # github deater/perf_event_tests issue 15: no BR_RETIRED
        ("neoverse-n1", (0x21, 0x23, 0x36), (0x0C, 0x32, 0x3F)),
        ("neoverse-v2", (0x21, 0x3D, 0x3F), (0x0C, 0x32)),
        ("neoverse-v3", (0x0C, 0x21, 0x3F), (0x2A, 0x32)),
        ("a64fx", (0x10, 0x23, 0x24, 0x30), (0x0C, 0x21, 0x25, 0x36)),
        ("ampereone", (0x06, 0x21, 0x3F), (0x15, 0x36)),
    ],
)
def test_a_core_has_the_published_events(name: str, having: tuple[int, ...], lacking: tuple[int, ...]) -> None:
    spec = cores.load(name).spec
    assert all(spec.implements(event) for event in (SW_INCR, CHAIN, CPU_CYCLES, *having))
    assert not any(spec.implements(event) for event in lacking)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_core_says_which_events_it_has_but_the_one_with_all(name: str) -> None:
    spec = cores.load(name).spec
    assert (spec.pmceid0 is None, spec.pmceid1 is None) == (name == "maximal", name == "maximal")


def test_an_unknown_core_is_refused_with_the_near_matches() -> None:
    with pytest.raises(UserError, match="no core 'neoverse-n3'; did you mean neoverse-"):
        cores.load("neoverse-n3")
    with pytest.raises(UserError, match=r"no core 'm1'; known are cortex-a53, .*maximal"):
        cores.load("m1")


def test_a_users_own_core_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('counters = 4\npmuver = 8\nhpmn0 = true\nsource = "my board"\n')
    core = cores.load(str(path))
    assert core.spec == CpuSpec(model="mine", counters=4, pmuver=8, hpmn0=True)
    assert core.costs == costs.DEFAULT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'counters = 32\npmuver = 4\nsource = "x"',
            r"mine.toml:1: counters = 32 is out of range; give an integer from 0 to 31",
        ),
        (
            'counters = 6\npmuver = 3\nsource = "x"',
            r"mine.toml:2: 3 is not a PMUv3 version; ID_AA64DFR0_EL1.PMUVer is one of 1 \(PMUv3\)",
        ),
        (
            'counters = 6\npmuver = 4\nsource = "x"\nfgt = true',
            r"mine.toml:4: fgt must be an integer, not a boolean; write",
        ),
        (
            'counters = 6\npmuver = 4\nsource = "x"\ncosts = "altra"',
            r"mine.toml:4: no cost table 'altra'; did you mean altra-n1-vhe",
        ),
        (
            'counters = 6\npmuver = 4\nsource = "x"\nhpmn = 0',
            r"mine.toml:4: unknown key 'hpmn' at the top level; did you mean hpmn0",
        ),
        ("counters = 6\npmuver = 4", r"mine.toml:1: 'source' is missing; add for example source = "),
    ],
)
def test_a_core_that_cannot_be_used_is_refused_with_file_line_key_and_remedy(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        cores.load(str(path))
