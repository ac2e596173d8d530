"""docs/check.md has every field of `pmulab check --json`, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from docs import check
from pmulab.check import mail
from pmulab.check.finding import replayed, shortest_of
from tests.check.searching import searched


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """Of a design that is found something of."""
    part = searched("partitioned-v7", "swap", "pair", walks=4)
    shortest, of = shortest_of([part])[0]
    finding = replayed("partitioned-v7", shortest, of, Path("there"))
    plain: dict[str, Any] = orjson.loads(orjson.dumps(mail.as_json("partitioned-v7", [part], [finding])))
    return plain


def section(title: str) -> str:
    return check.PAGE.read_text().split(f"\n{title}\n")[1].split("\n#")[0]


def fields(text: str) -> set[str]:
    """Those that head a row."""
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_of_a_design(told: dict[str, Any]) -> None:
    assert told.keys() == {"design", "findings", "decks"}
    assert all(f"`{key}`" in section("## As JSON") for key in told)


@pytest.mark.parametrize("key", ["findings", "decks"])
def test_of_each_element(told: dict[str, Any], key: str) -> None:
    assert fields(section(f"### An element of `{key}`")) == told[key][0].keys()


def test_of_a_cause(told: dict[str, Any]) -> None:
    cause = told["findings"][0]["cause"]
    (row,) = (line for line in section("### An element of `findings`").splitlines() if line.startswith("| `cause` "))
    assert {*re.findall(r"`(\w+)`", row)} - {"cause"} == cause.keys() | cause["parts"][0].keys()
