"""Who attends what, and what can become of it; shared by both sides."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from services.wire import attend_pb2 as wire

# Seconds of silence from a peer whose turn it is, its connection being open, after which it counts as gone.
SILENCE = 60.0

# Seconds within which software that has dialled says hello, or hears that its failure is noted.
COURTESY = 5.0


class Role(IntEnum):
    """Whose software attends; the numbers are the wire's."""

    HOST = wire.ROLE_HOST
    GUEST = wire.ROLE_GUEST


@dataclass(frozen=True, slots=True)
class Seat:
    """A CPU to attend: pCPU `cpu` for the host's perf, vCPU `cpu` of the VM `name` for a guest's kernel."""

    role: Role
    name: str
    cpu: int

    def __str__(self) -> str:
        return f"{self.name} on {'pCPU' if self.role is Role.HOST else 'vCPU'} {self.cpu}"


class PeerGone(Exception):
    """The peer has died, fallen silent or broken the protocol; it takes no further part."""

    def __init__(self, who: str, why: str) -> None:
        super().__init__(who, why)
        self.who = who
        self.why = why

    def __str__(self) -> str:
        return f"{self.who} has gone: {self.why}"
