"""A scenario's TOML with the place of each key, before anything is understood of it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from importlib.resources import files
from pathlib import Path as FilePath
from typing import Any

from pmulab.scenario.errors import ScenarioError
from services.tables import near
from services.toml_lines import Path, lines_of

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(slots=True)
class Source:
    """A parsed document; `--set` overrides are already in `data`."""

    name: str  # as the user named it, for messages
    directory: FilePath  # what relative file names in it are relative to
    data: dict[str, Any]
    lines: dict[Path, int]
    overrides: dict[Path, str] = field(default_factory=dict)  # path to the text of its --set

    def where(self, path: Path) -> str:
        """`file:line` of a path or of the nearest part of it that exists, or the `--set` that gave it."""
        prefixes = [path[:length] for length in range(len(path), 0, -1)]
        for prefix in prefixes:
            if prefix in self.overrides:
                return f"--set {self.overrides[prefix]}"
        return f"{self.name}:{next((self.lines[prefix] for prefix in prefixes if prefix in self.lines), 1)}"


def shipped() -> dict[str, str]:
    """Names of the scenarios that come with pmulab, and the first line of each one's comment."""
    folder = files("pmulab").joinpath("scenarios")
    found = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            first = entry.read_text(encoding="utf-8").split("\n", 1)[0]
            found[entry.name.removesuffix(".toml")] = first.removeprefix("#").strip()
    return found


def open_source(scenario: str, overrides: Sequence[str] = ()) -> Source:
    """Read a scenario, by path or by the name of a shipped one. Raises ScenarioError."""
    path = FilePath(scenario)
    if path.suffix == ".toml" or len(path.parts) != 1 or scenario not in shipped():
        remedy = f"give a path, or the name of a shipped scenario ({near(scenario, shipped())})"
        source = open_file(scenario, remedy)
    else:
        entry = files("pmulab").joinpath("scenarios", f"{scenario}.toml")
        text = entry.read_text(encoding="utf-8")
        source = _parse(f"{scenario}.toml", FilePath(str(entry)).parent, text)
    for override in overrides:
        _set(source, override)
    return source


def open_file(name: str, remedy: str = "give the path of a TOML file") -> Source:
    """Read a TOML file; `remedy` is for when there is none. Raises ScenarioError."""
    path = FilePath(name)
    try:
        return _parse(name, path.parent, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ScenarioError(name, "no such file", remedy) from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ScenarioError(f"{name}:{line}", "not UTF-8 text", "save the file as UTF-8") from None
    except OSError as error:
        raise ScenarioError(name, f"cannot be read ({error.strerror})", "give a readable file") from None


def _parse(name: str, directory: FilePath, text: str) -> Source:
    try:
        data = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        line, problem = _syntax_error(str(error), text)
        raise ScenarioError(
            f"{name}:{line}", f"not valid TOML: {problem}", "correct the syntax (https://toml.io)"
        ) from None
    return Source(name, directory, data, lines_of(text))


def _syntax_error(message: str, text: str) -> tuple[int, str]:
    """tomllib words the place: `… (at line 5, column 3)` or `… (at end of document)`."""
    match = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", message, re.DOTALL)
    if match is None:
        return 1, message
    last = max(1, len(text.rstrip("\n").split("\n")))
    return int(match[2]) if match[2] else last, match[1][:1].lower() + match[1][1:]


def _set(source: Source, override: str) -> None:
    """Apply `key=value`: the key dotted, the value as TOML or else as plain text.

    A step on an array of tables picks an element by its index or by its `name`; without either,
    all elements are meant: `guest.hz=100`, `guest.vm0.hz=100` and `guest.0.hz=100`.
    """
    where = f"--set {override}"
    key, separator, text = override.partition("=")
    steps = [step.strip() for step in key.split(".")]
    if not separator or not all(_BARE_KEY.fullmatch(step) for step in steps):
        raise ScenarioError(where, "not of the form key=value", "write for example --set guest.hz=1000")
    value = _value(text.strip())
    for path in _targets(source.data, steps, (), where):
        parent: Any = source.data
        for step in path[:-1]:
            parent = parent.setdefault(step, {}) if isinstance(parent, dict) else parent[step]
            if not isinstance(parent, (dict, list)):
                raise ScenarioError(where, f"{step!r} has no keys of its own", "name a key of a section")
        parent[path[-1]] = value
        source.overrides[path] = override


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}", parse_float=Decimal)["value"]
    except tomllib.TOMLDecodeError:
        return text


def _targets(value: Any, steps: list[str], path: Path, where: str) -> list[Path]:
    if not steps:
        return [path]
    if isinstance(value, list) and value and all(isinstance(element, dict) for element in value):
        step, rest = steps[0], steps[1:]
        if step.isdecimal():
            if int(step) >= len(value):
                raise ScenarioError(where, f"there is no {path[-1]} {step}", f"there are {len(value)}, counted from 0")
            return _targets(value[int(step)], rest, (*path, int(step)), where)
        named = [index for index, element in enumerate(value) if element.get("name") == step]
        if named:
            return _targets(value[named[0]], rest, (*path, named[0]), where)
        return [
            target for index, element in enumerate(value) for target in _targets(element, steps, (*path, index), where)
        ]
    child = value.get(steps[0]) if isinstance(value, dict) else None
    return _targets(child, steps[1:], (*path, steps[0]), where)
