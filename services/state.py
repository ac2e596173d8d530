"""State as data: what an object has to keep between entries is one dataclass, saved and restored by its fields.

    @dataclass(slots=True)
    class TimerState:
        deadline: int = NEVER
        expired: list[int] = field(default_factory=list)
        cost: int = derived(default=0)  # follows from what the timer is, so it is neither saved nor restored

    saved = save(state)      # plain data, JSON-able, that shares nothing with `state` that can change
    restore(state, saved)    # into the living object, from what `save` gave or from that after JSON

What refers to other objects is a `link`: it is saved as their ids, and restored from tables of them.

An object is its state dataclass, or holds one as `state` and names every other attribute of its in `DERIVED`: what
follows from its configuration, and the other objects that it knows, which have states of their own.
"""

from __future__ import annotations

import copy
import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import cache, partial
from operator import attrgetter
from typing import Any, TypeVar

from services.typed_json import read

Saved = dict[str, Any]
Objects = Mapping[type, Mapping[int, Any]]  # by their type, and by their id

_Convert = Callable[[Any], Any]
_Both = tuple[_Convert, _Convert]  # of a value when it is saved, and back
T = TypeVar("T")

_PLAIN = (int, bool, float, str, types.NoneType)
_DERIVED = types.MappingProxyType({"derived": True})
_LINK = types.MappingProxyType({"link": True})


def derived(**options: Any) -> Any:
    """A field that follows from others, or from what the object was made of. `options` are dataclasses.field's."""
    return dataclasses.field(repr=False, compare=False, metadata=_DERIVED, **options)


def link(**options: Any) -> Any:
    """A field that refers to an object with an `id`, a list of them, or the values of a dict; None is no object."""
    return dataclasses.field(repr=False, compare=False, metadata=_LINK, **options)


def save(state: Any) -> Saved:
    """The fields of a state dataclass by name, as plain data."""
    fields = _fields(type(state))
    saved = dict(zip(fields.names, fields.get(state), strict=True))
    for name, out in fields.out:
        saved[name] = out(saved[name])
    return saved


def restore(state: Any, saved: Saved, objects: Objects = types.MappingProxyType({})) -> None:
    """Take up what `save` gave. Links are looked up in `objects`. Raises KeyError for what is missing."""
    fields = _fields(type(state))
    for name in fields.plain:
        setattr(state, name, saved[name])
    for name, back in fields.back:
        setattr(state, name, back(saved[name]))
    for name, kind, found in fields.links:
        setattr(state, name, found(objects[kind], saved[name]))
    for name in fields.nested:
        restore(getattr(state, name), saved[name], objects)


def as_frozen(kind: type[T], saved: Any) -> T:
    """What `save` kept of a frozen dataclass: itself, or after JSON an object."""
    return saved if isinstance(saved, kind) else read(kind, saved)


def names(kind: type) -> frozenset[str]:
    """The names of a state dataclass's fields that are saved."""
    return frozenset(_fields(kind).names)


@dataclasses.dataclass(frozen=True, slots=True)
class _Fields:
    names: tuple[str, ...]
    get: Callable[[Any], tuple[Any, ...]]
    plain: tuple[str, ...]
    out: tuple[tuple[str, _Convert], ...]
    back: tuple[tuple[str, _Convert], ...]
    links: tuple[tuple[str, type, Callable[[Mapping[int, Any], Any], Any]], ...]
    nested: tuple[str, ...]  # state dataclasses: restored in place


def _made(kind: Any) -> _Fields:
    hints = typing.get_type_hints(kind)
    kept = [field.name for field in dataclasses.fields(kind) if "derived" not in field.metadata]
    links = {field.name: _linked(hints[field.name]) for field in dataclasses.fields(kind) if "link" in field.metadata}
    nested = tuple(name for name in kept if name not in links and _is_state(hints[name]))
    values = [name for name in kept if name not in links and name not in nested]
    both = {name: both for name in values if (both := _conversion(hints[name])) is not None}
    get = attrgetter(*kept)
    return _Fields(
        names=tuple(kept),
        get=get if len(kept) > 1 else lambda state: (get(state),),
        plain=tuple(name for name in values if name not in both),
        out=(
            *((name, out) for name, (out, _) in both.items()),
            *((name, ids) for name, (_, ids, _) in links.items()),
            *((name, save) for name in nested),
        ),
        back=tuple((name, back) for name, (_, back) in both.items()),
        links=tuple((name, target, found) for name, (target, _, found) in links.items()),
        nested=nested,
    )


_fields: Callable[[Any], _Fields] = cache(_made)


def _is_state(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind) and not _frozen(kind)


def _frozen(kind: Any) -> bool:
    frozen: bool = kind.__dataclass_params__.frozen
    return frozen


def _conversion(kind: Any) -> _Both | None:
    """How a value of type `kind` is saved and taken up again; None if it stays what it is."""
    if kind in _PLAIN:
        return None
    if kind is bytes:
        return bytes.decode, str.encode
    if isinstance(kind, type) and issubclass(kind, IntEnum):
        return int, kind
    if dataclasses.is_dataclass(kind) and _frozen(kind):
        return _same, partial(as_frozen, typing.cast("type[Any]", kind))
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _optional(_conversion(next(one for one in arguments if one is not types.NoneType)))
    if origin is list:
        return _list(_conversion(arguments[0]))
    if origin is tuple and all(one is Ellipsis or _conversion(one) is None for one in arguments):
        return list, tuple
    if origin is set and _conversion(arguments[0]) is None:
        return sorted, set
    if origin is dict and _conversion(arguments[0]) is None:
        return _dict(_conversion(arguments[1]))
    return copy.deepcopy, copy.deepcopy


def _linked(kind: Any) -> tuple[type, _Convert, Callable[[Mapping[int, Any], Any], Any]]:
    """What a link of type `kind` refers to, its ids, and the objects for ids."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        return _target(arguments[0]), _ids, lambda objects, ids: [None if i is None else objects[i] for i in ids]
    if origin is dict:
        return (
            _target(arguments[1]),
            lambda value: [[key, one.id] for key, one in value.items()],
            lambda objects, ids: {key: objects[i] for key, i in ids},
        )
    return _target(kind), _id, lambda objects, i: None if i is None else objects[i]


def _target(kind: Any) -> type:
    named: type = next((one for one in typing.get_args(kind) if one is not types.NoneType), kind)
    return named


def _id(value: Any) -> int | None:
    return None if value is None else value.id


def _ids(value: list[Any]) -> list[int | None]:
    return [None if one is None else one.id for one in value]


def _same(value: Any) -> Any:
    return value


def _optional(of: _Both | None) -> _Both | None:
    if of is None:
        return None
    out, back = of
    return (
        lambda value: None if value is None else out(value),
        lambda saved: None if saved is None else back(saved),
    )


def _list(of: _Both | None) -> _Both:
    if of is None:
        return list, list
    out, back = of
    return (lambda value: [out(one) for one in value]), (lambda saved: [back(one) for one in saved])


def _dict(of: _Both | None) -> _Both:
    """A list of [key, value] in order: JSON's keys are strings."""
    if of is None:
        return (lambda value: [list(pair) for pair in value.items()]), dict
    out, back = of
    return (
        lambda value: [[key, out(one)] for key, one in value.items()],
        lambda saved: {key: back(one) for key, one in saved},
    )
