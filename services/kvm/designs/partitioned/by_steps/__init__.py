"""Posted versions and `partitioned`, exchanged step by step."""

from services.kvm.designs.partitioned.by_steps.design import BySteps

__all__ = ["BySteps"]
