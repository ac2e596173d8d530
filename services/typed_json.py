"""Frozen dataclasses as JSON and back: what an experiment, a boot payload and a request are made of.

A reader for each type is made once, from its annotations, and kept.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import repeat
from typing import Any, TypeVar

import orjson

T = TypeVar("T")

_Reader = Callable[[Any], Any]  # of a JSON value; raises _Misfit


class _Misfit(Exception):
    """A value that does not fit. Its place is put together on the way out: of values that fit, nobody asks for it."""

    def __init__(self, why: str, place: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.place = place

    def within(self, outer: str) -> _Misfit:
        return _Misfit(self.why, outer + self.place)


def dumps(value: Any) -> bytes:
    """A dataclass as JSON."""
    return orjson.dumps(value)


def loads(kind: type[T], text: bytes, name: str = "") -> T:
    """JSON as `dumps` made it, back to `kind`. Raises ValueError naming the field, of `name`, that does not fit."""
    return read(kind, orjson.loads(text), name)


def read(kind: type[T], value: Any, name: str = "") -> T:
    """A JSON value as `kind`; see `loads`."""
    try:
        found: T = _reader(kind)(value)
    except _Misfit as misfit:
        raise ValueError(f"{name or kind.__name__}{misfit.place}: {misfit.why}") from None
    return found


def _made(kind: Any) -> _Reader:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _optional(_reader(next(one for one in arguments if one is not type(None))))
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return _sequence(_reader(arguments[0]))
        return _fixed([_reader(one) for one in arguments])
    if origin is dict:
        return _mapping(_reader(arguments[1]))
    if dataclasses.is_dataclass(kind):
        return _dataclass(typing.cast("type[Any]", kind))
    return _plain(kind)


_reader: Callable[[Any], _Reader] = cache(_made)


def _optional(of: _Reader) -> _Reader:
    return lambda value: None if value is None else of(value)


def _sequence(of: _Reader) -> _Reader:
    return lambda value: _elements(_list(value), repeat(of))


def _fixed(of: list[_Reader]) -> _Reader:
    def read_fixed(value: Any) -> Any:
        elements = _list(value)
        if len(elements) != len(of):
            raise _Misfit(f"{len(of)} elements are wanted, not {len(elements)}")
        return _elements(elements, of)

    return read_fixed


def _elements(elements: list[Any], readers: Iterable[_Reader]) -> tuple[Any, ...]:
    found: list[Any] = []
    try:
        for one, reader in zip(elements, readers, strict=False):
            found.append(reader(one))
    except _Misfit as misfit:
        raise misfit.within(f"[{len(found)}]") from None
    return tuple(found)


def _mapping(of: _Reader) -> _Reader:
    def read_mapping(value: Any) -> Any:
        given = _object(value)
        return _entries(given, dict.fromkeys(given, of))

    return read_mapping


def _entries(given: dict[str, Any], readers: Mapping[str, _Reader]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    name = ""
    try:
        for name, one in given.items():
            found[name] = readers[name](one)
    except _Misfit as misfit:
        raise misfit.within(f".{name}") from None
    return found


def _dataclass(kind: type[Any]) -> _Reader:
    hints = typing.get_type_hints(kind)
    fields = [field for field in dataclasses.fields(kind) if field.init]
    readers = {field.name: _reader(hints[field.name]) for field in fields}
    needed = [
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]

    def check(given: dict[str, Any]) -> None:
        unknown = sorted(given.keys() - readers.keys())
        if unknown:
            raise _Misfit(f"unknown field {unknown[0]!r}")
        for name in needed:
            if name not in given:
                raise _Misfit(f"field {name!r} is missing")

    def read_dataclass(value: Any) -> Any:
        given = _object(value)
        if given.keys() != readers.keys():
            check(given)
        return kind(**_entries(given, readers))

    return read_dataclass


def _plain(kind: type) -> _Reader:
    def read_plain(value: Any) -> Any:
        if type(value) is not kind:
            raise _Misfit(f"{kind.__name__} is wanted, not {value!r}")
        return value

    return read_plain


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _Misfit(f"a list is wanted, not {value!r}")
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Misfit(f"an object is wanted, not {value!r}")
    return value
