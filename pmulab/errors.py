"""What ends a command with one line on standard error instead of a traceback."""

from __future__ import annotations


class UserError(Exception):
    """The user's mistake: what is wrong and what would be right. Exit status 2."""


class TopologyError(Exception):
    """A running topology could not do what was asked, or one of its processes has died. Exit status 1."""
