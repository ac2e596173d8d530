"""The tables that `pmulab run` prints, on fixed data: `report.txt` and `why.txt` show them whole."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from pmulab import report

HERE = Path(__file__).parent


@pytest.mark.parametrize(("file", "why"), [("report.txt", False), ("why.txt", True)])
def test_the_tables_of_a_result(result: dict[str, Any], file: str, why: bool) -> None:
    assert report.render(result, why=why) == (HERE / file).read_text()


def test_designs_of_one_name_are_told_apart_by_the_axes_they_differ_in(result: dict[str, Any]) -> None:
    lazy = copy.deepcopy(result["runs"][1])
    lazy["design"]["axes"]["swap"] = "lazy"
    assert report.columns([*result["runs"], lazy]) == ["emulated", "partitioned,swap=eager", "partitioned,swap=lazy"]


def test_nothing_published_nothing_compared(result: dict[str, Any]) -> None:
    for run in result["runs"]:
        run["published"] = None
    assert "published" not in report.render(result)


def test_a_fallback_is_told(result: dict[str, Any]) -> None:
    result["runs"][1]["design"]["fallbacks"] = ["no FEAT_FGT: every access traps"]
    assert "no FEAT_FGT: every access traps" in report.render(result)


def test_a_result_without_guests_or_busy_time(result: dict[str, Any]) -> None:
    for run in result["runs"]:
        run["guests"], run["published"] = [], None
        run["time"] = dict.fromkeys(run["time"], 0.0)
    text = report.render(result, why=True)
    assert "vm0" not in text
    assert "cycles:H" in text


def test_notes_are_one_line_each() -> None:
    assert report.notes("Assumed", {"clock": "3 GHz", "pin": "alone"}) == "\nAssumed\n  clock: 3 GHz\n  pin: alone\n"
    assert report.notes("Assumed", {}) == ""


def test_a_pinned_event_in_error_and_what_the_host_is_refused_are_told(result: dict[str, Any]) -> None:
    result["runs"][1]["host"]["events"][0]["in_error"] = 1
    result["runs"][1]["host"]["refused"] = ["cycles", "instructions"]
    text = report.render(result)
    assert "(100.00%) ERROR" in text
    assert "cycles, instructions" in text
