"""Where a scenario's TOML comes from: a file, or one that is shipped, with `--set` applied to it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from decimal import Decimal
from importlib.resources import files
from numbers import Integral, Real
from pathlib import Path as FilePath
from typing import Any

import tomli

from pmulab.scenario import keys
from services.errors import UserError
from services.tables import Document, near, written
from services.toml_lines import Path

_CLOSING = {"(": ")", "{": "}"}
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def shipped() -> dict[str, str]:
    """Names of the scenarios that come with pmulab, and the first line of each one's comment."""
    folder = files("pmulab").joinpath("scenarios")
    found = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            first = entry.read_text(encoding="utf-8").split("\n", 1)[0]
            found[entry.name.removesuffix(".toml")] = first.removeprefix("#").strip()
    return found


def open_source(scenario: str, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Document:
    """Read a scenario, by path or by the name of a shipped one. Raises UserError."""
    path = FilePath(scenario)
    if path.suffix == ".toml" or len(path.parts) != 1 or scenario not in shipped():
        remedy = f"give a path, or the name of a shipped scenario ({near(scenario, shipped())})"
        document = Document.read(scenario, remedy)
    else:
        entry = files("pmulab").joinpath("scenarios", f"{scenario}.toml")
        document = Document(f"{scenario}.toml", FilePath(str(entry)).parent, entry.read_text(encoding="utf-8"))
    published = deepcopy(document.data)
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            _set(document, key, _from_python(key, value), f"{key}={written(value)}")
    else:
        for text in overrides:
            _set_text(document, text)
    document.changed = [
        text
        for path, text in document.overrides.items()
        if not any(path[: len(beside)] == beside for beside in keys.BESIDE)
        and _at(document.data, path) != _at(published, path)
    ]
    return document


def _at(data: Any, path: Path) -> Any:
    """The value at a path, None if there is none."""
    for step in path:
        known = step in data if isinstance(data, dict) else isinstance(data, list) and int(step) < len(data)
        if not known:
            return None
        data = data[step]
    return data


def _set_text(document: Document, override: str) -> None:
    """Apply `key=value`: the value as TOML or else as plain text."""
    key, separator, text = override.partition("=")
    if not separator:
        raise _malformed(override)
    _set(document, key, _value(text.strip()), override)


def _set(document: Document, key: str, value: Any, override: str) -> None:
    """Apply an override, in messages `--set` and its text: the key dotted.

    A step on an array of tables picks an element by its index or by its `name`; without either,
    all elements are meant: `guest.hz=100`, `guest.vm0.hz=100` and `guest.0.hz=100`.
    """
    where = f"--set {override}"
    steps = [step.strip() for step in key.split(".")]
    if not all(_BARE_KEY.fullmatch(step) for step in steps):
        raise _malformed(override)
    for path in _targets(document.data, steps, (), where):
        parent: Any = document.data
        for step in path[:-1]:
            parent = parent.setdefault(step, {}) if isinstance(parent, dict) else parent[step]
            if not isinstance(parent, (dict, list)):
                raise UserError(where, f"{step!r} has no keys of its own", "name a key of a section")
        parent[path[-1]] = value
        document.overrides[path] = override


def _malformed(override: str) -> UserError:
    return UserError(f"--set {override}", "not of the form key=value", "write for example --set guest.hz=1000")


def _value(text: str) -> Any:
    """TOML, or else a list of elements in brackets, each TOML or plain text, or else plain text."""
    value = _toml(text)
    if value is text and text.startswith("[") and text.endswith("]"):
        elements = _elements(text[1:-1])
        if elements and all(elements):
            return [_toml(element) for element in elements]
    return value


def _toml(text: str) -> Any:
    """The value that TOML reads, or the text itself."""
    try:
        return tomli.loads(f"value = {text}", parse_float=Decimal)["value"]
    except (ValueError, RecursionError):  # not TOML, or beyond what Python reads of it
        return text


def _elements(text: str) -> list[str]:
    """Split at the commas that stand outside quotes, braces and parentheses; nothing if these do not match."""
    elements, quote, closing = [""], "", ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in _CLOSING:
            closing += _CLOSING[character]
        elif closing and character == closing[-1]:
            closing = closing[:-1]
        elif character in "[])}":
            return []
        elif character == "," and not closing:
            elements.append("")
            continue
        elements[-1] += character
    return [] if quote or closing else [element.strip() for element in elements]


def _from_python(key: str, value: Any) -> Any:
    """A Python value as TOML would have given it. Another library's numbers are taken by their kind."""
    match value:
        case bool() | str() | Decimal():
            return value
        case Integral():
            return int(value)
        case Real():
            return Decimal(repr(float(value)))
        case list() | tuple():
            return [_from_python(key, element) for element in value]
        case dict():
            return {name: _from_python(key, element) for name, element in value.items()}
    kind = type(value).__name__
    raise UserError(f"--set {key}={value}", f"a value cannot be a {kind}", "give a number, a string, a bool or a list")


def _targets(value: Any, steps: list[str], path: Path, where: str) -> list[Path]:
    if not steps:
        return [path]
    if isinstance(value, list) and value and all(isinstance(element, dict) for element in value):
        step, rest = steps[0], steps[1:]
        if step.isdecimal():
            if int(step) >= len(value):
                raise UserError(where, f"there is no {path[-1]} {step}", f"there are {len(value)}, counted from 0")
            return _targets(value[int(step)], rest, (*path, int(step)), where)
        named = [index for index, element in enumerate(value) if element.get("name") == step]
        if named:
            return _targets(value[named[0]], rest, (*path, named[0]), where)
        return [
            target for index, element in enumerate(value) for target in _targets(element, steps, (*path, index), where)
        ]
    child = value.get(steps[0]) if isinstance(value, dict) else None
    return _targets(child, steps[1:], (*path, steps[0]), where)
