"""`partitioned-by-steps`: `partitioned`, with the steps of posted versions in the place of its own.

What a step of a version's is made of comes from that version's own code. It is a design to ask questions with, such as
which of a version's steps break an invariant; nobody has proposed it, and it is not listed.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.kvm.designs.partitioned.by_steps.pmu import BackedStepsPmu, StepsPmu
from services.kvm.designs.partitioned.by_steps.steps import Of
from services.kvm.designs.partitioned.by_steps.versions import Composed
from services.kvm.vpmu import KvmVcpu


@dataclass(frozen=True, kw_only=True)
class BySteps(Composed):
    """Each step is whose its axis says."""

    name = "partitioned-by-steps"
    why = "partitioned, with steps of the posted versions in the place of its own"

    def vpmu(self, vcpu: KvmVcpu) -> StepsPmu:
        return StepsPmu(self, vcpu) if self.backing is Of.PARTITIONED else BackedStepsPmu(self, vcpu)
