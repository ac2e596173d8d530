"""pmulab: a laboratory for virtualising the Arm PMU."""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("pmulab")
