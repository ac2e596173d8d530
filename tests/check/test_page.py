"""docs/check.md shows what the search prints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from docs import check, check_long
from pmulab.check.worlds import decks, worlds
from tests.check.searching import searched


def test_the_example_is_what_is_printed_today() -> None:
    assert check.page() == check.PAGE.read_text(), "run python -m docs.check"


def test_what_the_page_says_of_decks_is_so() -> None:
    assert {name for name, deck in decks().items() if deck.amid} == {"amid", "away"}
    assert {name for name, deck in decks().items() if deck.overflows} == {"sampling"}
    assert [name for name, deck in decks().items() if deck.every_register] == ["registers"]
    assert max(len(deck.actions) for deck in decks().values()) <= 17
    assert len(worlds()) > 10


def test_the_figures_of_the_long_search_are_of_what_was_done() -> None:
    assert check_long.page() == check_long.PAGE.read_text(), "run python -m docs.check_long --page"


def test_what_the_long_search_finds_stands_on_its_page_until_the_same_part_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_long, "DONE", tmp_path / "done.jsonl")
    part = next(job for job in check_long.jobs() if job.deck.name == "types")
    for design, found in (("partitioned-v6", True), ("partitioned", False)):
        of_design = searched(design, part.deck.name, part.world.name, depth=2, walks=0)
        with check_long.DONE.open("ab") as file:
            file.write(orjson.dumps(check_long.line_of(replace(of_design, job=part), "a commit")) + b"\n")
        assert ("**0 undeclared violations**." not in check_long.page()) == found
        assert (f"in {check_long.name(part)}: " in check_long.page()) == found
        assert (part in check_long.left()) == found


def test_the_long_search_has_every_deck_in_every_world() -> None:
    jobs = list(check_long.jobs())
    assert len({check_long.name(job) for job in jobs}) == len(jobs)
    assert {(job.deck.name, job.world.name) for job in jobs if not job.depth} == {
        (deck.name, world) for deck in decks().values() for world in deck.worlds
    }
