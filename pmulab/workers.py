"""Experiments in worker processes, several at once, and what they say while they work.

A worker is `python -m pmulab.worker`, so that neither a notebook nor a script needs a `__main__` guard. It reads its
experiment from standard input and writes JSON lines: `{"share": …, "seconds": …}` now and then, and at the end
`{"result": …}` or `{"failure": "…"}`.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import orjson

from pmulab.exit_status import describe_exit
from services import typed_json
from services.experiment import Experiment
from services.result import Result, read


def run(
    experiments: Sequence[Experiment],
    at_once: int,
    tell: Callable[[int, float, float], None],
    end: Callable[[int, Result | str], None],
) -> None:
    """Run each experiment, at most `at_once` at a time.

    `tell` is called with the number of an experiment, the share of its work that is done and its virtual time in
    seconds; `end` with its number and its result, or in words how it failed. If they raise, as at Ctrl-C, no worker is
    left behind.
    """
    waiting = list(enumerate(experiments))[::-1]
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or selector.get_map():
                while waiting and len(selector.get_map()) < at_once:
                    worker = _Worker(*waiting.pop())
                    selector.register(worker.output, selectors.EVENT_READ, worker)
                for key, _ in selector.select():
                    worker = key.data
                    for message in worker.receive():
                        if "share" in message:
                            tell(worker.index, message["share"], message["seconds"])
                    if worker.ended:
                        selector.unregister(worker.output)
                        end(worker.index, worker.outcome())
        finally:
            for key in list(selector.get_map().values()):
                key.data.kill()


class _Worker:
    """One worker process."""

    def __init__(self, index: int, experiment: Experiment) -> None:
        self.index = index
        self.ended = False  # its output has ended
        self._rest = b""  # of a line that has not come whole
        self._last: dict[str, Any] = {}  # what it said last
        self._errors: IO[bytes] = TemporaryFile()  # noqa: SIM115 - closed when the worker has ended
        with TemporaryFile() as task:
            task.write(typed_json.dumps(experiment))
            task.seek(0)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pmulab.worker"],
                stdin=task,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                # It finds what this process finds, and a Ctrl-C on the terminal reaches this process alone.
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
                start_new_session=True,
            )
        assert self._process.stdout is not None
        self.output: IO[bytes] = self._process.stdout

    def receive(self) -> list[dict[str, Any]]:
        """The messages that have come; waits for some bytes, or their end."""
        chunk = os.read(self.output.fileno(), 1 << 16)
        self.ended = not chunk
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        messages: list[dict[str, Any]] = [orjson.loads(line) for line in lines]
        if messages:
            self._last = messages[-1]
        return messages

    def outcome(self) -> Result | str:
        """Its result, or how it failed; once it has ended."""
        status = self._process.wait()
        self.output.close()
        with self._errors as file:
            file.seek(0)
            errors = file.read().decode(errors="replace")
        if "result" in self._last:
            return read(self._last["result"])
        if "failure" in self._last:
            return str(self._last["failure"])
        sys.stderr.write(errors)
        return f"its process {describe_exit(status)}" + (f": {errors.splitlines()[-1]}" if errors.strip() else "")

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        self.output.close()
        self._errors.close()
