"""What can go wrong in the simulation itself."""

from __future__ import annotations

from services.cpu import BurstError


class SimulationError(Exception):
    """The simulation cannot go on; the message says what happened where."""

    def within(self, where: str) -> SimulationError:
        """The same, found by way of `where`."""
        return type(self)(f"{where}: {self}")


class Livelock(SimulationError):
    """Virtual time passes, but nobody gets anywhere.

    `violated`: the judge has found it to be a violation (I12). Otherwise it is the doing of a guest's own software, or
    of timers that expire faster than they can be served, or the run is not judged.
    """

    def __init__(self, what: str, *, violated: bool) -> None:
        super().__init__(what)
        self.violated = violated

    def within(self, where: str) -> Livelock:
        return Livelock(f"{where}: {self}", violated=self.violated)


class JudgeFault(SimulationError):
    """The judge has failed, and says nothing of the run."""


class ProtocolError(SimulationError, BurstError):
    """Software posted what its CPU does not execute."""


class InjectUndef(Exception):
    """A guest's access is UNDEFINED: the guest takes an exception to EL1."""


class RetryAccess(Exception):
    """A guest's access that has trapped is executed again: it does not trap now."""
