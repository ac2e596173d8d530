"""docs/check.md shows what the search prints."""

from __future__ import annotations

from docs import check, check_long
from pmulab.check.worlds import decks, worlds


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
    assert all(line["found"] == 0 for line in check_long.done())


def test_the_long_search_has_every_deck_in_every_world() -> None:
    jobs = list(check_long.jobs())
    assert len({check_long.name(job) for job in jobs}) == len(jobs)
    assert {(job.deck.name, job.world.name) for job in jobs if not job.depth} == {
        (deck.name, world) for deck in decks().values() for world in deck.worlds
    }
