"""Tables as TOML: the ones in the wheel and a user's own, read exactly and refused with file, line and remedy."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from services.toml_lines import lines_of


class TableError(ValueError):
    """A table that cannot be used: the file and line, the key, what is wrong with it and what would be right."""

    def __init__(self, table: Table, path: Sequence[str], problem: str, remedy: str) -> None:
        where = f"{table.file}:{table.line(path)}"
        super().__init__(f"{where}: {'.'.join(path)}: {problem}; {remedy}" if path else f"{where}: {problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy


class Table:
    """A TOML file and where in it each key stands. Numbers with a point are `Decimal`, never floats."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self._text = text
        self.data: dict[str, Any] = {}
        try:
            self.data = tomllib.loads(text, parse_float=Decimal)
        except tomllib.TOMLDecodeError as error:
            raise TableError(self, (), f"not TOML: {error}", "see https://toml.io for the syntax") from None

    @classmethod
    def read(cls, path: Path) -> Table:
        """The file at `path`. Raises FileNotFoundError and other OSErrors, TableError if it is not TOML."""
        return cls(str(path), path.read_text(encoding="utf-8"))

    def line(self, path: Sequence[str]) -> int:
        """The line, from 1, of the key at `path`, or of the nearest table around it."""
        places = lines_of(self._text) if path else {}
        return next((places[key] for n in range(len(path), 0, -1) if (key := tuple(path[:n])) in places), 1)

    def error(self, path: Sequence[str], problem: str, remedy: str) -> TableError:
        """A TableError about the key at `path`, to be raised."""
        return TableError(self, path, problem, remedy)

    def only(self, path: Sequence[str], value: object, allowed: Iterable[str]) -> Mapping[str, Any]:
        """`value` as a table with no key but the `allowed` ones."""
        if not isinstance(value, dict):
            raise self.error(path, f"{value!r} is not a table", f"write [{'.'.join(path)}] and its keys")
        allowed = list(allowed)
        for key in value:
            if key not in allowed:
                raise self.error((*path, key), "unknown key", near(key, allowed))
        return value

    def string(self, path: Sequence[str], value: object) -> str:
        """`value` if it is a string that says something."""
        if not isinstance(value, str) or not value.strip():
            raise self.error(path, f"{value!r} is not a text", "write a string in quotes")
        return value

    def number(self, path: Sequence[str], value: object, *, positive: bool = False) -> Fraction:
        """`value` as an exact number that is not negative."""
        if isinstance(value, bool) or not isinstance(value, int | Decimal) or not _finite(value):
            shown = value if isinstance(value, Decimal) else repr(value)
            raise self.error(path, f"{shown} is not a number", "write a number without quotes")
        if value < 0 or (positive and value == 0):
            raise self.error(
                path, f"{value} is out of range", "write a positive number" if positive else "write 0 or more"
            )
        return Fraction(value)

    def integer(self, path: Sequence[str], value: object, low: int, high: int) -> int:
        """`value` if it is a whole number from `low` to `high`."""
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.error(path, f"{value!r} does not fit", f"write a whole number from {low} to {high}")
        return value

    def boolean(self, path: Sequence[str], value: object) -> bool:
        """`value` if it is true or false."""
        if not isinstance(value, bool):
            raise self.error(path, f"{value!r} is neither true nor false", "write true or false")
        return value


def near(name: str, names: Iterable[str]) -> str:
    """What a person who wrote `name` may have meant: the near matches among `names`, or all of them."""
    known = {candidate.lower(): candidate for candidate in names}
    wanted = name.lower()
    matches = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    matches += [candidate for candidate in known if wanted and wanted in candidate and candidate not in matches]
    if matches:
        return f"did you mean {' or '.join(known[match] for match in matches)}?"
    return f"known are {', '.join(known.values())}"


def is_path(name: str) -> bool:
    """Whether `name` means a file of the user's rather than a name that is shipped."""
    return name.endswith(".toml") or "/" in name


def _finite(value: int | Decimal) -> bool:
    return isinstance(value, int) or value.is_finite()
