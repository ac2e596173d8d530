"""Which topologies of this user are running: a private directory for each, with its sockets in it.

The directory of a topology holds `topology.json` (written when all its actors answer), the sockets,
and `lock`, which its launcher holds for as long as it lives: whoever gets the lock knows that the launcher has gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from services.errors import UserError

_DESCRIPTION = "topology.json"
_LOCK = "lock"
_MOST = 1000  # topologies of one scenario at once


@dataclass(frozen=True, slots=True)
class Running:
    """A topology whose actors answer: its name, its launcher's process id, and where each actor serves."""

    name: str
    pid: int
    scenario: str
    design: str
    addresses: dict[str, str]


def root() -> Path:
    """The directory of this user's topologies, made if need be. Raises UserError if it is not private."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(runtime) / "pmulab" if runtime else Path("/tmp") / f"pmulab-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise UserError(str(path), str(error.strerror), "set XDG_RUNTIME_DIR to a directory of your own") from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise UserError(str(path), "not a private directory of yours", "remove it, or chmod 0700 it")
    return path


@contextlib.contextmanager
def claimed(scenario: str) -> Iterator[Path]:
    """A new topology's directory, named for its scenario; gone with all in it at the end."""
    base = root()
    with writing(base):
        path = _make(base, scenario)
        lock = _lock(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def writing(directory: Path) -> Iterator[None]:
    """The block makes files in `directory`. Raises UserError if that is full, read-only or gone."""
    try:
        yield
    except OSError as error:
        remedy = "set XDG_RUNTIME_DIR to a directory that can be written to"
        raise UserError(str(directory), str(error.strerror), remedy) from None


def _make(base: Path, scenario: str) -> Path:
    """A new directory for a topology of `scenario`. Raises UserError if there are too many, OSError."""
    for number in range(1, _MOST):
        path = base / (scenario if number == 1 else f"{scenario}-{number}")
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
            return path
        if _abandoned(path):
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
                return path
    raise UserError("", f"{_MOST - 1} topologies of {scenario} are running", "end some with `pmulab down`")


def _lock(path: Path) -> int:
    """The lock of a topology's new directory, held. Without one the directory goes: nobody would know it abandoned."""
    try:
        lock = os.open(path / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        path.rmdir()
        raise
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def announce(directory: Path, scenario: str, design: str, addresses: dict[str, str]) -> Running:
    """Let other commands find the topology whose directory this is."""
    running = Running(directory.name, os.getpid(), scenario, design, addresses)
    partial = directory / f"{_DESCRIPTION}.partial"
    with writing(directory):
        partial.write_bytes(orjson.dumps(asdict(running)))
        partial.replace(directory / _DESCRIPTION)
    return running


def find(name: str | None) -> Running:
    """The running topology of that name, or the only one. Raises UserError."""
    running = all_running()
    if name is not None:
        for one in running:
            if one.name == name:
                return one
        raise UserError("", f"no topology {name!r} is running", _listed(running))
    if len(running) != 1:
        choice = "name one with --topology; " if running else ""
        raise UserError("", f"{len(running) or 'no'} topologies are running", choice + _listed(running))
    return running[0]


def all_running() -> list[Running]:
    """Every topology that is up; removes what a killed launcher has left behind."""
    found = []
    for path in sorted(root().iterdir()):
        description = path / _DESCRIPTION
        if description.exists() and not _abandoned(path):
            with contextlib.suppress(FileNotFoundError):  # it ended just now
                content: dict[str, Any] = orjson.loads(description.read_bytes())
                found.append(Running(**content))
    return found


def is_up(running: Running) -> bool:
    """Does its launcher still live?"""
    return any(one == running for one in all_running())


def _abandoned(path: Path) -> bool:
    """Has the launcher gone without removing its directory? If so it is removed."""
    try:
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False  # just being made, or just being removed
    except NotADirectoryError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        shutil.rmtree(path, ignore_errors=True)
        return True
    finally:
        os.close(lock)


def _listed(running: list[Running]) -> str:
    return f"there are: {', '.join(one.name for one in running)}" if running else "start one with `pmulab up SCENARIO`"
