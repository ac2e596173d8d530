"""What ends a command with one line on standard error instead of a traceback, beside a user's mistake."""

from __future__ import annotations


class TopologyError(Exception):
    """A running topology could not do what was asked, or one of its processes has died. Exit status 1."""


class SearchError(Exception):
    """A search could not be carried out: the fault is ours. Exit status 4 of `pmulab check`."""
