"""What an error says is for people: code goes by its type and its attributes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = [path for room in ("services", "pmulab") for path in (ROOT / room).rglob("*.py")]
TEXTS = {"args", "details", "message", "msg", "problem", "strerror"}
READS = {"count", "endswith", "find", "index", "partition", "removeprefix", "rpartition", "split", "startswith"}


def texts(node: ast.AST, error: str) -> Iterator[ast.AST]:
    """Where the text of the exception `error` is taken within `node`."""
    for inner in ast.walk(node):
        match inner:
            case ast.Call(func=ast.Name(id="str" | "repr"), args=[ast.Name(id=name)]) if name == error:
                yield inner
            case ast.FormattedValue(value=ast.Name(id=name)) if name == error:
                yield inner
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name == error and attribute in TEXTS:
                yield inner


def parses(node: ast.AST) -> bool:
    """Does it look into a text, rather than pass it on?"""
    match node:
        case ast.Compare() | ast.Match():
            return True
        case ast.Call(func=ast.Attribute(value=ast.Name(id="re"))):
            return True
        case ast.Call(func=ast.Attribute(attr=name)):
            return name in READS
    return False


def parsed(tree: ast.AST) -> list[int]:
    """The lines on which the text of an exception that was caught is parsed."""
    return [
        node.lineno
        for handler in ast.walk(tree)
        if isinstance(handler, ast.ExceptHandler) and handler.name is not None
        for node in ast.walk(handler)
        if isinstance(node, ast.expr | ast.stmt) and parses(node) and any(texts(node, handler.name))
    ]


def test_no_code_parses_an_errors_text() -> None:
    found = {str(path.relative_to(ROOT)): parsed(ast.parse(path.read_text(encoding="utf-8"))) for path in MODULES}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "code", ['"line 3" in str(error)', 're.search("x", f"{error}")', 'error.args[0] == "x"', 'error.msg.split(":")']
)
def test_what_parses_it_is_found(code: str) -> None:
    assert parsed(ast.parse(f"try:\n    work()\nexcept ValueError as error:\n    found = {code}\n")) == [4]
