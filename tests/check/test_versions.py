"""docs/versions.md is what its data gives, and each counterexample in the data is one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from docs import posted, versions
from docs.posted import VERSIONS, Kept
from pmulab.check.worlds import decks, worlds
from tests.check.searching import job, searched_knowing

KEPT = posted.read()


def test_every_version_has_been_searched() -> None:
    assert tuple(KEPT) == VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
def test_each_counterexample_is_found_again_and_reads_the_same(version: str) -> None:
    for one in KEPT[version].found:
        assert one.replayed(version) == one, one.name


@pytest.mark.parametrize("version", VERSIONS)
def test_they_are_of_worlds_and_decks_that_there_are_and_each_is_there_once(version: str) -> None:
    found = KEPT[version].found
    assert all(one.world in worlds() and one.deck in decks() for one in found)
    assert len({one.signature for one in found}) == len(found)


def test_what_is_found_no_more_is_not_said_to_be() -> None:
    one = KEPT["v8"].found[0]
    assert replace(one, steps=one.steps[:-1]).replayed("v8") is None


def test_each_is_attributed_and_nothing_else_is() -> None:
    causes, meaning = versions.causes()
    assert versions.not_attributed(KEPT, causes.values()) == []
    numbers = {number for cause in causes.values() for number in cause.corresponds}
    assert numbers - {"new", "emulated"} == set(meaning)


def test_one_that_is_not_attributed_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = KEPT["v8"].found
    stranger: Kept = replace(found[0], signature=replace(found[0].signature, invariant="I12"))
    monkeypatch.setattr(posted, "read", lambda: {**KEPT, "v8": replace(KEPT["v8"], found=(*found, stranger))})
    assert versions.main([]) == 1
    assert capsys.readouterr().err == f"v8: {stranger.name}: not attributed\n"


def test_a_version_that_there_is_not_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert versions.main(["v10"]) == 2
    assert "v10" in capsys.readouterr().err


def test_a_search_that_takes_too_long_goes_on_where_it_was_put_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posted, "PUT_BY", tmp_path)
    monkeypatch.setattr(posted, "_jobs", lambda _: iter([job("partitioned-v8", "swap", "pair", walks=2)] * 2))
    times = iter([False, True])
    assert posted.searched("v8", lambda: next(times)) is None
    whole = posted.searched("v8", lambda: False)
    assert whole is not None
    assert whole == posted.searched("v8", lambda: False)
    assert whole.found


def test_what_is_known_is_not_looked_for() -> None:
    first = searched_knowing("partitioned-v8", "swap", "pair", ())
    known = [one.signature for one in first.found]
    assert known
    assert searched_knowing("partitioned-v8", "swap", "pair", known).found == []


def test_the_page_is_what_the_data_gives() -> None:
    assert versions.PAGE.read_text() == versions.page(KEPT), "run python -m docs.versions"
