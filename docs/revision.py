"""The commit that figures are of."""

from __future__ import annotations

import subprocess
from pathlib import Path


def revision() -> str:
    """Of this working tree, `-dirty` if it is none. Raises CalledProcessError where there is no git repository."""
    return subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
    ).stdout.strip()
