"""The generated messages are those that proto/ says."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GENERATED = sorted(path.name for path in (ROOT / "services/wire").glob("*_pb2.py*"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`services/wire` as proto/generate.py makes it now."""
    into = tmp_path_factory.mktemp("generated")
    subprocess.run([sys.executable, ROOT / "proto/generate.py", into], check=True)
    return into / "services/wire"


def test_every_proto_file_has_its_module_and_stub_and_there_are_no_others(fresh: Path) -> None:
    assert sorted(path.name for path in fresh.iterdir()) == GENERATED


@pytest.mark.parametrize("name", GENERATED)
def test_generating_again_changes_nothing(fresh: Path, name: str) -> None:
    assert (fresh / name).read_text() == (ROOT / "services/wire" / name).read_text()
