"""Bring what the README shows up to date: run its two commands and paste what they print.

python docs/readme.py [demo] [test]
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"


def main(wanted: list[str]) -> None:
    """Replace the blocks that are wanted, all by default. Raises SystemExit if a command fails."""
    if not wanted or "demo" in wanted:
        _replace("demo", _output("demo").partition("run gzip-record\n")[2])
    if not wanted or "test" in wanted:
        closing = [line for line in _output("test").splitlines() if re.search(r"\d+ passed", line)]
        _replace("test", "\n".join(line for line in closing if " 0 passed" not in line))


def _output(target: str) -> str:
    done = subprocess.run(["make", target], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout}\nmake {target} fails")
    return done.stdout


def _replace(block: str, output: str) -> None:
    replaced, count = re.subn(
        rf"(<!-- {block} -->\n```\n).*?(```\n<!-- /{block} -->)",
        lambda match: f"{match[1]}{output.strip()}\n{match[2]}",
        README.read_text(),
        flags=re.DOTALL,
    )
    if count != 1:
        raise SystemExit(f"README.md has {count} blocks {block!r}, not one")
    README.write_text(replaced)


if __name__ == "__main__":
    main(sys.argv[1:])
