"""The next overflow on a pCPU at each point of what an action has KVM do, and with it the PMU's interrupt.

When it comes follows from what has been counted, so something runs before the action, and for so long that the rest of
the way to the overflow ends there. Nothing is poked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from pmulab.check.play import Move, Play
from services.kvm.stepped import SteppedPCpu

POINTS = 48  # of an action, most of which has fewer operations
_LONG = 1_000_000  # cycles, in which an overflow comes that is on its way


class Overflows:
    """Of one world and deck."""

    def __init__(self, play: Play) -> None:
        self.play = play
        runs = [move for move in play.stock.actions if move.spec.action == "run"]
        # Who runs before an action: the vCPU that is loaded, at EL0, or the host's kernel.
        self.of_vcpus = {move.spec.target: move for move in runs if move.spec.el == 0 and not _of_host(move)}
        self.of_host = {move.spec.target: move for move in runs if move.spec.el == 2 and _of_host(move)}

    async def before(self, action: Move, come_to: Callable[[], Awaitable[None]]) -> list[Move]:
        """What may pass before the action, which is possible where `come_to` leads."""
        play = self.play
        await come_to()
        pcpu = self._pcpu(action)
        run = None if pcpu is None else self._run(pcpu)
        if pcpu is None or run is None or not await play.act((_for(run, _LONG, until_event=True),)):
            return []
        (given,) = play.given or ({},)
        if not given.get("interrupted"):
            return []
        ahead = int(given["cycles"])
        await come_to()
        began = pcpu.now
        if not await play.act((action,)):
            return []
        within = min(pcpu.now - began, ahead)
        return [_for(run, ahead - earlier) for earlier in range(1, within, max(within // POINTS, 1))]

    def _pcpu(self, action: Move) -> SteppedPCpu | None:
        """On which it has KVM do something; None of what is not a vCPU's or a pCPU's."""
        script, target = self.play.script, action.spec.target
        if _of_host(action):
            return script.pcpus[target]
        return script.vcpus[target].here if "/" in action.spec.party else None

    def _run(self, pcpu: SteppedPCpu) -> Move | None:
        vcpu = self.play.script.current(pcpu)
        return self.of_host.get(pcpu.cpu) if vcpu is None else self.of_vcpus.get(vcpu.id)


def _of_host(move: Move) -> bool:
    return move.spec.party.startswith("host/")


def _for(run: Move, cycles: int, *, until_event: bool = False) -> Move:
    step = {**run.step, "cycles": cycles} | ({"until": "event"} if until_event else {})
    return Move(step, replace(run.spec, cycles=cycles, until_event=until_event))
