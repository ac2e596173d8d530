"""What can go wrong in the simulation itself."""

from __future__ import annotations

from services.cpu import BurstError


class SimulationError(Exception):
    """The simulation cannot go on; the message says what happened where."""


class Livelock(SimulationError):
    """Virtual time passes, but nobody gets anywhere (invariant I12)."""


class JudgeFault(SimulationError):
    """The judge has failed, and says nothing of the run."""


class ProtocolError(SimulationError, BurstError):
    """Software posted what its CPU does not execute."""


class InjectUndef(Exception):
    """A guest's access is UNDEFINED: the guest takes an exception to EL1."""


class RetryAccess(Exception):
    """A guest's access that has trapped is executed again: it does not trap now."""
