"""Where a service is to be found, who may call it, and the private directory of a topology's sockets.

    unix:PATH                 a socket in a private directory: the directory is the gate
    mtls:HOST:PORT            TCP with mutual TLS
    plaintext:HOST:PORT       TCP without, on loopback only: any user of the machine may call

Port 0 is a free one when serving.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

# Longest path of a Unix socket, in bytes: sockaddr_un.sun_path has 108 with the NUL that ends it (unix(7)).
LONGEST_PATH = 107

UNIX, MTLS, PLAINTEXT = "unix", "mtls", "plaintext"


class BindError(Exception):
    """A service cannot be served at its address; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Address:
    scheme: str  # UNIX, MTLS or PLAINTEXT
    target: str  # the path, or HOST:PORT

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises ValueError that says what is wrong with the address."""
        scheme, _, target = text.partition(":")
        if scheme not in (UNIX, MTLS, PLAINTEXT) or not target:
            raise ValueError(f"address {text!r} is not one of unix:PATH, mtls:HOST:PORT, plaintext:HOST:PORT")
        if scheme == UNIX:
            if len(os.fsencode(target)) > LONGEST_PATH:
                raise ValueError(f"address {text!r}: a socket's path has at most {LONGEST_PATH} bytes")
        else:
            host, _, port = target.rpartition(":")
            if not host or not port.isdecimal() or int(port) > 65535:
                raise ValueError(f"address {text!r} has no HOST:PORT with a port from 0 to 65535")
            if scheme == PLAINTEXT and not _loopback(host):
                raise ValueError(f"address {text!r}: plain TCP is for loopback only; use mtls:")
        return cls(scheme, target)

    def __str__(self) -> str:
        return f"{self.scheme}:{self.target}"

    @property
    def grpc_target(self) -> str:
        """As gRPC's own resolvers name it."""
        return f"unix:{self.target}" if self.scheme == UNIX else f"dns:///{self.target}"

    def check(self, tls: Tls | None) -> None:
        """Raises ValueError unless there are certificates exactly if the address needs them."""
        if self.scheme == MTLS and tls is None:
            raise ValueError(f"address {str(self)!r} needs certificates: the authority's, one's own, and its key")
        if self.scheme != MTLS and tls is not None:
            raise ValueError(f"address {str(self)!r} uses no certificates; mtls: does")

    def at_port(self, port: int) -> Address:
        if self.scheme == UNIX:
            return self
        return Address(self.scheme, f"{self.target.rpartition(':')[0]}:{port}")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files of one party of mutual TLS: who is trusted, who it is, and its private key."""

    authority: Path
    certificate: Path
    key: Path

    def server(self) -> grpc.ServerCredentials:
        """Every client must show a certificate of the authority."""
        pair = self.key.read_bytes(), self.certificate.read_bytes()
        return grpc.ssl_server_credentials([pair], self.authority.read_bytes(), require_client_auth=True)

    def client(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            self.authority.read_bytes(), self.key.read_bytes(), self.certificate.read_bytes()
        )


@contextlib.contextmanager
def private_directory(parent: Path | None = None) -> Iterator[Path]:
    """A new directory of mode 0700 for the sockets of one topology; gone with all in it at the end."""
    with tempfile.TemporaryDirectory(prefix="pmulab-", dir=parent) as path:
        yield Path(path)


@contextlib.contextmanager
def claimed_socket(path: Path) -> Iterator[None]:
    """The right to bind the Unix socket `path`, and nobody else's while it lasts. Raises `BindError`.

    gRPC unlinks whatever is at the path it binds, a live server's socket too, and unlinks the path again when it
    ends, whoever's it is by then. So a lock beside the socket says who has it; what a dead process left
    is removed under the lock.
    """
    _check_private(path.parent)
    lock = path.with_name(path.name + ".lock")
    descriptor = _lock(lock, path)
    try:
        if path.is_socket():
            path.unlink()
        elif os.path.lexists(path):
            raise BindError(f"{path} exists and is not a socket: remove it, or serve at another path")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        lock.unlink(missing_ok=True)  # before the lock is let go: who waits for it looks again (_lock)
        os.close(descriptor)


def _check_private(directory: Path) -> None:
    try:
        status = directory.lstat()
    except OSError as exc:
        raise BindError(f"{directory}: {exc.strerror}: the socket's directory must exist") from exc
    if not stat.S_ISDIR(status.st_mode):
        raise BindError(f"{directory} is not a directory (a symbolic link is not followed)")
    if status.st_uid != os.geteuid():
        raise BindError(f"{directory} belongs to user {status.st_uid}: sockets are served in a directory of one's own")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise BindError(f"{directory} has mode {mode:04o}: others could call the service; chmod 0700 it")


def _lock(lock: Path, path: Path) -> int:
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.exists() and os.path.samestat(os.fstat(descriptor), lock.stat()):
                return descriptor
        except BlockingIOError as exc:
            os.close(descriptor)
            raise BindError(f"{path} is being served by another process") from exc
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last owner removed it meanwhile


@contextlib.contextmanager
def private_umask() -> Iterator[None]:
    """Files made meanwhile are the owner's alone. The umask is the process's: not to be held across a checkpoint."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
