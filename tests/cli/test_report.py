"""The tables that `pmulab run` prints, on fixed data: `report.txt` and `why.txt` show them whole."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from pmulab import report
from services.result import read

HERE = Path(__file__).parent
REFUSAL = {
    "index": 1,
    "design": {"name": "mediated", "axes": {"swap": "eager"}, "fallbacks": []},
    "refused": True,
    "problem": "the CPU lacks what it needs",
    "remedy": "change the design",
}


def render(plain: dict[str, Any], *, why: bool = False) -> str:
    return report.render(read(plain), why=why)


def table(text: str, head: str) -> list[list[str]]:
    """The rows of the block that begins with `head`, by words."""
    block = next(block for block in text.split("\n\n") if block.startswith(head))
    return [line.split() for line in block.splitlines()]


@pytest.mark.parametrize(("file", "why"), [("report.txt", False), ("why.txt", True)])
def test_the_tables_of_a_result(result: dict[str, Any], file: str, why: bool) -> None:
    assert render(result, why=why) == (HERE / file).read_text()


def test_designs_of_one_name_are_told_apart_by_the_axes_they_differ_in(result: dict[str, Any]) -> None:
    lazy = copy.deepcopy(result["runs"][1])
    lazy["design"]["axes"]["swap"] = "lazy"
    result["runs"].append(lazy)
    heads = ["emulated", "partitioned,swap=eager", "partitioned,swap=lazy"]
    assert report.columns(read(result).runs) == heads


def test_published_numbers_of_another_setting_say_so(result: dict[str, Any]) -> None:
    assert "another setting" not in render(result)
    for run in result["runs"]:
        run["published"]["changed"] = ["guest.hz=250", "guest.task.repeat=1"]
    text = render(result)
    assert "Published was another setting: here --set guest.hz=250 --set guest.task.repeat=1\n" in text
    assert "real, predicted" in text
    assert "(fitted)" not in text


def test_nothing_published_nothing_compared(result: dict[str, Any]) -> None:
    for run in result["runs"]:
        run["published"] = None
    text = render(result)
    assert "ublished" not in text
    assert "(fitted)" not in text


def test_what_is_predicted_stands_before_what_was_fitted_and_each_says_which_it_is(result: dict[str, Any]) -> None:
    names = [" ".join(row[:2]) for row in table(render(result), "Published numbers") if "," in row[0]]
    assert names == ["sys, predicted", "real, fitted"]
    for run in result["runs"]:
        run["published"]["fitted"] = []
    names = [" ".join(row[:2]) for row in table(render(result), "Published numbers") if "," in row[0]]
    assert names == ["real, predicted", "sys, predicted"]


def test_interrupt_time_has_a_row_where_the_host_accounts_it_apart(result: dict[str, Any]) -> None:
    assert "irq, as the host prints it" not in render(result)
    result["runs"][0]["host"]["irq"] = 0.25
    (row,) = (line for line in render(result).splitlines() if line.startswith("irq, as the host prints it"))
    assert row.split()[-2:] == ["0.250", "s"]


def test_a_fallback_is_told(result: dict[str, Any]) -> None:
    result["runs"][1]["design"]["fallbacks"] = ["no FEAT_FGT: every access traps"]
    assert "no FEAT_FGT: every access" in render(result)


def test_a_result_without_guests_or_busy_time(result: dict[str, Any]) -> None:
    for run in result["runs"]:
        run["guests"], run["published"] = [], None
        run["time"] = dict.fromkeys(run["time"], 0.0)
    text = render(result, why=True)
    assert "vm0" not in text
    assert "cycles:H" in text


def test_notes_are_one_line_each(result: dict[str, Any]) -> None:
    assert render(result).endswith("\n\nAssumed\n  clock: 3 GHz\n  pin: alone\n\nFitted\n  perf_factor: one factor\n")
    result["assumed"] = {}
    assert "\nAssumed\n" not in render(result)


def test_costs_that_nobody_has_measured_are_named(result: dict[str, Any]) -> None:
    result["runs"][0]["assumed_costs"]["mrs"] = "2 ns"
    text = render(result)
    note = "  exit_full_sysreg: 400 ns: between two that were measured\n  mrs: 2 ns\n"
    assert f"\nCosts charged here that nobody has measured\n{note}" in text


def test_a_pinned_event_in_error_is_told(result: dict[str, Any]) -> None:
    result["runs"][1]["host"]["events"][0] |= {"in_error": 1, "count": None, "scaled": None, "error": None}
    (row,) = (line for line in render(result).splitlines() if "ERROR" in line)
    assert row.split() == ["partitioned", "<not", "counted>", "3,000,000", "(100.00%)", "ERROR", "0"]


@pytest.mark.parametrize("actor", ["host", "vm0"])
def test_a_program_that_a_signal_has_killed_is_told(result: dict[str, Any], actor: str) -> None:
    run = result["runs"][1]
    of = run["host"] if actor == "host" else run["guests"][0]
    of["killed_tasks"] = [{"task": "gzip", "session": "", "signal": "SIGILL", "reason": "it may not"}]
    block = next(block for block in render(result).split("\n\n") if block.startswith(f"{actor}: "))
    assert block.splitlines()[-1] == "partitioned: gzip (a client) was killed by SIGILL: it may not"


def test_all_that_the_host_is_refused_is_told(result: dict[str, Any]) -> None:
    names = ["cycles", "instructions"]
    result["runs"][1]["host"]["refused"] = [{"session": "", "event": name, "reason": "it counts"} for name in names]
    (row,) = (line for line in render(result).splitlines() if line.startswith("refuses the host"))
    assert row.split()[-3:] == ["nothing", "cycles,", "instructions"]


@pytest.mark.parametrize("first", [0, 1])
def test_a_design_that_refuses_an_event_says_so_and_shows_no_other_events_numbers(
    result: dict[str, Any], first: int
) -> None:
    opener, refuser = result["runs"][first], result["runs"][1 - first]
    (own,) = opener["host"]["events"]
    opener["host"]["events"] = [own | {"event": "cycles:G", "truth": 777, "scaled": 777}, own]
    refuser["host"]["refused"] = [{"session": own["session"], "event": "cycles:G", "reason": "it counts guests"}]
    opens, refuses = opener["design"]["name"], refuser["design"]["name"]
    text = render(result, why=True)
    _, *rows = table(text, "host: event  ")
    cells = {}
    for row in rows[:4]:
        if row[0] not in (opens, refuses):
            event, *row = row
        cells[event, row[0]] = row[1:]
    assert next(iter(cells))[0] == "cycles:G"
    assert cells["cycles:G", opens][1:3] == ["777", "777"]
    assert cells["cycles:G", refuses] == ["refused"]
    assert (
        cells["cycles:H", opens] == cells["cycles:H", refuses] == [*["3,000,000"] * 3, "+0.00", "%", "(100.00%)", "0"]
    )
    assert f"\n{refuses} refuses cycles:G: it counts guests\n" in text


def test_a_host_event_far_from_its_truth_is_named_below_the_table_the_worst_first(result: dict[str, Any]) -> None:
    near, far = (run["host"]["events"][0] for run in result["runs"])
    near["scaled"], far["scaled"] = 2_840_000, 9_000_000
    title = "Host events more than 5 % from their truth"
    rows = [["cycles:H", "partitioned", "+200.00", "%"], ["cycles:H", "emulated", "-5.33", "%"]]
    assert table(render(result), title)[1:] == rows
    near["scaled"] = 2_860_000
    assert table(render(result), title)[1:] == rows[:1]
    near["scaled"] = None
    assert table(render(result), title)[1:] == [["cycles:H", "emulated", "<not", "counted>"], *rows[:1]]
    far["truth"] = 0
    assert [row[1] for row in table(render(result), title)[1:]] == ["emulated", "partitioned"]
    near["truth"], far["scaled"] = 0, 0
    assert title not in render(result)


def test_events_of_one_name_are_told_apart_by_their_sessions_and_within_one_by_number(result: dict[str, Any]) -> None:
    for run in result["runs"]:
        (event,) = run["host"]["events"]
        run["host"]["events"] = [
            event | {"session": session, "event": name, "scaled": 1}
            for session, name in (
                ("host.perf.0", "cycles:H"),
                ("host.perf.0", "cycles:H"),
                ("host.perf.0", "cycles:G"),
                ("host.perf.1", "cycles:H"),
                ("", "cycles:H"),
            )
        ]
    *opened, last = result["runs"][1]["host"]["events"]
    result["runs"][1]["host"]["events"] = opened[:3]
    result["runs"][1]["host"]["refused"] = [
        {"session": one["session"], "event": one["event"], "reason": "it counts"} for one in (opened[3], last)
    ]
    text = render(result, why=True)
    names = [
        "cycles:H (host.perf.0)",
        "cycles:H (host.perf.0) #2",
        "cycles:G",
        "cycles:H (host.perf.1)",
        "cycles:H",
    ]
    for title in ("host: event  ", "host: error by cause", "Host events more than 5 %"):
        (block,) = (block for block in text.split("\n\n") if block.startswith(title))
        firsts = [re.split("  +", line.strip())[0] for line in block.splitlines()[1:] if "refuses" not in line]
        assert [name for name in dict.fromkeys(firsts) if ":" in name] == names, title
    assert "\npartitioned refuses cycles:H (host.perf.1): it counts\n" in text
    assert " ".join(text.split()).count("nothing cycles:H (host.perf.1), cycles:H ") == 1, "in the summary"


@pytest.mark.parametrize("nth", [0, 1])
def test_an_event_stands_beside_itself_where_another_of_its_name_is_refused(result: dict[str, Any], nth: int) -> None:
    opens, refuses = (run["host"] for run in result["runs"])
    (event,) = refuses["events"]
    opens["events"] = [event | {"truth": truth} for truth in (111, 222)]
    refuses["events"] = [event | {"truth": (222, 111)[nth]}]
    refuses["refused"] = [{"session": event["session"], "event": "cycles:H", "reason": "it counts guests", "nth": nth}]
    text = render(result)
    _, *rows = table(text, "host: event  ")
    truths = [row[-5] if "refused" not in row else "refused" for row in rows[:4]]
    assert truths == [["111", "refused", "222", "222"], ["111", "111", "222", "refused"]][nth]
    name = ("cycles:H", "cycles:H #2")[nth]
    assert f"\npartitioned refuses {name}: it counts guests\n" in text


def test_a_design_that_cannot_be_had_is_a_column_that_says_why(result: dict[str, Any]) -> None:
    result["failures"] = [REFUSAL]
    text = render(result)
    summary = text.split("\n\n")[2]
    assert summary.splitlines()[0].split() == ["emulated", "mediated", "partitioned"]
    told = [line.removeprefix("not available").strip() for line in summary.splitlines()[-4:]]
    assert " ".join(told).endswith("the CPU lacks what it needs; change the design")
    assert "mediated" not in text.split("\n\n", 3)[3]


def test_a_run_that_failed_is_a_column_that_says_why(result: dict[str, Any]) -> None:
    died = {**REFUSAL, "index": 0, "refused": False, "problem": "its process was killed by SIGKILL", "remedy": ""}
    result["failures"], result["runs"] = [died], result["runs"][1:]
    summary = render(result).split("\n\n")[2]
    assert summary.splitlines()[0].split() == ["mediated", "partitioned"]
    assert "failed" in summary
    assert "not available" not in summary


def test_nothing_but_failures_is_still_a_table(result: dict[str, Any]) -> None:
    result["failures"], result["runs"] = [{**REFUSAL, "index": 0, "refused": False}], []
    assert "mediated" in render(result)
