"""The line of each key of a TOML document: tomli checks a document but keeps no lines.

The scan walks a document that `tomli` has already accepted, so it only has to tell apart what
differs in extent: keys, strings of four kinds, arrays, inline tables, headers, comments.
"""

from __future__ import annotations

Path = tuple[str | int, ...]  # ("guest", 0, "task", 1, "perf", "frequency")

_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\", "e": "\x1b"}
_BARE_END = frozenset(" \t\r\n#=.,[]{}\"'")
_SCALAR_END = frozenset(",]}#\n\r")


def lines_of(document: str) -> dict[Path, int]:
    """The line, from 1, of every key, table header and array element of a valid TOML document."""
    return _Scan(document).run()


class _Scan:
    def __init__(self, document: str) -> None:
        # As tomli does: a CR LF counts as one line end, also inside a multi-line string.
        self._text = document.replace("\r\n", "\n")
        self._at = 0
        self._line = 1
        self._lines: dict[Path, int] = {}
        self._elements: dict[Path, int] = {}  # arrays of tables: how many elements so far

    def run(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip_blank():
            line = self._line
            if self._text.startswith("[[", self._at):
                self._advance(2)
                keys = self._key()
                self._skip_space()
                self._advance(2)
                array = self._through_arrays(keys[:-1]) + (keys[-1],)
                index = self._elements.get(array, 0)
                self._elements[array] = index + 1
                table = (*array, index)
                self._record(array, line)
            elif self._peek() == "[":
                self._advance(1)
                table = self._through_arrays(self._key())
                self._skip_space()
                self._advance(1)
            else:
                self._assignment(table)
                continue
            self._record_parents(table, 0, line)
        return self._lines

    def _assignment(self, table: Path) -> None:
        line = self._line
        path = table + self._key()
        self._record_parents(path, len(table), line)
        self._skip_space()
        self._advance(1)  # =
        self._skip_space()
        self._value(path)

    def _value(self, path: Path) -> None:
        opening = self._peek()
        if opening in ('"', "'"):
            self._string()
        elif opening == "[":
            self._advance(1)
            index = 0
            while self._skip_blank(",") and self._peek() != "]":
                self._record((*path, index), self._line)
                self._value((*path, index))
                index += 1
            self._advance(1)
        elif opening == "{":
            self._advance(1)
            while self._skip_blank(",") and self._peek() != "}":
                self._assignment(path)
            self._advance(1)
        else:
            while self._at < len(self._text) and self._peek() not in _SCALAR_END:
                self._advance(1)

    def _key(self) -> tuple[str, ...]:
        parts = []
        while True:
            self._skip_space()
            if self._peek() in ('"', "'"):
                parts.append(self._string())
            else:
                start = self._at
                while self._at < len(self._text) and self._peek() not in _BARE_END:
                    self._advance(1)
                parts.append(self._text[start : self._at])
            self._skip_space()
            if self._peek() != ".":
                return tuple(parts)
            self._advance(1)

    def _string(self) -> str:
        quote = self._peek()
        if self._text.startswith(quote * 3, self._at):
            self._advance(3)
            while not self._text.startswith(quote * 3, self._at):
                self._advance(2 if quote == '"' and self._peek() == "\\" else 1)
            # Up to two quotes may stand directly before the closing three.
            while self._text.startswith(quote * 4, self._at):
                self._advance(1)
            self._advance(3)
            return ""  # a multi-line string is never a key
        self._advance(1)
        characters = []
        while self._peek() != quote:
            if quote == '"' and self._peek() == "\\":
                characters.append(self._escape())
            else:
                characters.append(self._peek())
                self._advance(1)
        self._advance(1)
        return "".join(characters)

    def _escape(self) -> str:
        letter = self._text[self._at + 1]
        digits = {"x": 2, "u": 4, "U": 8}.get(letter, 0)
        code = self._text[self._at + 2 : self._at + 2 + digits]
        self._advance(2 + digits)
        return chr(int(code, 16)) if digits else _ESCAPES[letter]

    def _through_arrays(self, keys: tuple[str, ...]) -> Path:
        """The path of a header's keys: a name of an array of tables stands for its last element."""
        path: Path = ()
        for key in keys:
            path = (*path, key)
            if path in self._elements:
                path = (*path, self._elements[path] - 1)
        return path

    def _record_parents(self, path: Path, known: int, line: int) -> None:
        for length in range(known + 1, len(path) + 1):
            self._record(path[:length], line)

    def _record(self, path: Path, line: int) -> None:
        self._lines.setdefault(path, line)

    def _skip_blank(self, also: str = "") -> bool:
        """Skip white space, line ends, comments and the characters `also`; False at the document's end."""
        while self._at < len(self._text):
            character = self._peek()
            if character == "#":
                while self._at < len(self._text) and self._peek() != "\n":
                    self._advance(1)
            elif character in " \t\n" or character in also:
                self._advance(1)
            else:
                return True
        return False

    def _skip_space(self) -> None:
        while self._peek() in (" ", "\t"):
            self._advance(1)

    def _peek(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else ""

    def _advance(self, count: int) -> None:
        self._line += self._text.count("\n", self._at, self._at + count)
        self._at += count
