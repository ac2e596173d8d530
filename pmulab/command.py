"""How every command ends: with an exit status and, if it failed, one line that says why."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from pmulab.errors import TopologyError
from pmulab.exit_status import BAD_INPUT, BROKEN_PIPE, FAILED, INTERRUPTED
from services.errors import UserError, one_line


class Parser(argparse.ArgumentParser):
    """Arguments, with a mistake in one line, as for every other."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {one_line(message)}; see `{self.prog} --help`\n")


def carry_out(name: str, command: Callable[[], int]) -> int:
    """Run `command`, called `name` in what is said of it; the exit status, its own if it comes to its end.

    2: the user's mistake; 1: it could not be carried out (`pmulab.exit_status`).
    """
    if sys.stderr is None:  # it has been closed: nobody wants to know
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stdout is None:
        return _fail(name, "there is no standard output to print to", FAILED)
    try:
        try:
            status = command()
        except SystemExit:  # of the parser, after `--help`, say
            sys.stdout.flush()
            raise
        sys.stdout.flush()
        return status
    except UserError as error:
        return _fail(name, str(error), BAD_INPUT)
    except TopologyError as error:
        return _fail(name, str(error), FAILED)
    except KeyboardInterrupt:
        # It may have come between a coroutine and the await of it, which Python tells when that goes.
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        return _fail(name, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        _drop_output()  # whoever read it has gone: nothing to say
        return BROKEN_PIPE
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        _drop_output()
        return _fail(name, f"the output cannot be written: {error.strerror}", FAILED)


def _drop_output() -> None:
    """Leave nothing to flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(name: str, message: str, status: int) -> int:
    sys.stderr.write(f"{name}: {one_line(message)}\n")
    return status
