"""The wheel, in an empty environment outside the tree, runs a scenario.

The build reuses the release build that `make` has made in target/, so it takes seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path, building: bool = False) -> str:
    """The standard output of a command that sees nothing of this environment or this tree, unless it builds there."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    if building:
        kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        kept["VIRTUAL_ENV"] = sys.prefix  # as `make setup` has it: with another one all is compiled anew
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    maturin = Path(sys.executable).with_name("maturin")
    run(maturin, "build", "--release", "--locked", "--quiet", "--out", out, cwd=ROOT, building=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the programs of an environment with the wheel and what it depends on."""
    home = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", home, cwd=home)
    python = home / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel, cwd=home)
    return home / "bin"


def test_the_wheel_serves_every_python_from_3_11(wheel: Path) -> None:
    assert "-cp311-abi3-" in wheel.name


def test_the_wheel_holds_the_sources_of_both_packages_and_nothing_else(wheel: Path) -> None:
    sources = [path for package in ("pmulab", "services") for path in (ROOT / package).rglob("*") if path.is_file()]
    kept = [path for path in sources if path.suffix != ".so" and "__pycache__" not in path.parts]
    with zipfile.ZipFile(wheel) as archive:
        held = [name for name in archive.namelist() if ".dist-info/" not in name and ".libs/" not in name]
    assert sorted(name for name in held if not name.endswith(".so")) == sorted(
        str(path.relative_to(ROOT)) for path in kept
    )
    assert [name for name in held if name.endswith(".so")] == ["services/_pmu.abi3.so"]


def test_the_wheel_holds_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (licence,) = [name for name in archive.namelist() if name.endswith("/licenses/LICENSE")]
        assert b"Apache License" in archive.read(licence)


def test_the_installed_program_says_its_version(environment: Path, tmp_path: Path) -> None:
    assert run(environment / "pmulab", "--version", cwd=tmp_path).split() == ["pmulab", "0.1.0"]


def test_the_installed_program_runs_a_shipped_scenario(environment: Path, tmp_path: Path) -> None:
    short = "guest.task.scale=0.01"
    text = run(environment / "pmulab", "run", "gzip-record", "--set", short, "--json", cwd=tmp_path)
    result = json.loads(text)
    assert result["schema"] == "pmulab.result/2"
    assert [one["design"]["name"] for one in result["runs"]] == ["emulated-6.15", "partitioned-v1"]
    assert all(one["digest"] for one in result["runs"])
