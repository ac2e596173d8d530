"""A third party's design arrives through the entry point group `pmulab.designs`."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "half-partition"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the example is installed."""
    target = tmp_path_factory.mktemp("site")
    copy = tmp_path_factory.mktemp("source")  # building leaves files behind
    for name in ("pyproject.toml", "half_partition.py"):
        (copy / name).write_bytes((EXAMPLE / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(copy)], check=True)
    return {**os.environ, "PYTHONPATH": str(target)}


def pmulab(environment: dict[str, str], *words: str) -> bytes:
    command = [sys.executable, "-m", "pmulab", *words]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, timeout=120).stdout


def test_it_is_listed_with_its_axes(installed: dict[str, str]) -> None:
    text = pmulab(installed, "designs").decode()
    assert "half: the guest owns half of the event counters" in text


def test_it_runs_and_its_guest_has_half_of_the_counters(installed: dict[str, str]) -> None:
    (run,) = orjson.loads(pmulab(installed, "run", "quick", "--design", "half", "--json"))["runs"]
    assert run["design"]["name"] == "half"
    assert run["design"]["fallbacks"] == ["vm0 gets 3 event counters: half leaves no more"]
    swaps = run["kvm"]["swaps"]
    h = 6 // 2  # of the Neoverse V3 that the scenario runs on
    # PMUSERENR_EL0, quiet overflow flags and the host's PMCR_EL0 too.
    assert swaps["register_writes"] == swaps["loads"] * (2 * h + 11) + swaps["puts"] * 5
    shares = [event["running_ns"] / event["enabled_ns"] for event in run["guests"][0]["events"]]
    assert min(shares) < 0.9  # five events on three counters and the cycle counter
