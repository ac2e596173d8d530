"""docs/check.md shows what the search prints."""

from __future__ import annotations

from docs import check
from pmulab.check.worlds import decks, worlds


def test_the_example_is_what_is_printed_today() -> None:
    assert check.page() == check.PAGE.read_text(), "run python -m docs.check"


def test_what_the_page_says_of_decks_is_so() -> None:
    assert {name for name, deck in decks().items() if deck.amid} == {"amid", "away"}
    assert [name for name, deck in decks().items() if deck.every_register] == ["registers"]
    assert max(len(deck.actions) for deck in decks().values()) <= 17
    assert len(worlds()) > 10
