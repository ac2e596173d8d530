"""Lines of a TOML document's keys, for every way in which TOML writes a key."""

from __future__ import annotations

from typing import Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from services.toml_lines import Path, lines_of


@pytest.mark.parametrize(
    ("document", "path", "line"),
    [
        ("a = 1\nb = 2\n", ("b",), 2),
        ("# comment\n\n[machine]\ncounters = 10 # why\n", ("machine", "counters"), 4),
        ("[machine]\n", ("machine",), 1),
        ("\n'quoted key'.\"x\\u0041\" = 1", ("quoted key", "xA"), 2),
        ("\na.b . c = 1", ("a", "b", "c"), 2),
        ("[[guest]]\n[[guest]]\nhz = 250\n", ("guest", 1, "hz"), 3),
        ("[[guest]]\n[[guest.task]]\n[[guest.task]]\n[guest.task.perf]\nx=1", ("guest", 0, "task", 1, "perf", "x"), 5),
        ("[[ a . 'b' ]]\nx = 1", ("a", "b", 0, "x"), 2),
        ('e = [\n  "a", # one\n  "b,]",\n  [1,\n 2],\n]\nf = 1', ("e", 2, 1), 5),
        ('e = [\n  "a",\n]\nf = 1', ("f",), 4),
        ("p = { verb = 'stat', d = { 'k' = [{a = 1}] } }", ("p", "d", "k", 0, "a"), 1),
        ('t = """\nx = 1\n\\""" ""\n"""\nu = 1', ("u",), 5),
        ('t = """a""""\nu = """"b"""""\nv = 2', ("v",), 3),
        ("t = '''\n[no]\n'''\nu = 1", ("u",), 4),
        ("d = 1979-05-27 07:32:00Z # c\nu = 1", ("u",), 2),
        ("a = 1\r\nb = 2\r\n[c]\r\nd = 'x'", ("c", "d"), 4),
        ("a={x.y=1,z=[ ]}\nb=[]\nc={}\nd=1", ("d",), 4),
    ],
)
def test_a_key_is_found_on_its_line(document: str, path: Path, line: int) -> None:
    tomli.loads(document)
    assert lines_of(document)[path] == line


_keys = st.one_of(st.from_regex(r"[A-Za-z0-9_-]{1,4}", fullmatch=True), st.text(max_size=4))
_scalars = st.one_of(st.integers(-(2**63), 2**63 - 1), st.booleans(), st.text(max_size=6), st.floats(allow_nan=False))
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_keys, inner, max_size=3)),
    max_leaves=8,
)


def _basic(text: str) -> str:
    escaped = "".join(c if c.isprintable() and c not in '"\\' and c.isascii() else f"\\U{ord(c):08x}" for c in text)
    return f'"{escaped}"'


def _text(value: Any) -> str:
    """The value as TOML, arrays spread over lines with comments."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "'''\n" + value + "'''" if value.isascii() and value.isalnum() else _basic(value)
    if isinstance(value, list):
        return "[ # [\n" + "".join(f"{_text(element)}, # ]\n" for element in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_basic(key)} = {_text(element)}" for key, element in value.items()) + "}"
    if isinstance(value, float):
        return repr(value) if value not in (float("inf"), float("-inf")) else str(value)
    return str(value)


def _paths(value: Any, path: Path) -> set[Path]:
    found = {path} if path else set()
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, child in children:
        found |= _paths(child, (*path, step))
    return found


@given(st.dictionaries(_keys, _values, max_size=5), st.integers(0, 3))
def test_every_path_of_a_document_has_a_line_and_no_other(data: dict[str, Any], blank: int) -> None:
    document = "".join("\n" * blank + f"{_basic(key)} = {_text(value)}\n" for key, value in data.items())
    parsed = tomli.loads(document)
    lines = lines_of(document)
    assert set(lines) == _paths(parsed, ())
    top = [lines[(key,)] for key in data]
    assert top == sorted(top)
    for key in data:
        assert document.split("\n")[lines[(key,)] - 1].startswith(_basic(key))
