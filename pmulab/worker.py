"""`python -m pmulab.worker`: one experiment from standard input, run in this process; see `pmulab.workers`."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import orjson

from pmulab.command import carry_out
from pmulab.embedded import run_embedded
from pmulab.exit_status import OK
from pmulab.progress import INTERVAL
from services import typed_json
from services.errors import UserError
from services.experiment import Experiment
from services.kvm.errors import SimulationError


class _Output:
    """Standard output, for messages alone: what a design prints goes to standard error."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._said = time.monotonic()

    def say(self, message: dict[str, Any]) -> None:
        try:
            self._file.write(orjson.dumps(message) + b"\n")
            self._file.flush()
        except BrokenPipeError:
            os._exit(1)  # whoever started this has gone

    def say_progress(self, share: float, seconds: float) -> None:
        now = time.monotonic()
        if now - self._said >= INTERVAL:
            self._said = now
            self.say({"share": share, "seconds": seconds})


def main() -> int:
    return carry_out("pmulab.worker", _work)


def _work() -> int:
    output = _Output()
    experiment = _task()
    try:
        result = run_embedded(experiment, output.say_progress)
    except SimulationError as error:
        output.say({"failure": str(error)})
    else:
        output.say({"result": result})
    return OK


def _task() -> Experiment:
    """What is to be run. Raises UserError."""
    text = b"" if sys.stdin is None else sys.stdin.buffer.read()
    try:
        return typed_json.loads(Experiment, text)
    except ValueError as error:
        problem = f"not an experiment as JSON: {error}" if text else "empty; an experiment as JSON is expected"
        raise UserError("standard input", problem, "use `pmulab run`, which starts workers itself") from None


if __name__ == "__main__":
    sys.exit(main())
