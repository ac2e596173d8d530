"""A mutant in the place of the code that it is one of: the code of the living functions is exchanged, and put back."""

from __future__ import annotations

import ast
import functools
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType

from tests.mutation.source import Mutant, mutated, path_of


@contextmanager
def applied(one: Mutant) -> Iterator[None]:
    """While it is, no simulation made before may run."""
    path = str(path_of(one.module))
    inner = f"{one.function}.<locals>"
    functions = [
        function
        for function in _living(path)
        if function.__qualname__ == one.function or function.__qualname__.startswith(inner)
    ]
    tree = mutated(one)
    _keep_cells(tree, {function.__qualname__: function.__code__.co_freevars for function in functions})
    of_name = _codes(compile(ast.fix_missing_locations(tree), path, "exec"))
    before = [(function, function.__code__) for function in functions]
    _forget()
    try:
        for function, code in before:
            function.__code__ = of_name[code.co_qualname]
        yield
    finally:
        for function, code in before:
            function.__code__ = code
        _forget()


@functools.cache
def _living(path: str) -> list[FunctionType]:
    """The functions of a file, those among them that are made by others. They are all made on import."""
    return [one for one in gc.get_objects() if isinstance(one, FunctionType) and one.__code__.co_filename == path]


def _codes(code: CodeType) -> dict[str, CodeType]:
    found = {code.co_qualname: code}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _codes(constant)
    return found


def _keep_cells(tree: ast.AST, cells: dict[str, tuple[str, ...]], outer: str = "") -> None:
    """Each name of an enclosing scope stays one in a function: its cells cannot change in number."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            _keep_cells(node, cells, f"{outer}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{outer}{node.name}"
            if cells.get(name):
                unused = ast.parse("; ".join(cells[name])).body
                node.body.insert(0, ast.If(ast.Constant(value=False), unused, []))
            _keep_cells(node, cells, f"{name}.<locals>.")


@functools.cache
def _caches() -> list[functools._lru_cache_wrapper[object]]:
    every = (one for one in gc.get_objects() if isinstance(one, functools._lru_cache_wrapper))
    return [one for one in every if "designs.partitioned" in (one.__module__ or "")]


def _forget() -> None:
    """What functions have found by the code before."""
    for one in _caches():
        one.cache_clear()
