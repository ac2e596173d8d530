"""`python -m services.kvm`: the kvm actor of one experiment, serving Attend and Lab."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services import experiment as ex
from services import typed_json
from services.kvm.lab import Lab
from services.kvm.vpmu import DesignError
from services.process import Failure, address, parser, run
from services.rpc import BindError, open_loop, serve


def main(argv: list[str] | None = None) -> int:
    arguments = parser("kvm", __doc__ or "")
    arguments.add_argument(
        "--listen", type=address, required=True, metavar="ADDRESS", help="unix:PATH, plaintext:HOST:PORT"
    )
    arguments.add_argument("--experiment", type=Path, required=True, metavar="FILE", help="the experiment as JSON")
    arguments.add_argument(
        "--service",
        action="append",
        default=[],
        metavar="ACTOR=ADDRESS",
        help="where another actor serves, for Describe",
    )
    arguments.add_argument(
        "--for-result", action="store_true", help="whoever started this asks for the result, and says why there is none"
    )
    options = arguments.parse_args(argv)

    labs: list[Lab] = []
    stopped = False

    async def actor() -> None:
        lab = _lab(options)
        labs.append(lab)
        try:
            async with open_loop() as loop, serve(loop, options.listen, lab.handlers()):
                await lab.run()
        except BindError as exc:
            raise Failure(str(exc)) from None
        if lab.failure is not None and not stopped and not (options.for_result and lab.told):
            raise Failure(lab.failure)

    def stop() -> None:
        nonlocal stopped
        stopped = True
        for lab in labs:
            lab.stop()

    return run("kvm", actor, with_parent=options.with_parent, stop=stop)


def _lab(options: argparse.Namespace) -> Lab:
    try:
        experiment = typed_json.loads(ex.Experiment, options.experiment.read_bytes())
        services = dict(_service(service) for service in options.service)
        return Lab(experiment, {"kvm": str(options.listen), **services}, play=_play)
    except OSError as exc:
        raise Failure(f"cannot read the experiment: {exc.strerror}: {exc.filename}") from None
    except DesignError as exc:
        raise Failure(str(exc)) from None
    except ValueError as exc:
        raise Failure(f"{options.experiment}: {exc}") from None


async def _play(experiment: ex.Experiment) -> Mapping[str, Any]:
    # The software of all actors is loaded here only if there is something to try again.
    from services import embedded

    return await embedded.play(experiment)


def _service(text: str) -> tuple[str, str]:
    actor, equals, where = text.partition("=")
    if not equals:
        raise Failure(f"--service {text}: it should be ACTOR=ADDRESS")
    return actor, where


if __name__ == "__main__":
    sys.exit(main())
