"""`pmulab.run`: from a script, from a notebook, beside an event loop; and docs/python.md does what it says."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import pmulab
import services.result
from services.result import read

ROOT = Path(__file__).parents[2]
SHORT = {"guest.task.seconds": 0.002}
SECONDS = 60.0

CALL = f"pmulab.run('quick', overrides={SHORT}, jobs=JOBS)"
PRINT = "print([run.digest for run in result.runs])"
PROGRAMS = {
    "script": f"import pmulab\nresult = {CALL}\n{PRINT}\n",
    "asyncio": f"import asyncio, pmulab\nasync def main(): return {CALL}\nresult = asyncio.run(main())\n{PRINT}\n",
    "trio": f"import trio, pmulab\nasync def main(): return {CALL}\nresult = trio.run(main)\n{PRINT}\n",
}


@pytest.fixture(scope="module")
def digests() -> list[str]:
    return [run.digest for run in pmulab.run("quick", overrides=SHORT, jobs=1).runs]


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("program", PROGRAMS)
def test_it_works_without_a_main_guard_and_where_a_loop_runs(
    tmp_path: Path, program: str, jobs: int, digests: list[str]
) -> None:
    text = PROGRAMS[program].replace("JOBS", str(jobs))
    path = tmp_path / "program.py"
    path.write_text(text)
    for command in ([str(path)], ["-c", text]):
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=SECONDS, cwd=tmp_path)
        assert (done.stdout, done.stderr) == (f"{digests}\n", "")


def test_it_works_in_a_thread(digests: list[str]) -> None:
    program = PROGRAMS["asyncio"].replace("return ", "return await asyncio.to_thread(lambda: ").replace("JOBS)", "2))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=SECONDS)
    assert (done.stdout, done.stderr) == (f"{digests}\n", "")


@pytest.mark.parametrize("program", PROGRAMS)
def test_ctrl_c_ends_it_at_once(program: str) -> None:
    long = "pmulab.run('gzip-record', jobs=2, progress=lambda *_: print('simulating', flush=True))"
    text = PROGRAMS[program].replace(CALL, long)
    run = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert run.stdout.readline() == "simulating\n"
    began = time.monotonic()
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=SECONDS)
    assert time.monotonic() - began < 3
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_importing_it_imports_neither_grpc_nor_the_simulation() -> None:
    program = (
        "import sys, pmulab\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('grpc', 'trio', 'services', 'asyncio')))\n"
        "pmulab.run\n"
        "print('grpc' in sys.modules, 'services.kvm.simulation' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\nFalse False\n"


def test_every_public_name_is_there_and_no_other() -> None:
    for name in pmulab.__all__:
        assert getattr(pmulab, name).__doc__
    assert not hasattr(pmulab, "Runs")
    parts = {name for name in services.result.__all__ if dataclasses.is_dataclass(getattr(services.result, name))}
    assert parts <= set(pmulab.__all__), "all that a result is made of"


def test_a_result_is_frozen_and_its_json_is_itself() -> None:
    result = pmulab.run("two-vms", designs=["partitioned"], overrides=SHORT)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.runs[0].digest = ""  # type: ignore[misc]
    plain = json.loads(json.dumps(result.json()))
    assert plain["schema"] == "pmulab.result/2"
    assert read(plain) == result
    with pytest.raises(ValueError, match=r"schema: pmulab\.result/2 is wanted, not 'pmulab\.result/1'"):
        read(plain | {"schema": "pmulab.result/1"})


@pytest.mark.parametrize(
    ("overrides", "texts"),
    [
        ({"guest.hz": 100}, "guest.hz=100"),
        ({"guest.task.seconds": 0.002}, "guest.task.seconds=0.002"),
        ({"guest.task.seconds": Decimal("0.002")}, "guest.task.seconds=0.002"),
        ({"machine.core": "neoverse-n2"}, "machine.core=neoverse-n2"),
        ({"machine.hpmn0": True}, "machine.hpmn0=true"),
        ({"guest.denied": ("r1b", "r1c")}, 'guest.denied=["r1b","r1c"]'),
    ],
)
def test_overrides_are_python_values(overrides: dict[str, Any], texts: str) -> None:
    from pmulab import scenario

    assert scenario.load("quick", overrides=overrides) == scenario.load("quick", overrides=[texts])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scenario": "nowhere"}, "nowhere: no such file; give a path, or the name of a shipped scenario"),
        ({"designs": ["emulatd"]}, "--design emulatd: unknown design 'emulatd'; did you mean"),
        ({"designs": "emulatd"}, "--design emulatd: unknown design 'emulatd'; did you mean"),
        ({"overrides": {"guest.hz": "fast"}}, "--set guest.hz=fast: guest.hz must be an integer, not a string; write"),
        ({"overrides": {"guest hz": 1}}, "--set guest hz=1: not of the form key=value; write"),
        ({"overrides": {"guest.hz": None}}, "--set guest.hz=None: a value cannot be a NoneType; give a number, "),
        ({"overrides": {"guest.hz": "=1"}}, "--set guest.hz==1: guest.hz must be an integer"),
        ({"overrides": {"guest.hz": 10**5000}}, "--set guest.hz=(an integer of 16610 bits): guest.hz = (an integer of"),
        ({"overrides": ["guest.hz=1"]}, "overrides=['guest.hz=1']: not a mapping of keys to values; write for example"),
        ({"overrides": {1: 2}}, "overrides={1: 2}: not a mapping of keys to values; write for example"),
        ({"designs": [1]}, "designs=[1]: designs are given by their names; write for example"),
        ({"designs": None}, "designs=None: designs are given by their names; write for example"),
        ({"jobs": "two"}, "jobs=two: at least one design must run; give 1 or more"),
        ({"jobs": 0}, "jobs=0: at least one design must run; give 1 or more"),
    ],
)
def test_a_mistake_says_where_it_is_what_it_is_and_what_would_be_right(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(pmulab.UserError) as caught:
        pmulab.run(**{"scenario": "quick", **arguments})
    error = caught.value
    assert str(error).startswith(message)
    assert str(error) == f"{error.where}: {error.problem}; {error.remedy}"


def test_the_documentations_examples_print_what_it_shows() -> None:
    text = (ROOT / "docs" / "python.md").read_text()
    examples = re.findall(r"```python\n(.*?)```\n```\n(.*?)```", text, re.DOTALL)
    assert len(examples) == text.count("```python") == 7
    names: dict[str, Any] = {}
    for code, shown in examples:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        assert printed.getvalue() == shown
