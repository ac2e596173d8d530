"""The one error for what a user got wrong."""

from __future__ import annotations


class UserError(Exception):
    """A user's mistake, as one line: `where` it is, what the `problem` is, and the `remedy`.

    `where` is a `file:line`, an option with its value, or empty where the problem says it all.
    """

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        super().__init__(one_line(f"{where}: {problem}; {remedy}" if where else f"{problem}; {remedy}"))
        self.where = where
        self.problem = problem
        self.remedy = remedy

    def within(self, where: str) -> UserError:
        """The same mistake, found by way of `where`: the line that names a file, say, whose contents are wrong."""
        return UserError(where, f"{self.where}: {self.problem}" if self.where else self.problem, self.remedy)


def one_line(text: str) -> str:
    """`text` with what does not print, line ends among it, as escapes."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
