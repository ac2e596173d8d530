"""Another commit of this repository, built beside the working tree."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASES = ROOT / "target" / "base"


def built(revision: str) -> Path:
    """The tree of `revision` with a virtual environment of its own, as `make setup` makes it there.

    It stays in `target/base` for the next time. Raises subprocess.CalledProcessError, after what git or make printed.
    """
    commit = _git("rev-parse", "--verify", f"{revision}^{{commit}}").decode().strip()
    tree = BASES / commit[:12]
    if not tree.is_dir():
        unpacked = tree.with_suffix(".unpacked")
        unpacked.mkdir(parents=True, exist_ok=True)
        subprocess.run(["tar", "-x", "-C", unpacked], input=_git("archive", commit), check=True)
        unpacked.rename(tree)
    # What this make was called with is not for that one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "BASE"))}
    subprocess.run(["make", "--silent", "setup"], cwd=tree, env=environment, check=True)
    return tree


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
