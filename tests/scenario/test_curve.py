"""`python -m pmulab.curve`: one line per point and design."""

from __future__ import annotations

import re
import shlex
from importlib.resources import files
from pathlib import Path

import pytest

from pmulab import curve, exit_status, scenario
from services.errors import UserError

ROOT = Path(__file__).parents[2]
SHORT = ["--set", "guest.task.seconds=0.002", "--design", "partitioned"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1", ["1"]),
        ("1,2,3", ["1", "2", "3"]),
        ('["r8","r10"],["r3"]', ['["r8","r10"]', '["r3"]']),
        ('"cycles,r8",cycles', ['"cycles,r8"', "cycles"]),
        ("{a,b},{c}", ["{a,b}", "{c}"]),
        ("'a,\"b',c", ["'a,\"b'", "c"]),
    ],
)
def test_commas_separate_values_outside_brackets_and_quotes(text: str, found: list[str]) -> None:
    assert curve.values(text) == found


def test_several_keys_make_a_grid() -> None:
    assert curve.points(["a=1,2", "b=3"]) == [{"a": "1", "b": "3"}, {"a": "2", "b": "3"}]


def test_two_keys_may_go_together() -> None:
    (one, other) = curve.points(["host.hz+guest.hz=250,1000"])
    assert curve.overrides(one) == ["host.hz=250", "guest.hz=250"]
    assert curve.overrides(other) == ["host.hz=1000", "guest.hz=1000"]


@pytest.mark.parametrize("text", ["a", "a="])
def test_a_key_without_values_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="not of the form KEY=VALUE,VALUE"):
        curve.points([text])


def test_every_measure_of_every_point_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    measures = [*curve.MEASURES, *curve.BILL]
    assert curve.main(["quick", "guest.hz=100,250", "host.hz=250", "--show", ",".join(measures), *SHORT]) == 0
    table, assumed = capsys.readouterr().out.split("\n\n")
    head, *lines = table.splitlines()
    assert assumed.startswith("Costs charged here that nobody has measured\n")
    assert "  exit_full_sysreg: " in assumed
    assert head.split() == ["guest.hz", "host.hz", "design", *measures]
    assert [line.split()[:3] for line in lines] == [["100", "250", "partitioned"], ["250", "250", "partitioned"]]


def test_a_scenario_without_a_guest_has_no_elapsed_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "host.toml"
    path.write_text('[[host.task]]\nworkload = "sha256"\nseconds = 0.001\n')
    assert curve.main([str(path), "host.hz=100", "--design", "emulated"]) == 0
    _, line, *_ = capsys.readouterr().out.splitlines()
    assert line.split()[:2] == ["100", "emulated"]


def test_a_design_that_cannot_be_had_at_a_point_says_why_there(capsys: pytest.CaptureFixture[str]) -> None:
    designs = ["--design", "mediated", *SHORT]
    points = ["quick", "host.reserved_host_counters=-1,0", "--show", "traps,swaps"]
    assert curve.main([*points, *designs]) == exit_status.FAILED
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:5]]
    assert [line[:2] for line in lines] == [
        ["-1", "mediated"],
        ["-1", "partitioned"],
        ["0", "mediated"],
        ["0", "partitioned"],
    ]
    assert " ".join(lines[1][2:]).startswith("the host is booted with reserved_host_counters = -1")
    assert lines[3][2].isdecimal()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quick", "guest.hz=100", "--show", "trap"], "pmulab.curve: --show: no measure 'trap'; did you mean traps"),
        (["quick", "guest.hz=0"], "pmulab.curve: --set guest.hz=0: guest.hz = 0 is out of range"),
        (["nowhere", "guest.hz=1"], "pmulab.curve: nowhere: no such file"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert curve.main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(message)
    assert printed.err.count("\n") == 1


def _suggested() -> list[str]:
    """What the scenarios' comments and the documentation say to run."""
    folder = files("pmulab").joinpath("scenarios")
    texts = [folder.joinpath(f"{name}.toml").read_text(encoding="utf-8") for name in scenario.shipped()]
    texts += [(ROOT / "docs" / "scenario.md").read_text(), (ROOT / "Makefile").read_text()]
    joined = (re.sub(r"\\\n#?\s*", " ", text) for text in texts)
    return [found for text in joined for found in re.findall(r"-m pmulab\.curve ([a-z-]+ [^\n`]*)", text)]


@pytest.mark.parametrize("command", _suggested())
def test_every_curve_that_is_suggested_can_be_drawn(command: str) -> None:
    name, *arguments = shlex.split(command.rstrip("."))
    given = curve.parser().parse_args([name, *arguments])
    assert set(given.show.split(",")) <= {*curve.MEASURES, *curve.BILL}
    for point in curve.points(given.keys):
        scenario.load(name, designs=given.design, overrides=[*given.fixed, *curve.overrides(point)])
