"""Frozen dataclasses as JSON and back: what an experiment, a boot payload and a request are made of.

A reader for each type is made once, from its annotations, and kept.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import orjson

T = TypeVar("T")

_Reader = Callable[[Any, str], Any]  # of a JSON value, and of its place, for the error


def dumps(value: Any) -> bytes:
    """A dataclass as JSON."""
    return orjson.dumps(value)


def loads(kind: type[T], text: bytes, name: str = "") -> T:
    """JSON as `dumps` made it, back to `kind`. Raises ValueError naming the field, of `name`, that does not fit."""
    return read(kind, orjson.loads(text), name)


def read(kind: type[T], value: Any, name: str = "") -> T:
    """A JSON value as `kind`; see `loads`."""
    found: T = _reader(kind)(value, name or kind.__name__)
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
    return lambda value, where: None if value is None else of(value, where)


def _sequence(of: _Reader) -> _Reader:
    def read_sequence(value: Any, where: str) -> Any:
        elements = _list(value, where)
        return tuple(of(one, f"{where}[{index}]") for index, one in enumerate(elements))

    return read_sequence


def _fixed(of: list[_Reader]) -> _Reader:
    def read_fixed(value: Any, where: str) -> Any:
        elements = _list(value, where)
        if len(elements) != len(of):
            raise ValueError(f"{where}: {len(of)} elements are wanted, not {len(elements)}")
        return tuple(one(element, f"{where}[{i}]") for i, (one, element) in enumerate(zip(of, elements, strict=True)))

    return read_fixed


def _mapping(of: _Reader) -> _Reader:
    return lambda value, where: {key: of(one, f"{where}.{key}") for key, one in _object(value, where).items()}


def _dataclass(kind: type[Any]) -> _Reader:
    hints = typing.get_type_hints(kind)
    fields = [field for field in dataclasses.fields(kind) if field.init]
    readers = {field.name: _reader(hints[field.name]) for field in fields}
    needed = [
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]

    def read_dataclass(value: Any, where: str) -> Any:
        given = _object(value, where)
        unknown = sorted(given.keys() - readers.keys())
        if unknown:
            raise ValueError(f"{where}: unknown field {unknown[0]!r}")
        for name in needed:
            if name not in given:
                raise ValueError(f"{where}: field {name!r} is missing")
        return kind(**{name: readers[name](one, f"{where}.{name}") for name, one in given.items()})

    return read_dataclass


def _plain(kind: type) -> _Reader:
    def read_plain(value: Any, where: str) -> Any:
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ValueError(f"{where}: {kind.__name__} is wanted, not {value!r}")
        return value

    return read_plain


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{where}: a list is wanted, not {value!r}")
    return value


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: an object is wanted, not {value!r}")
    return value
