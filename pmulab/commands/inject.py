"""`pmulab inject`."""

from __future__ import annotations

import argparse
import sys

from pmulab import runtime
from pmulab.client import connect
from pmulab.scenario import injection
from pmulab.topology import translate_call_errors
from services import typed_json
from services.errors import UserError
from services.experiment import Experiment, SessionSpec

_MAX_CPU = 2**32 - 1  # on the wire


def main(arguments: argparse.Namespace) -> int:
    target, _, cpu = arguments.target.partition("/")
    if cpu and not (cpu.isdecimal() and len(cpu) <= len(str(_MAX_CPU)) and int(cpu) <= _MAX_CPU):
        raise UserError(arguments.target, f"{cpu!r} is not the number of a CPU", f"write for example {target}/1")
    with translate_call_errors(), connect(runtime.find(arguments.topology).addresses["kvm"]) as lab:
        launch = typed_json.loads(Experiment, lab.describe().launch.encode())
        work, profiles = injection.load(arguments.file, launch, target, int(cpu or 0))
        if isinstance(work, SessionSpec):
            sys.stderr.writelines(f"pmulab: perf {work.verb}: {text}\n" for text in work.warned)
        taken = lab.inject(target, work, cpu=int(cpu or 0), profiles=profiles)
    seconds = taken.now / launch.frequency_hz
    sys.stdout.write(f"injection {taken.id} took effect at entry {taken.entry}, {seconds:.6f} s of virtual time\n")
    return 0
