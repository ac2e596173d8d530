"""State as data: what an object has to keep between entries is one dataclass, saved and restored by its fields.

    @dataclass(slots=True)
    class TimerState:
        deadline: int = NEVER
        expired: list[int] = field(default_factory=list)
        cost: int = derived(default=0)  # follows from what the timer is, so it is neither saved nor restored

    saved = save(state)      # plain data, JSON-able, that shares nothing with `state` that can change
    restore(state, saved)    # into the living object, from what `save` gave or from that after JSON

What refers to other objects is a `link`: it is saved as their ids, and restored from tables of them.

An object is its state dataclass, or derives from it and names every other attribute of its in `DERIVED`: what follows
from its configuration, and the other objects that it knows, which have states of their own.
"""

from __future__ import annotations

import copy
import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import cache
from typing import Any, TypeVar

from services.typed_json import read

Saved = dict[str, Any]
Objects = Mapping[type, Mapping[int, Any]]  # by their type, and by their id

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
    return _save[type(state)](state)


def restore(state: Any, saved: Saved, objects: Objects = types.MappingProxyType({})) -> None:
    """Take up what `save` gave. Links are looked up in `objects`. Raises KeyError for what is missing."""
    _restore[type(state)](state, saved, objects)


def as_frozen(kind: type[T], saved: Any) -> T:
    """What `save` kept of a frozen dataclass: itself, or after JSON an object."""
    return saved if isinstance(saved, kind) else read(kind, saved)


def names(kind: type) -> frozenset[str]:
    """The names of a state dataclass's fields that are saved."""
    return frozenset(field.name for field in _kept(kind))


# A state is saved by the million, so each type has functions of its own, written out like those of a dataclass.


class _SaveByType(dict[type, Callable[[Any], Saved]]):
    def __missing__(self, kind: type) -> Callable[[Any], Saved]:
        made = self[kind] = _functions(kind)[0]
        return made


class _RestoreByType(dict[type, Callable[[Any, Saved, Objects], None]]):
    def __missing__(self, kind: type) -> Callable[[Any, Saved, Objects], None]:
        made = self[kind] = _functions(kind)[1]
        return made


_save = _SaveByType()
_restore = _RestoreByType()


@cache
def _functions(kind: type) -> tuple[Callable[[Any], Saved], Callable[[Any, Saved, Objects], None]]:
    """The functions that save and restore a state dataclass."""
    hints = typing.get_type_hints(kind)
    namespace: dict[str, Any] = {"save_by_type": _save, "restore_by_type": _restore}
    items, statements = [], []
    for field in _kept(kind):
        name, of = field.name, hints[field.name]
        attribute, value = f"state.{name}", f"saved[{name!r}]"
        if "link" in field.metadata:
            target = f"{name}_target"
            namespace[target] = _target(of)
            out, back = _link(of, attribute, value, f"objects[{target}]")
        elif dataclasses.is_dataclass(of) and not _frozen(of):  # a state of its own, which stays where it is
            out = f"save_by_type[type({attribute})]({attribute})"
            statements.append(f"restore_by_type[type({attribute})]({attribute}, {value}, objects)")
            items.append(f"{name!r}: {out}")
            continue
        else:
            out, back = (
                code.replace("$", on) for code, on in zip(_value(of, namespace), (attribute, value), strict=True)
            )
        items.append(f"{name!r}: {out}")
        statements.append(f"{attribute} = {back}")
    source = (
        f"def save(state):\n    return {{{', '.join(items)}}}\n"
        f"def restore(state, saved, objects):\n    {'; '.join(statements) or 'pass'}\n"
    )
    exec(compile(source, f"<state of {kind.__qualname__}>", "exec"), namespace)
    return namespace["save"], namespace["restore"]


def _kept(kind: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(kind) if "derived" not in field.metadata]


def _frozen(kind: Any) -> bool:
    frozen: bool = kind.__dataclass_params__.frozen
    return frozen


def _value(kind: Any, namespace: dict[str, Any]) -> tuple[str, str]:
    """How a value of type `kind`, `$`, is saved and taken up again: expressions, and in `namespace` what they name."""
    if kind in _PLAIN:
        return "$", "$"
    if kind is bytes:
        return "$.decode()", "$.encode()"
    if isinstance(kind, type) and issubclass(kind, IntEnum):
        return "int($)", f"{_named(kind, namespace)}($)"
    if dataclasses.is_dataclass(kind) and _frozen(kind):
        name = _named(typing.cast("type", kind), namespace)
        namespace["as_frozen"] = as_frozen
        return "$", f"(one if (one := $).__class__ is {name} else as_frozen({name}, one))"
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        out, back = _value(_not_none(kind), namespace)
        return _unless_none(out), _unless_none(back)
    if origin is tuple and all(one is Ellipsis or one in _PLAIN for one in arguments):
        return "$", "tuple($)"
    if origin is set and arguments[0] in _PLAIN:
        return "sorted($)", "set($)"
    if origin is list:
        out, back = _value(arguments[0], namespace)
        return _each(out), _each(back)
    if origin is dict and arguments[0] in _PLAIN:  # a list of (key, value) in order: JSON's keys are strings
        out, back = _value(arguments[1], namespace)
        saved = (
            "[*$.items()]" if out == "$" else _if_any(f"[(key, {out.replace('$', 'item')}) for key, item in $.items()]")
        )
        return saved, "dict($)" if back == "$" else _if_any(f"{{key: {back.replace('$', 'item')} for key, item in $}}")
    namespace["deepcopy"] = copy.deepcopy
    return "deepcopy($)", "deepcopy($)"


def _unless_none(code: str) -> str:
    return "$" if code == "$" else f"(None if $ is None else {code})"


def _each(code: str) -> str:
    return "[*$]" if code == "$" else _if_any(f"[{code.replace('$', 'item')} for item in $]")


def _if_any(comprehension: str, of: str = "$") -> str:
    """Most lists and dicts are empty, and a comprehension is a call."""
    return f"({comprehension} if {of} else {comprehension[0]}{comprehension[-1]})"


def _named(kind: type, namespace: dict[str, Any]) -> str:
    name = f"kind_{len(namespace)}"
    namespace[name] = kind
    return name


def _link(kind: Any, attribute: str, value: str, objects: str) -> tuple[str, str]:
    """The ids of what a link of type `kind` refers to, and the objects for ids."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        one_id, found = _optional(arguments[0], "one.id", "one"), _optional(arguments[0], "known[one]", "one")
        # `for known in [...]` looks the objects up once.
        return (
            _if_any(f"[{one_id} for one in {attribute}]", attribute),
            _if_any(f"[{found} for known in [{objects}] for one in {value}]", value),
        )
    if origin is dict:
        return (
            _if_any(f"[(key, one.id) for key, one in {attribute}.items()]", attribute),
            _if_any(f"{{key: known[one] for known in [{objects}] for key, one in {value}}}", value),
        )
    return _optional(kind, f"{attribute}.id", attribute), _optional(kind, f"{objects}[{value}]", value)


def _optional(kind: Any, code: str, of: str) -> str:
    return f"None if {of} is None else {code}" if _not_none(kind) is not kind else code


def _not_none(kind: Any) -> Any:
    return next((one for one in typing.get_args(kind) if one is not types.NoneType), kind)


def _target(kind: Any) -> type:
    """What a link refers to."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    target: type = _not_none(arguments[-1] if origin in (list, dict) else kind)
    return target
