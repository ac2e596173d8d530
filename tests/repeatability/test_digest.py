"""The same scenario gives the same digest however it is run."""

import os
import random
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import trio

from pmulab import scenario
from pmulab.exit_status import OK, VIOLATED
from services import embedded

READER = str(Path(__file__).parent / "reader.toml")
INTERVALS = str(Path(__file__).parent / "intervals.toml")
BPERF = str(Path(__file__).parent / "bperf.toml")
NMI = str(Path(__file__).parent / "nmi.toml")
READ = str(Path(__file__).parent / "read.toml")
RESERVED = str(Path(__file__).parent / "reserved.toml")
SWEVENT = str(Path(__file__).parent / "swevent.toml")
SIGILL = str(Path(__file__).parent / "sigill.toml")
SHORTER = "guest.task.seconds=0.03"  # some ticks, rotations and hundreds of samples


def overrides(name: str) -> list[str]:
    """Of a shipped scenario; those of this directory are short as they are."""
    return [] if name.endswith(".toml") else [SHORTER]


def of(
    name: str,
    design: str,
    *,
    topology: str = "embedded",
    hash_seed: str = "0",
    trio_seed: int | None = None,
    status: int = OK,
) -> str:
    """The digest of a run in a Python of its own, which ends with `status`."""
    code = "import sys; from pmulab.cli import main; sys.exit(main())"
    if trio_seed is not None:
        code = f"import trio._core._run as run; run._r.seed({trio_seed}); " + code
    options = ["--design", design, "--topology", topology, *(f"--set={one}" for one in overrides(name))]
    done = subprocess.run(
        [sys.executable, "-c", code, "run", name, *options, "--json"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        timeout=120,
        check=False,
    )
    assert done.returncode == status
    (run,) = orjson.loads(done.stdout)["runs"]
    return str(run["digest"])


def here(name: str, design: str) -> str:
    """The digest of a run in this Python."""
    (experiment,) = scenario.load(name, designs=[design], overrides=overrides(name)).experiments
    return str(trio.run(embedded.run, experiment)["digest"])


@pytest.mark.parametrize("name", ["quick", "two-vms"])
@pytest.mark.parametrize("design", ["emulated", "partitioned"])
def test_a_run_repeats(name: str, design: str) -> None:
    assert here(name, design) == here(name, design)


@pytest.mark.parametrize("hash_seed", ["1", "4242", "random"])
def test_no_hash_order_reaches_the_simulation(hash_seed: str) -> None:
    assert of("two-vms", "emulated", hash_seed=hash_seed) == here("two-vms", "emulated")


@pytest.mark.parametrize(
    "name", ["quick", "two-vms", READER, INTERVALS, BPERF, NMI, READ, SWEVENT], ids=lambda name: Path(name).stem
)
@pytest.mark.parametrize("design", ["emulated", "partitioned"])
def test_processes_give_the_digest_of_the_embedded_run(name: str, design: str) -> None:
    assert of(name, design, topology="processes", trio_seed=random.randrange(2**32)) == here(name, design)


@pytest.mark.parametrize("reservation", ["sysfs", "grow"])
def test_processes_give_the_digest_of_the_embedded_run_by_reservation(reservation: str) -> None:
    design = f"partitioned,reservation={reservation}"
    assert of(RESERVED, design, topology="processes", trio_seed=random.randrange(2**32)) == here(RESERVED, design)


def test_processes_give_the_digest_of_the_embedded_run_if_a_program_is_killed() -> None:
    killed = of(SIGILL, "partitioned-v4", topology="processes", trio_seed=random.randrange(2**32), status=VIOLATED)
    assert killed == here(SIGILL, "partitioned-v4")
