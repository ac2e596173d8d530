"""Where a TOML document is wrong is known from what its parser's error holds, not from how it is worded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli

from services.errors import UserError
from services.tables import Document


def refused(text: str) -> UserError:
    with pytest.raises(UserError) as caught:
        Document("own.toml", Path(), text)
    return caught.value


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\nb == 2\nc = 3\n", 2),
        ("a = 1\r\nb == 2\r\n", 2),
        ("a = [\n1,\n\n\n", 2),  # it ends too early: where its last words are
        ('a = """\n\n', 1),
        ("[a", 1),
    ],
)
def test_a_syntax_error_is_named_with_its_line(text: str, line: int) -> None:
    assert refused(text).where == f"own.toml:{line}"


def test_the_line_does_not_hang_on_the_parsers_wording(monkeypatch: pytest.MonkeyPatch) -> None:
    def loads(text: str, **_: Any) -> None:
        raise tomli.TOMLDecodeError("Something else (at line 9, column 9)", text, text.index("b"))

    monkeypatch.setattr(tomli, "loads", loads)
    error = refused("a = 1\n\nb = 2\n")
    assert (error.where, error.problem) == (
        "own.toml:3",
        "not valid TOML: something else (at line 9, column 9)",
    )
