"""TOML as people write it, typed and exact: what does not fit is refused with its place and what would be right.

Scenarios, catalogues in the wheel and a user's own files are all read by this. Numbers with a point are `Decimal`,
never floats.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any, NoReturn

import tomli

from services import durations
from services.errors import UserError
from services.toml_lines import Path, lines_of

_TELLING = 3  # letters: fewer are in too many names to be what somebody meant
_MOST_MEANT = 8
_KINDS = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    Decimal: "a float",
    list: "an array",
    dict: "a table",
}


class Document:
    """A TOML document that knows where each of its keys stands."""

    def __init__(self, name: str, directory: FilePath, text: str) -> None:
        """`name` is what messages call it; relative file names in it are relative to `directory`. Raises UserError."""
        self.name = name
        self.directory = directory
        self.overrides: dict[Path, str] = {}  # keys that `--set` has replaced, with its text
        self.changed: list[str] = []  # the texts of those that gave a key another value than the document does
        self._text = text
        try:
            self.data: dict[str, Any] = tomli.loads(text, parse_float=Decimal)
        except tomli.TOMLDecodeError as error:
            last = text.rstrip("\n").count("\n") + 1  # where the document ends too early
            problem = f"not valid TOML: {error.msg[:1].lower()}{error.msg[1:]}"
            raise UserError(
                f"{name}:{min(error.lineno, last)}", problem, "correct the syntax (https://toml.io)"
            ) from None
        except ValueError:  # what int() refuses of a valid document: sys.set_int_max_str_digits
            long = re.search(r"[\d_]{4000,}", text)
            line = text.count("\n", 0, long.start() if long else 0) + 1
            raise UserError(f"{name}:{line}", "an integer of thousands of digits", "give one of 64 bits") from None
        except RecursionError:
            raise UserError(name, "its arrays or inline tables are nested too deep", "nest them less") from None

    @classmethod
    def read(cls, name: str, remedy: str = "give the path of a TOML file") -> Document:
        """The file at the path `name`; `remedy` is for when there is none. Raises UserError."""
        path = FilePath(name)
        return cls(name, path.parent, read_text(name, remedy))

    @cached_property
    def _lines(self) -> dict[Path, int]:
        return lines_of(self._text)

    def where(self, path: Path) -> str:
        """`file:line` of a path or of the nearest part of it that exists, or the `--set` that gave it."""
        prefixes = [path[:length] for length in range(len(path), 0, -1)]
        for prefix in prefixes:
            if prefix in self.overrides:
                return f"--set {self.overrides[prefix]}"
        if path not in self._lines:  # there only for what a `--set` has put below it
            for other, text in self.overrides.items():
                if other[: len(path)] == path:
                    return f"--set {text}"
        return f"{self.name}:{next((self._lines[prefix] for prefix in prefixes if prefix in self._lines), 1)}"

    def file(self, path: Path, name: str) -> FilePath:
        """The file that is meant by `name` at a path: relative to where the document is, or if a `--set` gave the name
        to where that was given."""
        overridden = any(path[:length] in self.overrides for length in range(1, len(path) + 1))
        return FilePath(name) if overridden else self.directory / name


class Table:
    """One table of a document: only `keys` may be in it, or any if they are None."""

    def __init__(self, document: Document, path: Path, data: Any, keys: Sequence[str] | None) -> None:
        self.document = document
        self.path = path
        if not isinstance(data, dict):
            self._refuse_type(path, data, "a table", _as_table(path))
        self.data: dict[str, Any] = data
        for key in data:
            if keys is not None and key not in keys:
                section = f"in [{_header(path)}]" if path else "at the top level"
                self.refuse(key, f"unknown key {key!r} {section}", near(key, keys))

    def __contains__(self, key: str) -> bool:
        return key in self.data

    def where(self, key: str, index: int | None = None) -> str:
        """The place of a key, or of the element `index` of the array at it; of the table if the key is not given."""
        return self.document.where((*self.path, key) if index is None else (*self.path, key, index))

    def refuse(self, key: str, problem: str, remedy: str, *, index: int | None = None) -> NoReturn:
        """Raise UserError at the place of `key`, or of the element `index` of the array at it."""
        raise UserError(self.where(key, index), problem, remedy)

    def file(self, key: str, name: str) -> FilePath:
        """The file that is meant by `name` at `key`."""
        return self.document.file((*self.path, key), name)

    @contextmanager
    def blamed(self, key: str, index: int | None = None) -> Iterator[None]:
        """A UserError of the block is one of this key, or of the element `index` of the array at it."""
        try:
            yield
        except UserError as error:
            raise error.within(self.where(key, index)) from None

    def require(self, key: str, example: str) -> None:
        """Refuse the table if `key` is missing, or an empty string."""
        if key not in self.data:
            section = f" in [{_header(self.path)}]" if self.path else ""
            self.refuse(key, f"{key!r} is missing{section}", f"add for example {key} = {example}")
        value = self.data[key]
        if isinstance(value, str) and not value.strip():
            self.refuse(key, f"{_dotted((*self.path, key))} is empty", f"write for example {key} = {example}")

    def table(self, key: str, keys: Sequence[str] | None) -> Table:
        """A table within this one; empty if it is not given."""
        return Table(self.document, (*self.path, key), self.data.get(key, {}), keys)

    def array(self, key: str) -> list[Any]:
        """What is to be an array of tables, its elements unseen."""
        value = self.data.get(key, [])
        path = (*self.path, key)
        if not isinstance(value, list):
            self._refuse_type(path, value, "an array of tables", f"write [[{_header(path)}]]")
        return value

    def tables(self, key: str, keys: Sequence[str]) -> list[Table]:
        """The elements of an array of tables."""
        path = (*self.path, key)
        return [Table(self.document, (*path, index), element, keys) for index, element in enumerate(self.array(key))]

    def text(self, key: str, default: str = "", *, like: str = "…") -> str:
        """A string that is not empty, `like` one."""
        value = self.data.get(key, default)
        if not isinstance(value, str):
            self._refuse_type((*self.path, key), value, "a string", f'write {key} = "{like}"')
        if key in self.data and not value.strip():
            self.refuse(key, f"{_dotted((*self.path, key))} is empty", f'write {key} = "{like}", or leave it out')
        return value

    def choice(self, key: str, choices: Iterable[str], default: str = "") -> str:
        """One of `choices`."""
        names = list(choices)
        value = self.text(key, default, like=names[0] if names else "…")
        if value not in names:
            self.refuse(key, f"{_dotted((*self.path, key))} = {value!r} is not known", near(value, names))
        return value

    def boolean(self, key: str, default: bool) -> bool:
        value = self.data.get(key, default)
        if not isinstance(value, bool):
            self._refuse_type((*self.path, key), value, "true or false", f"write {key} = true")
        return value

    def booleans(self, key: str, default: Sequence[bool]) -> list[bool]:
        """A list of booleans; one alone stands for a list of it."""
        value = self.data.get(key, list(default))
        if not isinstance(value, list):
            return [self.boolean(key, False)]
        for index, element in enumerate(value):
            if not isinstance(element, bool):
                self._refuse_type((*self.path, key, index), element, "true or false", f"write {key} = true")
        return value

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        """An integer from `low` to `high`."""
        return self._integer((*self.path, key), self.data.get(key, default), default, low, high)

    def integers(self, key: str, default: Sequence[int], low: int, high: int) -> list[int]:
        """A list of integers; one alone stands for a list of it."""
        value = self.data.get(key, list(default))
        path = (*self.path, key)
        if not isinstance(value, list):
            return [self._integer(path, value, low, low, high)]
        return [self._integer((*path, n), one, low, low, high) for n, one in enumerate(value)]

    def number(self, key: str, default: Decimal | int, low: Decimal | int, high: Decimal | int) -> Decimal:
        """An integer or a float, exactly as it is written, from `low` to `high`."""
        return self._number((*self.path, key), self.data.get(key, default), default, low, high)

    def duration(self, key: str, unit: str, default: Decimal | int, low: Decimal | int, high: Decimal | int) -> Decimal:
        """A length of time from `low` to `high` in `unit`s: a number of them, or a text with a unit of its own."""
        return self._duration((*self.path, key), self.data.get(key, default), unit, default, low, high)

    def whole(self, key: str, unit: str, default: int, low: int, high: int) -> int:
        """Likewise, of what is kept as a whole number of `unit`s."""
        time = self.duration(key, unit, default, low, high)
        if time != int(time):
            problem = f"{_dotted((*self.path, key))} = {self.data[key]!s} is finer than the {unit} in which it is kept"
            self.refuse(key, problem, f"give a whole number of {unit}")
        return int(time)

    def durations(
        self, key: str, unit: str, default: Sequence[Decimal], low: Decimal | int, high: Decimal | int
    ) -> list[Decimal]:
        """A list of lengths of time in `unit`s; one alone stands for a list of it."""
        value = self.data.get(key, list(default))
        path = (*self.path, key)
        if not isinstance(value, list):
            return [self._duration(path, value, unit, low, low, high)]
        return [self._duration((*path, n), one, unit, low, low, high) for n, one in enumerate(value)]

    def strings(self, key: str) -> list[str]:
        """A list of strings; one alone stands for a list of it."""
        value = self.data.get(key, [])
        if isinstance(value, str):
            return [value]
        path = (*self.path, key)
        if not isinstance(value, list):
            self._refuse_type(path, value, "a string or a list of strings", f'write {key} = ["…"]')
        for index, element in enumerate(value):
            if not isinstance(element, str):
                self._refuse_type((*path, index), element, "a string", f'write {key} = ["…"]')
        return value

    def _number(
        self, path: Path, value: Any, default: Decimal | int, low: Decimal | int, high: Decimal | int
    ) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            example = _example(default, low, high)
            self._refuse_type(path, value, "a number", f"write for example {_key(path)} = {example}")
        if not (low <= value <= high if isinstance(value, int) or value.is_finite() else False):
            problem = f"{_dotted(path)} = {written(value)} is out of range"
            raise UserError(self.document.where(path), problem, f"give a number from {low} to {high}")
        return Decimal(value)

    def _duration(
        self, path: Path, value: Any, unit: str, default: Decimal | int, low: Decimal | int, high: Decimal | int
    ) -> Decimal:
        if not isinstance(value, str):
            return self._number(path, value, default, low, high)
        time, where = durations.nanoseconds(value), self.document.where(path)
        if time is None:
            key, like = _key(path), _example(default, low, high)
            remedy = f'write {key} = "{like} {unit}", or {key} = {like} for the same; units are {durations.UNITS}'
            raise UserError(where, f"{_dotted(path)} = {value!r} is not a length of time", remedy)
        time /= durations.NANOSECONDS[unit]
        if not low <= time <= high:
            problem = f"{_dotted(path)} = {value!r} is out of range"
            raise UserError(where, problem, f"give a length of time from {low} to {high} {unit}")
        return time

    def _integer(self, path: Path, value: Any, default: int, low: int, high: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            example = _example(default, low, high)
            self._refuse_type(path, value, "an integer", f"write for example {_key(path)} = {example}")
        if not low <= value <= high:
            raise UserError(
                self.document.where(path),
                f"{_dotted(path)} = {written(value)} is out of range",
                f"give an integer from {low} to {high}",
            )
        return value

    def _refuse_type(self, path: Path, value: Any, wanted: str, remedy: str) -> NoReturn:
        found = _KINDS.get(type(value), f"a {type(value).__name__}")
        raise UserError(self.document.where(path), f"{_dotted(path)} must be {wanted}, not {found}", remedy)


def _example(default: Decimal | int, low: Decimal | int, high: Decimal | int) -> Decimal | int:
    """A value to propose: the default, but for one that stands for none and could not be written."""
    return min(max(default, low), high)


def entry(shipped: Document, section: Path, name: str, what: str, keys: Sequence[str]) -> Table:
    """The table `name` in a `section` of a shipped document, or the whole of the user's own file at that path.

    `what` it is called in messages. Raises UserError.
    """
    if is_path(name):
        own = Document.read(name)
        return Table(own, (), own.data, keys)
    known: dict[str, Any] = shipped.data
    for step in section:
        known = known[str(step)]
    if name not in known:
        raise UserError("", f"no {what} {name!r}", near(name, known))
    return Table(shipped, (*section, name), known[name], keys)


def read_text(name: str, remedy: str) -> str:
    """The text of the file at the path `name`; `remedy` is for when there is none. Raises UserError."""
    path = FilePath(name)
    if not name or "\0" in name:
        raise UserError(repr(name), "no such file", remedy)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(name, "no such file", remedy) from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise UserError(f"{name}:{line}", "not UTF-8 text", "save the file as UTF-8") from None
    except OSError as error:
        raise UserError(name, f"cannot be read ({error.strerror})", "give a readable file") from None


def near(name: str, names: Iterable[str]) -> str:
    """What a person who wrote `name` may have meant: the near matches among `names`, or all of them."""
    known = list(names)
    return meant(name, known) or f"known are {', '.join(known)}"


def meant(name: str, names: Iterable[str]) -> str:
    """The near matches of `name` among `names`, as a question; empty if there are none."""
    known = {candidate.lower(): candidate for candidate in names}
    wanted = name.lower()
    matches = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    if len(wanted) >= _TELLING:
        matches += [candidate for candidate in known if wanted in candidate and candidate not in matches]
    return f"did you mean {' or '.join(known[match] for match in matches[:_MOST_MEANT])}?" if matches else ""


def written(value: Any) -> str:
    """A value as messages have it: of an integer beyond 64 bits only how long it is."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"(an integer of {value.bit_length()} bits)"
    return str(value)


def is_path(name: str) -> bool:
    """Whether `name` means a file of the user's rather than a name that is shipped."""
    return name.endswith(".toml") or "/" in name


def _dotted(path: Path) -> str:
    """A path as a header writes it, and at its end the position in an array."""
    return f"{_header(path)}[{path[-1]}]" if path and isinstance(path[-1], int) else _header(path)


def _key(path: Path) -> str:
    """The key at a path, or of the array that it is in."""
    return next(step for step in reversed(path) if isinstance(step, str))


def _as_table(path: Path) -> str:
    """How to write one. What is within an array may stand in one line, where a header of its own cannot follow."""
    header, inline = f"[{_header(path)}]", "{ key = value, … }"
    if path and isinstance(path[-1], int):
        return f"write {inline} there, or [{header}] and its keys below it"
    within = any(isinstance(step, int) for step in path)
    return f"write {header} and its keys below it" + (f", or {path[-1]} = {inline}" if within else "")


def _header(path: Path) -> str:
    """A path as a header writes it: without the positions in arrays."""
    return ".".join(step for step in path if isinstance(step, str))
