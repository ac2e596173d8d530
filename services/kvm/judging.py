"""What kvm has to do with its judge: says once what it judges, and asks what it has found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.judge.types import Judgement, Parties, read
from services.kvm.board import Board
from services.kvm.declared import reasons
from services.kvm.errors import JudgeFault
from services.kvm.vcpu import VCpu
from services.kvm.vpmu import Design
from services.result import Violation, judged


class Judging:
    """Of one simulation. What the judge has seen is in the machine, and in its state."""

    DERIVED = ("_machine", "_declared", "_known", "_parties", "_judged", "_stops", "_seen", "_last")
    __slots__ = DERIVED

    def __init__(self, board: Board, design: Design, vcpus: Sequence[VCpu]) -> None:
        experiment = board.experiment
        self._machine = board.machine
        self._declared = reasons(design.declared, experiment)
        self._known = experiment.known
        self._parties = Parties({vcpu.context: f"{vcpu.name}/{vcpu.index}" for vcpu in vcpus})
        self._judged = experiment.judged
        self._stops = self._judged and experiment.stop_on_violation
        self._seen = 0  # violations when it was last asked whether one of them counts
        self._last: Judgement | None = None  # at which the run has stopped
        if self._judged:
            self._machine.judge([(vcpu.context, vcpu.pmu.counters, vcpu.pmu.pmuver, vcpu.pmu.denied) for vcpu in vcpus])

    @property
    def stopped(self) -> bool:
        """Has a violation that counts been found in a run that is to stop at it? Raises JudgeFault."""
        if not self._stops or self._last is not None:
            return self._stops
        found = self._machine.violations()
        if found != self._seen:
            self._seen = found
            judgement = self._judgement()
            if any(one.counts for one in self._violations(judgement)):
                self._last = judgement
        return self._last is not None

    def found(self) -> dict[str, Any]:
        """What a result has of it (`services.result.Run`): up to where it has stopped. Raises JudgeFault."""
        if not self._judged:
            return {"judged": False}
        stopped = self.stopped
        judgement = self._last or self._judgement()
        return {
            "judged": True,
            "violations": self._violations(judgement),
            "premises": judgement.premises,
            "windows": judgement.windows,
            "known": self._known,
            "stopped": stopped,
        }

    def windows(self) -> dict[str, int]:
        """How often each was used, up to now. Raises JudgeFault."""
        try:
            return self._machine.windows()
        except RuntimeError as exc:
            raise JudgeFault(f"the judge has failed: {exc}") from None

    def restored(self) -> None:
        """The machine has another state."""
        self._seen, self._last = 0, None

    def _judgement(self) -> Judgement:
        try:
            told = self._machine.judgement()
            assert told is not None  # it judges
            return read(told)
        except (ValueError, RuntimeError) as exc:
            raise JudgeFault(f"the judge has failed: {exc}") from None

    def _violations(self, judgement: Judgement) -> tuple[Violation, ...]:
        try:
            return judged.violations(judgement, self._parties, self._declared, self._known)
        except ValueError as exc:
            raise JudgeFault(f"the judge has failed: {exc}") from None
