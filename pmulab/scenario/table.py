"""Typed reading of one table of a scenario: what does not fit is refused with its place and a remedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, NoReturn

from pmulab.scenario.errors import ScenarioError
from pmulab.scenario.source import Source
from services.tables import near
from services.toml_lines import Path


class Table:
    """One table: only `keys` may be in it."""

    def __init__(self, source: Source, path: Path, data: Any, keys: Sequence[str]) -> None:
        self.source = source
        self.path = path
        if not isinstance(data, dict):
            self._wrong_type(path, data, "a table", f"write [{_dotted(path)}] and its keys below it")
        self.data: dict[str, Any] = data
        for key in data:
            if key not in keys:
                section = f"[{_dotted(path)}]" if path else "the scenario"
                self.refuse(key, f"unknown key {key!r} in {section}", near(key, keys))

    def __contains__(self, key: str) -> bool:
        return key in self.data

    def where(self, key: str) -> str:
        """The place of a key, for messages; of the table if the key is not given."""
        return self.source.where((*self.path, key))

    def refuse(self, key: str, problem: str, remedy: str) -> NoReturn:
        """Raise ScenarioError at the place of `key`."""
        raise ScenarioError(self.where(key), problem, remedy)

    def refuse_element(self, key: str, index: int, problem: str, remedy: str) -> NoReturn:
        """Raise ScenarioError at the place of an element of the array at `key`."""
        raise ScenarioError(self.source.where((*self.path, key, index)), problem, remedy)

    def required(self, key: str, example: str) -> None:
        """Refuse the table if `key` is missing."""
        if key not in self.data:
            self.refuse(key, f"{key!r} is missing in [{_dotted(self.path)}]", f"add for example {key} = {example}")

    def table(self, key: str, keys: Sequence[str]) -> Table:
        """A table within this one; empty if it is not given."""
        return Table(self.source, (*self.path, key), self.data.get(key, {}), keys)

    def tables(self, key: str, keys: Sequence[str]) -> list[Table]:
        """The elements of an array of tables."""
        value = self.data.get(key, [])
        path = (*self.path, key)
        if not isinstance(value, list):
            self._wrong_type(path, value, "an array of tables", f"write [[{_dotted(path)}]]")
        return [Table(self.source, (*path, index), element, keys) for index, element in enumerate(value)]

    def text(self, key: str, default: str = "") -> str:
        value = self.data.get(key, default)
        if not isinstance(value, str):
            self._wrong_type((*self.path, key), value, "a string", f'write {key} = "…"')
        return value

    def choice(self, key: str, choices: Iterable[str], default: str) -> str:
        value = self.text(key, default)
        names = list(choices)
        if value not in names:
            self.refuse(key, f"{key} = {value!r} is not known", near(value, names))
        return value

    def boolean(self, key: str, default: bool) -> bool:
        value = self.data.get(key, default)
        if not isinstance(value, bool):
            self._wrong_type((*self.path, key), value, "true or false", f"write {key} = true")
        return value

    def booleans(self, key: str, default: Sequence[bool]) -> list[bool]:
        """A list of booleans; one alone stands for a list of it."""
        value = self.data.get(key, list(default))
        if not isinstance(value, list):
            return [self.boolean(key, False)]
        for index, element in enumerate(value):
            if not isinstance(element, bool):
                self._wrong_type((*self.path, key, index), element, "true or false", f"write {key} = true")
        return value

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        return self._integer((*self.path, key), key, self.data.get(key, default), default, low, high)

    def integers(self, key: str, default: Sequence[int], low: int, high: int) -> list[int]:
        """A list of integers; one alone stands for a list of it."""
        value = self.data.get(key, list(default))
        path = (*self.path, key)
        if not isinstance(value, list):
            return [self._integer(path, key, value, low, low, high)]
        return [self._integer((*path, n), f"{key}[{n}]", one, low, low, high) for n, one in enumerate(value)]

    def number(self, key: str, default: Decimal | int, low: Decimal | int, high: Decimal | int) -> Decimal:
        """An integer or a float, exactly as it is written, from `low` to `high`."""
        value = self.data.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            self._wrong_type((*self.path, key), value, "a number", f"write for example {key} = {default}")
        if not (low <= value <= high if isinstance(value, int) or value.is_finite() else False):
            self.refuse(key, f"{key} = {value} is out of range", f"give a number from {low} to {high}")
        return Decimal(value)

    def strings(self, key: str) -> list[str]:
        """A list of strings; one alone stands for a list of it."""
        value = self.data.get(key, [])
        if isinstance(value, str):
            return [value]
        path = (*self.path, key)
        if not isinstance(value, list):
            self._wrong_type(path, value, "a string or a list of strings", f'write {key} = ["…"]')
        for index, element in enumerate(value):
            if not isinstance(element, str):
                self._wrong_type((*path, index), element, "a string", f'write {key} = ["…"]')
        return value

    def _integer(self, path: Path, name: str, value: Any, default: int, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self._wrong_type(path, value, "an integer", f"write for example {name.partition('[')[0]} = {default}")
        if not low <= value <= high:
            raise ScenarioError(
                self.source.where(path), f"{name} = {value} is out of range", f"give an integer from {low} to {high}"
            )
        return value

    def _wrong_type(self, path: Path, value: Any, wanted: str, remedy: str) -> NoReturn:
        kind = {
            str: "a string",
            bool: "a boolean",
            int: "an integer",
            Decimal: "a float",
            list: "an array",
            dict: "a table",
        }
        found = kind.get(type(value), f"a {type(value).__name__}")
        raise ScenarioError(self.source.where(path), f"{_dotted(path)} must be {wanted}, not {found}", remedy)


def _dotted(path: Path) -> str:
    """A path as a header writes it, without the positions in arrays."""
    return ".".join(step for step in path if isinstance(step, str))
